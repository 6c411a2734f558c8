package rdma

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// errNoModule is a port with nothing plugged in, or a driver that cannot tell.
var errNoModule = errors.New("no module can be read")

// Messages and attributes of ethtool netlink (linux/ethtool_netlink.h).
const (
	ethtoolModuleEEPROMGet = 31 // ETHTOOL_MSG_MODULE_EEPROM_GET
	eepromHeader           = 1
	eepromOffset           = 2
	eepromLength           = 3
	eepromPage             = 4
	eepromBank             = 5
	eepromI2CAddress       = 6
	eepromData             = 7
	headerDevName          = 2
	moduleI2CAddress       = 0x50
	pageBytes              = 128
)

// readModule reads a module's EEPROM in the order that DecodeModule wants: the lower half and page 00h, then the pages that its kind has.
func readModule(name string) ([]byte, error) {
	family, err := netlink.GenlFamilyGet("ethtool")
	if err != nil {
		return nil, errNoModule // kernels before 5.6
	}
	b, err := eepromBlock(family.ID, name, 0, 0)
	if err != nil {
		return nil, err
	}
	page0, err := eepromBlock(family.ID, name, 0, pageBytes)
	if err != nil {
		return nil, err
	}
	b = append(b, page0...)
	if b[0] < 0x18 || b[2]&0x80 != 0 { // not CMIS, or flat memory
		return b, nil
	}
	for _, page := range []byte{0x01, 0x02, 0x10, 0x11} {
		more, err := eepromBlock(family.ID, name, page, pageBytes)
		if err != nil {
			return nil, fmt.Errorf("page %02xh of %s: %w", page, name, err)
		}
		b = append(b, more...)
	}
	return b, nil
}

// eepromBlock reads 128 bytes.
func eepromBlock(family uint16, name string, page byte, offset uint32) ([]byte, error) {
	req := nl.NewNetlinkRequest(int(family), unix.NLM_F_REQUEST)
	req.AddData(&nl.Genlmsg{Command: ethtoolModuleEEPROMGet, Version: 1})
	header := nl.NewRtAttr(eepromHeader|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(headerDevName, nl.ZeroTerminated(name))
	req.AddData(header)
	number := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	req.AddData(nl.NewRtAttr(eepromOffset, number(offset)))
	req.AddData(nl.NewRtAttr(eepromLength, number(pageBytes)))
	req.AddData(nl.NewRtAttr(eepromPage, []byte{page}))
	req.AddData(nl.NewRtAttr(eepromBank, []byte{0}))
	req.AddData(nl.NewRtAttr(eepromI2CAddress, []byte{moduleI2CAddress}))
	messages, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, moduleError(err)
	}
	for _, m := range messages {
		if len(m) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return nil, fmt.Errorf("read the answer about the module of %s: %w", name, err)
		}
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED == eepromData && len(a.Value) >= pageBytes {
				return a.Value[:pageBytes], nil
			}
		}
	}
	return nil, fmt.Errorf("the kernel's answer about the module of %s has no data", name)
}

// moduleError tells what is not there from what is broken: drivers answer ENODEV and EINVAL for an empty cage, and EOPNOTSUPP where they cannot read.
func moduleError(err error) error {
	for _, none := range []error{unix.EOPNOTSUPP, unix.ENODEV, unix.EINVAL, unix.ENXIO} {
		if errors.Is(err, none) {
			return errNoModule
		}
	}
	return fmt.Errorf("read the module's EEPROM: %w", err)
}
