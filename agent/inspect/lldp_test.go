package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// element encodes one TLV.
func element(kind uint8, value ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(kind)<<9|uint16(len(value))), value...)
}

func text(subtype byte, s string) []byte { return append([]byte{subtype}, s...) }

func unit(elements ...[]byte) []byte { return append(bytes.Join(elements, nil), 0, 0) }

var (
	chassis = element(tlvChassisID, 4, 0x00, 0x1c, 0x73, 0xaa, 0xbb, 0xcc)
	port    = element(tlvPortID, text(5, "Ethernet1/7")...)
	ttl     = element(tlvTTL, 0, 120)
)

func TestParseLLDP(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []byte
		want fleet.Neighbor
	}{
		"the three that must be": {unit(chassis, port, ttl), fleet.Neighbor{ChassisID: "00:1c:73:aa:bb:cc", PortID: "Ethernet1/7"}},
		"no end element":         {bytes.Join([][]byte{chassis, port, ttl}, nil), fleet.Neighbor{ChassisID: "00:1c:73:aa:bb:cc", PortID: "Ethernet1/7"}},
		"padding after the end":  {append(unit(chassis, port, ttl), make([]byte, 20)...), fleet.Neighbor{ChassisID: "00:1c:73:aa:bb:cc", PortID: "Ethernet1/7"}},
		"all that is read": {unit(chassis, port, ttl, element(tlvPortDesc, []byte("n01 prov")...), element(tlvSystemName, []byte("leaf-3\x00")...),
			element(tlvOrgSpecific, 0x00, 0x80, 0xc2, 1, 0, 100), element(tlvOrgSpecific, 0x00, 0x12, 0x0f, 4, 9, 0)),
			fleet.Neighbor{ChassisID: "00:1c:73:aa:bb:cc", PortID: "Ethernet1/7", PortDesc: "n01 prov", SystemName: "leaf-3", VLAN: 100}},
		"addresses as identifiers": {unit(element(tlvChassisID, 5, 1, 10, 1, 2, 3), element(tlvPortID, append([]byte{4, 2}, bytes.Repeat([]byte{0xfd}, 16)...)...), ttl),
			fleet.Neighbor{ChassisID: "10.1.2.3", PortID: "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd"}},
		"port by MAC":                      {unit(chassis, element(tlvPortID, 3, 1, 2, 3, 4, 5, 6), ttl), fleet.Neighbor{ChassisID: "00:1c:73:aa:bb:cc", PortID: "01:02:03:04:05:06"}},
		"an identifier of a reserved kind": {unit(chassis, element(tlvPortID, 9, 0xde, 0xad), ttl), fleet.Neighbor{ChassisID: "00:1c:73:aa:bb:cc", PortID: "dead"}},
		"text that would move a cursor":    {unit(chassis, port, ttl, element(tlvSystemName, []byte("a\x1b[2Jb")...)), fleet.Neighbor{ChassisID: "00:1c:73:aa:bb:cc", PortID: "Ethernet1/7", SystemName: "a?[2Jb"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseLLDP(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseLLDPRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []byte
		want string
	}{
		"nothing":                 {nil, "begin with"},
		"another order":           {unit(port, chassis, ttl), "begin with"},
		"no time to live":         {unit(chassis, port), "begin with"},
		"goodbye":                 {unit(chassis, port, element(tlvTTL, 0, 0)), errShutdown.Error()},
		"a second chassis":        {unit(chassis, port, ttl, chassis), "second"},
		"a length past the end":   {append(bytes.Join([][]byte{chassis, port, ttl}, nil), 0x0a, 0x10, 'x'), "claims 16 bytes"},
		"half a header":           {append(bytes.Join([][]byte{chassis, port, ttl}, nil), 0x0a), "header"},
		"an empty identifier":     {unit(element(tlvChassisID, 4), port, ttl), "chassis"},
		"a time to live cut":      {unit(chassis, port, element(tlvTTL, 1)), "time to live"},
		"the end before anything": {[]byte{0, 0}, "begin with"},
	} {
		t.Run(name, func(t *testing.T) {
			if n, err := ParseLLDP(tc.in); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("ParseLLDP = %+v, %v; want an error with %q", n, err, tc.want)
			}
		})
	}
	if _, err := ParseLLDP(unit(chassis, port, element(tlvTTL, 0, 0))); !errors.Is(err, errShutdown) {
		t.Errorf("goodbye = %v", err)
	}
}

func FuzzParseLLDP(f *testing.F) {
	f.Add(unit(chassis, port, ttl))
	f.Add(unit(chassis, port, ttl, element(tlvSystemName, []byte("leaf")...), element(tlvOrgSpecific, 0x00, 0x80, 0xc2, 1, 0, 100)))
	f.Add([]byte{0x02, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseLLDP(b)
		if err != nil {
			return
		}
		for _, s := range []string{n.ChassisID, n.PortID, n.SystemName, n.PortDesc} {
			if len(s) > 510 || strings.ContainsAny(s, "\x00\x1b\n\r") {
				t.Errorf("%x gives %q", b, s)
			}
		}
		if n.ChassisID == "" || n.PortID == "" || n.VLAN < 0 || n.VLAN > 4094 {
			t.Errorf("%x gives %+v", b, n)
		}
	})
}
