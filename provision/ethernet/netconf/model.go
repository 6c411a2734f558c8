package netconf

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Namespaces of OpenConfig.
const (
	interfacesNS = "http://openconfig.net/yang/interfaces"
	ethernetNS   = "http://openconfig.net/yang/interfaces/ethernet"
	vlanNS       = "http://openconfig.net/yang/vlan"
	instanceNS   = "http://openconfig.net/yang/network-instance"
)

// data is what is read, by openconfig-interfaces and openconfig-vlan.
type data struct {
	Interfaces []iface `xml:"http://openconfig.net/yang/interfaces interfaces>interface"`
}

type iface struct {
	Name     string    `xml:"name"`
	Config   leaves    `xml:"config"`
	State    *leaves   `xml:"state"`
	Ethernet *layer2   `xml:"http://openconfig.net/yang/interfaces/ethernet ethernet"`
	Sub      []element `xml:"subinterfaces>subinterface"`
	Other    []element `xml:",any"`
}

type layer2 struct {
	Config   leaves    `xml:"config"`
	Switched *switched `xml:"http://openconfig.net/yang/vlan switched-vlan"`
	Other    []element `xml:",any"`
}

type switched struct {
	Config leaves    `xml:"config"`
	State  *leaves   `xml:"state"`
	Other  []element `xml:",any"`
}

type leaves struct {
	All []element `xml:",any"`
}

type element struct {
	XMLName xml.Name
	Text    string    `xml:",chardata"`
	Inner   []element `xml:",any"`
}

func (e element) text() string { return strings.TrimSpace(e.Text) }

// one is the value of a leaf, "" where it is not there. A leaf that is there twice is an error.
func (l leaves) one(name string) (string, error) {
	var out []string
	for _, e := range l.All {
		if e.XMLName.Local == name {
			out = append(out, e.text())
		}
	}
	switch len(out) {
	case 0:
		return "", nil
	case 1:
		return out[0], nil
	}
	return "", fmt.Errorf("has %s twice", name)
}

// Leaves that have nothing to do with who reaches a port.
var harmless = map[string][]string{
	"config":        {"name", "type", "mtu", "description", "enabled"},
	"ethernet":      {"mac-address", "auto-negotiate", "duplex-mode", "port-speed", "enable-flow-control", "fec-mode", "standalone-link-training"},
	"switched-vlan": {"interface-mode", "access-vlan", "native-vlan", "trunk-vlans"},
}

// stranger is the first leaf that is not known where it stands, "" where all are.
func (l leaves) stranger(where string) string {
	for _, e := range l.All {
		if !slices.Contains(harmless[where], e.XMLName.Local) {
			return e.XMLName.Local
		}
	}
	return ""
}

// view is what a port carries by its configuration, and, where live is set, by what the switch says that it does.
func (x iface) view(live bool) fleet.PortView {
	p := fleet.PortView{Port: x.Name}
	c, why := x.configured()
	p.Carries, p.Doubt = c, why
	if why != "" || !live {
		return p
	}
	if x.State == nil || x.Ethernet.Switched.State == nil {
		p.Doubt = "does not say what it does, only what is configured"
		return p
	}
	does, why := carries(*x.State, *x.Ethernet.Switched.State)
	switch {
	case why != "":
		p.Doubt = why
	case !does.Equal(c):
		p.Doubt = fmt.Sprintf("is configured to carry %s and carries %s", c, does)
	}
	return p
}

func (x iface) configured() (fleet.Carries, string) {
	if len(x.Other) > 0 {
		return fleet.Carries{}, "has " + quoted(x.Other[0].XMLName.Local) + ", of which is not known what it does to the port"
	}
	for _, s := range x.Sub {
		for _, e := range s.Inner {
			if e.XMLName.Local != "index" && e.XMLName.Local != "config" && e.XMLName.Local != "state" {
				return fleet.Carries{}, "is routed: a subinterface has " + quoted(e.XMLName.Local)
			}
		}
	}
	if x.Ethernet == nil || x.Ethernet.Switched == nil {
		return fleet.Carries{}, "is not switched"
	}
	var strange string
	for where, l := range map[string]leaves{"config": x.Config, "ethernet": x.Ethernet.Config, "switched-vlan": x.Ethernet.Switched.Config} {
		if s := l.stranger(where); s != "" {
			strange = s
		}
	}
	for _, e := range append(slices.Clone(x.Ethernet.Other), x.Ethernet.Switched.Other...) {
		if e.XMLName.Local != "state" {
			strange = e.XMLName.Local
		}
	}
	c, why := carries(x.Config, x.Ethernet.Switched.Config)
	if strange != "" {
		why = "has " + quoted(strange) + ", of which is not known what it does to the port"
	}
	return c, why
}

