package inspect

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode"

	"github.com/metalctl/metalctl/fleet"
)

// EtherType and TLV types of LLDP (IEEE 802.1AB-2016 clauses 7.3 and 8.4).
const (
	lldpEtherType = 0x88cc

	tlvEnd         = 0
	tlvChassisID   = 1
	tlvPortID      = 2
	tlvTTL         = 3
	tlvPortDesc    = 4
	tlvSystemName  = 5
	tlvOrgSpecific = 127
)

// portVLAN is the Port VLAN ID TLV of IEEE 802.1 (802.1Q-2018 annex D.2.1): OUI 00-80-C2, subtype 1.
var portVLAN = [4]byte{0x00, 0x80, 0xc2, 1}

// errShutdown is a unit whose time to live is 0: the neighbour says goodbye (clause 8.5.4).
var errShutdown = errors.New("the neighbour says that it stops")

// tlv is one type-length-value element.
type tlv struct {
	kind  uint8
	value []byte
}

// splitTLVs cuts an LLDP data unit into its elements, up to the end element or, as clause 8.5.1 allows receivers, the end of the data.
func splitTLVs(b []byte) ([]tlv, error) {
	var out []tlv
	for len(b) > 0 {
		if len(b) < 2 {
			return nil, errors.New("cut short within an element's header")
		}
		head := binary.BigEndian.Uint16(b)
		kind, n := uint8(head>>9), int(head&0x1ff)
		if kind == tlvEnd {
			return out, nil
		}
		if n > len(b)-2 {
			return nil, fmt.Errorf("element of type %d claims %d bytes and %d are left", kind, n, len(b)-2)
		}
		out = append(out, tlv{kind, b[2 : 2+n]})
		b = b[2+n:]
	}
	return out, nil
}

// ParseLLDP reads an LLDP data unit, the payload of an Ethernet frame of type 0x88CC. Chassis, port and time to live must come first and in this order
// (clause 9.2.7.7.1); optional elements that are malformed are refused, unknown ones passed over. A unit that ends the neighbour's announcements is an error.
func ParseLLDP(b []byte) (fleet.Neighbor, error) {
	var n fleet.Neighbor
	tlvs, err := splitTLVs(b)
	if err != nil {
		return n, fmt.Errorf("LLDP: %w", err)
	}
	if len(tlvs) < 3 || tlvs[0].kind != tlvChassisID || tlvs[1].kind != tlvPortID || tlvs[2].kind != tlvTTL {
		return n, errors.New("LLDP: it does not begin with chassis, port and time to live")
	}
	if n.ChassisID, err = identifier(tlvs[0].value, chassisKinds); err != nil {
		return n, fmt.Errorf("LLDP chassis: %w", err)
	}
	if n.PortID, err = identifier(tlvs[1].value, portKinds); err != nil {
		return n, fmt.Errorf("LLDP port: %w", err)
	}
	if len(tlvs[2].value) < 2 {
		return n, errors.New("LLDP: the time to live is cut short")
	}
	if binary.BigEndian.Uint16(tlvs[2].value) == 0 {
		return n, errShutdown
	}
	for _, t := range tlvs[3:] {
		switch {
		case t.kind == tlvChassisID || t.kind == tlvPortID || t.kind == tlvTTL:
			return n, fmt.Errorf("LLDP: a second element of type %d", t.kind)
		case t.kind == tlvPortDesc:
			n.PortDesc = printable(t.value)
		case t.kind == tlvSystemName:
			n.SystemName = printable(t.value)
		case t.kind == tlvOrgSpecific && len(t.value) >= 6 && [4]byte(t.value[:4]) == portVLAN:
			if v := int(binary.BigEndian.Uint16(t.value[4:])); v < 4095 {
				n.VLAN = v // 0: the port has none of its own
			}
		}
	}
	return n, nil
}

// idKind says how the bytes behind a subtype are read.
type idKind uint8

const (
	idText idKind = iota + 1
	idMAC
	idAddress
)

// Subtypes of identifiers (clauses 8.5.2.2 and 8.5.3.2). What is assigned locally may be bytes; printable text is shown as such.
var (
	chassisKinds = map[byte]idKind{1: idText, 2: idText, 3: idText, 4: idMAC, 5: idAddress, 6: idText, 7: idText}
	portKinds    = map[byte]idKind{1: idText, 2: idText, 3: idMAC, 4: idAddress, 5: idText, 6: idText, 7: idText}
)

func identifier(b []byte, kinds map[byte]idKind) (string, error) {
	if len(b) < 2 || len(b) > 256 {
		return "", fmt.Errorf("%d bytes are not a subtype and 1 to 255 bytes", len(b))
	}
	value := b[1:]
	switch kinds[b[0]] {
	case idMAC:
		if len(value) == 6 {
			return net.HardwareAddr(value).String(), nil
		}
	case idAddress:
		// One byte of IANA address family (1: IPv4, 2: IPv6), then the address.
		if a, ok := netip.AddrFromSlice(value[1:]); ok && (value[0] == 1 && a.Is4() || value[0] == 2 && a.Is6()) {
			return a.String(), nil
		}
	case idText:
		if s := printable(value); s != "" && len(s) >= len(strings.TrimRight(string(value), "\x00 ")) {
			return s, nil
		}
	}
	return hex.EncodeToString(value), nil
}

// printable is what of a text may go to a console and a record: no control characters, valid UTF-8, at most 255 bytes. Some switches end texts with NUL.
func printable(b []byte) string {
	s := strings.ToValidUTF8(strings.TrimRight(string(b), "\x00 "), "?")
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), 255)], "")
}
