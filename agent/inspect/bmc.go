package inspect

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// bmcInterfaces are the interface types of SMBIOS type 38 (DSP0134 section 7.39).
var bmcInterfaces = map[byte]string{1: "KCS", 2: "SMIC", 3: "BT", 4: "SSIF"}

// readBMC reads the management controller as the host sees it: SMBIOS says how to reach it, the kernel's IPMI driver which firmware it runs.
func (r *reading) readBMC(context.Context) {
	b := fleet.HostBMC{}
	if r.dmi != nil {
		for _, s := range r.dmi.Structures {
			switch {
			case s.Header.Type == 38 && len(s.Formatted) > 0:
				b.Interface = bmcInterfaces[s.Formatted[0]]
			case s.Header.Type == 42:
				if a := hostInterfaceAddress(s.Formatted); a != nil {
					b.Address = a.String()
				}
			}
		}
	}
	const dir = "sys/class/ipmi"
	names, err := r.fs.List(dir)
	if err != nil {
		r.missing("bmc", err)
	}
	if len(names) > 0 {
		at := dir + "/" + names[0] + "/device/bmc"
		b.Firmware = r.fs.Try(at, "firmware_revision")
		if n, err := strconv.ParseUint(strings.TrimPrefix(r.fs.Try(at, "manufacturer_id"), "0x"), 16, 32); err == nil {
			b.Manufacturer = manufacturer(n)
		}
	}
	b.HostInterface = r.hostInterface()
	if b == (fleet.HostBMC{}) {
		return // a machine without one, as virtual machines are
	}
	if b.Firmware == "" {
		r.missingf("bmc.firmware", "there is no IPMI driver that would tell (/%s)", dir)
	}
	r.inv.BMC = &b
}

// manufacturer is the name behind an IANA enterprise number, or the number.
func manufacturer(n uint64) string {
	names := map[uint64]string{11: "Hewlett Packard Enterprise", 674: "Dell", 2011: "Huawei", 5703: "NVIDIA", 10876: "Supermicro", 15370: "Gigabyte", 19046: "Lenovo",
		33049: "Mellanox", 47196: "Hewlett Packard Enterprise", 49769: "Inspur", 51974: "xFusion"}
	if name, ok := names[n]; ok {
		return name
	}
	return strconv.FormatUint(n, 10)
}

// hostInterface is the network interface that leads to the BMC: a USB network device, named by its driver or by udev's rules for BMCs.
func (r *reading) hostInterface() string {
	names, err := r.fs.List("sys/class/net")
	if err != nil {
		return ""
	}
	for _, name := range names {
		driver := r.fs.Base("sys/class/net", name, "device/driver")
		if driver == "cdc_ether" || driver == "rndis_host" || driver == "cdc_ncm" && strings.Contains(name, "bmc") {
			return name
		}
	}
	return ""
}

// hostInterfaceAddress reads where the BMC's Redfish service is from the body of an SMBIOS type 42 (DSP0270 section 8.2, protocol "Redfish over IP").
func hostInterfaceAddress(b []byte) net.IP {
	if len(b) < 2 || b[0] != 0x40 {
		return nil
	}
	at := 2 + int(b[1])
	if at >= len(b) {
		return nil
	}
	records := int(b[at])
	at++
	for range records {
		if at+2 > len(b) {
			return nil
		}
		kind, size := b[at], int(b[at+1])
		at += 2
		if at+size > len(b) {
			return nil
		}
		record := b[at : at+size]
		at += size
		// UUID (16), host: how assigned, format, address (16), mask (16); then the service: how assigned, format, address (16), mask, port.
		if kind != 4 || len(record) < 88 {
			continue
		}
		address := record[52:68]
		switch record[51] {
		case 1:
			return net.IP(address[:4])
		case 2:
			return net.IP(address)
		}
	}
	return nil
}