// carries reads the leaves of a port and of its VLANs.
func carries(port, vlans leaves) (fleet.Carries, string) {
	var c fleet.Carries
	enabled, err := port.one("enabled")
	if err != nil || enabled != "true" && enabled != "false" {
		return c, "does not say whether it is on"
	}
	c.Down = enabled == "false"
	mode, err := vlans.one("interface-mode")
	if err != nil {
		return c, err.Error()
	}
	leaf := map[string]string{"ACCESS": "access-vlan", "TRUNK": "native-vlan"}[mode]
	if leaf == "" {
		return c, "has the mode " + quoted(mode)
	}
	untagged, err := vlans.one(leaf)
	if err == nil && untagged != "" {
		c.Untagged, err = parseVLAN(untagged)
	}
	if err != nil {
		return c, err.Error()
	}
	if mode == "ACCESS" {
		if c.Untagged == 0 {
			return c, "has no access VLAN"
		}
		return c, ""
	}
	listed := false
	for _, e := range vlans.All {
		if e.XMLName.Local != "trunk-vlans" {
			continue
		}
		listed = true
		lo, hi, isRange := strings.Cut(e.text(), "..")
		if !isRange {
			hi = lo
		}
		a, errA := parseVLAN(lo)
		b, errB := parseVLAN(hi)
		if errA != nil || errB != nil || a > b {
			return c, "has the VLANs " + quoted(e.text())
		}
		for v := a; v <= b; v++ {
			if v != c.Untagged {
				c.Tagged = append(c.Tagged, v)
			}
		}
	}
	if !listed {
		return c, "is a trunk of every VLAN"
	}
	slices.Sort(c.Tagged)
	c.Tagged = slices.Compact(c.Tagged)
	return c, ""
}

func parseVLAN(s string) (fleet.VLAN, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < 1 || n > 4094 {
		return 0, fmt.Errorf("has %s for a VLAN", quoted(s))
	}
	return fleet.VLAN(n), nil
}

func quoted(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return strconv.QuoteToASCII(s)
}

// filter asks for those ports.
func filter(ports []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<filter type="subtree"><interfaces xmlns="%s">`, interfacesNS)
	for _, p := range ports {
		b.WriteString("<interface><name>" + escaped(p) + "</name></interface>")
	}
	b.WriteString("</interfaces></filter>")
	return b.String()
}

// edit gives ports what they shall carry, and makes the VLANs for it.
func edit(changes []fleet.WireChange) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<config><network-instances xmlns="%s"><network-instance><name>default</name><vlans>`, instanceNS)
	for _, v := range vlansOf(changes) {
		fmt.Fprintf(&b, "<vlan><vlan-id>%d</vlan-id><config><vlan-id>%d</vlan-id></config></vlan>", v, v)
	}
	fmt.Fprintf(&b, `</vlans></network-instance></network-instances><interfaces xmlns="%s">`, interfacesNS)
	for _, c := range changes {
		p := escaped(c.Port)
		fmt.Fprintf(&b, `<interface><name>%s</name><config><name>%s</name><enabled>%t</enabled></config><ethernet xmlns="%s">`, p, p, !c.To.Down, ethernetNS)
		fmt.Fprintf(&b, `<switched-vlan xmlns="%s" xmlns:nc="%s" nc:operation="replace"><config>`, vlanNS, baseNS)
		switch {
		case len(c.To.Tagged) == 0:
			fmt.Fprintf(&b, "<interface-mode>ACCESS</interface-mode><access-vlan>%d</access-vlan>", c.To.Untagged)
		default:
			b.WriteString("<interface-mode>TRUNK</interface-mode>")
			if c.To.Untagged != 0 {
				fmt.Fprintf(&b, "<native-vlan>%d</native-vlan><trunk-vlans>%d</trunk-vlans>", c.To.Untagged, c.To.Untagged)
			}
			for _, v := range c.To.Tagged {
				fmt.Fprintf(&b, "<trunk-vlans>%d</trunk-vlans>", v)
			}
		}
		b.WriteString("</config></switched-vlan></ethernet></interface>")
	}
	b.WriteString("</interfaces></config>")
	return b.String()
}

func vlansOf(changes []fleet.WireChange) (out []fleet.VLAN) {
	for _, c := range changes {
		for _, v := range append(slices.Clone(c.To.Tagged), c.To.Untagged) {
			if v > 1 {
				out = append(out, v)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func escaped(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		panic("netconf: " + err.Error()) // a strings.Builder takes everything
	}
	return b.String()
}
