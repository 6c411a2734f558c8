package configdrive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// NetworkData is OpenStack's network_data.json, as far as cloud-init reads it.
type NetworkData struct {
	Links    []Link    `json:"links"`
	Networks []Network `json:"networks"`
	Services []Service `json:"services,omitempty"`
}

// Link is an interface, a bond or a VLAN.
type Link struct {
	ID string `json:"id"`
	// Type is phy (and the kinds of virtual machines that cloud-init treats alike), bond or vlan.
	Type string `json:"type"`
	// Name is the interface name wished for; may be empty.
	Name string `json:"name,omitempty"`
	MAC  string `json:"ethernet_mac_address,omitempty"`
	MTU  *int   `json:"mtu,omitempty"`

	BondLinks []string `json:"bond_links,omitempty"`
	BondMode  string   `json:"bond_mode,omitempty"`
	BondHash  string   `json:"bond_xmit_hash_policy,omitempty"`
	BondMII   *int     `json:"bond_miimon,omitempty"`

	VLANLink string `json:"vlan_link,omitempty"`
	VLANID   *int   `json:"vlan_id,omitempty"`
	VLANMAC  string `json:"vlan_mac_address,omitempty"`
}

// Network is an address configuration on a link.
type Network struct {
	ID   string `json:"id"`
	Link string `json:"link"`
	// Type is ipv4, ipv6, ipv4_dhcp, ipv6_dhcp, ipv6_slaac, ipv6_dhcpv6-stateful or ipv6_dhcpv6-stateless.
	Type    string    `json:"type"`
	Address string    `json:"ip_address,omitempty"`
	Netmask string    `json:"netmask,omitempty"`
	Gateway string    `json:"gateway,omitempty"`
	Routes  []Route   `json:"routes,omitempty"`
	Service []Service `json:"services,omitempty"`
}

// Route goes over Gateway to Network with Netmask.
type Route struct {
	Network string `json:"network"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
}

// Service is a name server.
type Service struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

var linkTypes = map[string]bool{"phy": true, "ethernet": true, "bridge": true, "ovs": true, "tap": true, "vif": true, "dvs": true,
	"hostdev_physical": true, "hw_veb": true, "bond": true, "vlan": true}

var networkTypes = map[string]bool{"ipv4": true, "ipv6": true, "ipv4_dhcp": true, "ipv6_dhcp": true, "ipv6_slaac": true,
	"ipv6_dhcpv6-stateful": true, "ipv6_dhcpv6-stateless": true}

// ParseNetworkData reads and checks a network_data.json. Every fault is named with its place; unknown keys are left alone, as OpenStack writes more than
// is read here.
func ParseNetworkData(b []byte) (NetworkData, []fleet.FieldError) {
	var d NetworkData
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&d); err != nil {
		return d, []fleet.FieldError{{Field: "network_data", Message: err.Error()}}
	}
	if _, err := dec.Token(); err != io.EOF {
		return d, []fleet.FieldError{{Field: "network_data", Message: fmt.Sprintf("more text after the document, at byte %d", dec.InputOffset())}}
	}
	c := checker{links: map[string]Link{}}
	for i, l := range d.Links {
		c.link(i, l)
	}
	for i, l := range d.Links {
		c.references(i, l)
	}
	for i, n := range d.Networks {
		c.network(i, n)
	}
	for i, s := range d.Services {
		c.address(fmt.Sprintf("services[%d].address", i), s.Address)
	}
	return d, c.errs
}

type checker struct {
	links map[string]Link
	errs  []fleet.FieldError
}

func (c *checker) bad(field, format string, args ...any) {
	c.errs = append(c.errs, fleet.FieldError{Field: "network_data." + field, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) link(i int, l Link) {
	at := fmt.Sprintf("links[%d].", i)
	if l.ID == "" {
		c.bad(at+"id", "missing")
	} else if _, twice := c.links[l.ID]; twice {
		c.bad(at+"id", "%q is used twice", l.ID)
	}
	c.links[l.ID] = l
	if !linkTypes[l.Type] {
		c.bad(at+"type", "%q is not phy, bond or vlan", l.Type)
	}
	if mac := l.MAC + l.VLANMAC; mac != "" {
		if _, err := net.ParseMAC(mac); err != nil {
			c.bad(at+"ethernet_mac_address", "%q is not a MAC address", mac)
		}
	} else if l.Type != "bond" && l.Type != "vlan" && l.Name == "" {
		c.bad(at+"ethernet_mac_address", "missing: without it the interface cannot be told")
	}
	if l.MTU != nil && (*l.MTU < 68 || *l.MTU > 65535) {
		c.bad(at+"mtu", "%d is not between 68 and 65535", *l.MTU)
	}
}

func (c *checker) references(i int, l Link) {
	at := fmt.Sprintf("links[%d].", i)
	switch l.Type {
	case "bond":
		if len(l.BondLinks) == 0 {
			c.bad(at+"bond_links", "missing")
		}
		for k, id := range l.BondLinks {
			if m, ok := c.links[id]; !ok || m.Type == "bond" || m.Type == "vlan" {
				c.bad(fmt.Sprintf("%sbond_links[%d]", at, k), "no interface %q", id)
			}
		}
	case "vlan":
		if m, ok := c.links[l.VLANLink]; !ok || m.Type == "vlan" {
			c.bad(at+"vlan_link", "no link %q", l.VLANLink)
		}
		if l.VLANID == nil || *l.VLANID < 1 || *l.VLANID > 4094 {
			c.bad(at+"vlan_id", "not between 1 and 4094")
		}
	}
}

func (c *checker) network(i int, n Network) {
	at := fmt.Sprintf("networks[%d].", i)
	if _, ok := c.links[n.Link]; !ok {
		c.bad(at+"link", "no link %q", n.Link)
	}
	if !networkTypes[n.Type] {
		c.bad(at+"type", "%q is not known", n.Type)
	}
	if n.Type == "ipv4" || n.Type == "ipv6" {
		if p, err := prefix(n.Address, n.Netmask); err != nil {
			c.bad(at+"ip_address", "%v", err)
		} else if p.Addr().Is4() != (n.Type == "ipv4") {
			c.bad(at+"ip_address", "%s is not %s", n.Address, n.Type)
		}
	}
	if n.Gateway != "" {
		c.address(at+"gateway", n.Gateway)
	}
	for k, r := range n.Routes {
		at := fmt.Sprintf("%sroutes[%d].", at, k)
		if _, err := prefix(r.Network, r.Netmask); err != nil {
			c.bad(at+"network", "%v", err)
		}
		c.address(at+"gateway", r.Gateway)
	}
	for k, s := range n.Service {
		c.address(fmt.Sprintf("%sservices[%d].address", at, k), s.Address)
	}
}

func (c *checker) address(field, s string) {
	if _, err := netip.ParseAddr(s); err != nil {
		c.bad(field, "%q is not an address", s)
	}
}

// prefix reads "10.0.0.5/24", or an address with a netmask in either spelling; a lone address is a host route.
func prefix(address, netmask string) (netip.Prefix, error) {
	if strings.Contains(address, "/") {
		p, err := netip.ParsePrefix(address)
		if err != nil {
			return p, fmt.Errorf("%q is not an address with a prefix length", address)
		}
		return p, nil
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address", address)
	}
	if netmask == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	m, err := netip.ParseAddr(netmask)
	if err != nil || m.Is4() != a.Is4() {
		return netip.Prefix{}, fmt.Errorf("%q is not a netmask for %s", netmask, address)
	}
	ones, bits := net.IPMask(m.AsSlice()).Size()
	if bits == 0 {
		return netip.Prefix{}, fmt.Errorf("%q is not a netmask", netmask)
	}
	return netip.PrefixFrom(a, ones), nil
}

// networkConfig renders cloud-init's version 2 (netplan) form; JSON is YAML.
func (d NetworkData) networkConfig() ([]byte, error) {
	type object = map[string]any
	sections := map[string]object{}
	byID, name := map[string]object{}, map[string]string{}
	for i, l := range d.Links {
		name[l.ID] = l.Name
		if l.Name == "" {
			name[l.ID] = fmt.Sprintf("link%d", i)
		}
	}
	for _, l := range d.Links {
		o, section := object{}, "ethernets"
		if l.MTU != nil {
			o["mtu"] = *l.MTU
		}
		switch l.Type {
		case "bond":
			section = "bonds"
			members := []string{}
			for _, id := range l.BondLinks {
				members = append(members, name[id])
			}
			o["interfaces"] = members
			parameters := object{}
			for key, v := range map[string]string{"mode": l.BondMode, "transmit-hash-policy": l.BondHash} {
				if v != "" {
					parameters[key] = v
				}
			}
			if l.BondMII != nil {
				parameters["mii-monitor-interval"] = *l.BondMII
			}
			o["parameters"] = parameters
			if l.MAC != "" {
				o["macaddress"] = strings.ToLower(l.MAC)
			}
		case "vlan":
			section = "vlans"
			o["id"], o["link"] = *l.VLANID, name[l.VLANLink]
			if l.VLANMAC != "" {
				o["macaddress"] = strings.ToLower(l.VLANMAC)
			}
		default:
			if l.MAC != "" {
				o["match"] = object{"macaddress": strings.ToLower(l.MAC)}
				if l.Name != "" {
					o["set-name"] = l.Name
				}
			}
		}
		if sections[section] == nil {
			sections[section] = object{}
		}
		sections[section][name[l.ID]] = o
		byID[l.ID] = o
	}
	for _, n := range d.Networks {
		n.into(byID[n.Link], d.Services)
	}
	doc := object{"version": 2}
	for section, o := range sections {
		doc[section] = o
	}
	return json.MarshalIndent(doc, "", "  ")
}

// into adds the network to its link's object.
func (n Network) into(o map[string]any, global []Service) {
	list := func(key string, v any) {
		old, _ := o[key].([]any)
		o[key] = append(old, v)
	}
	switch n.Type {
	case "ipv4_dhcp":
		o["dhcp4"] = true
	case "ipv6_dhcp", "ipv6_dhcpv6-stateful":
		o["dhcp6"] = true
	case "ipv6_slaac", "ipv6_dhcpv6-stateless":
		o["accept-ra"] = true
	default:
		if p, err := prefix(n.Address, n.Netmask); err == nil {
			list("addresses", p.String())
		}
	}
	if n.Gateway != "" {
		to := "0.0.0.0/0"
		if strings.Contains(n.Gateway, ":") {
			to = "::/0"
		}
		list("routes", map[string]any{"to": to, "via": n.Gateway})
	}
	for _, r := range n.Routes {
		if p, err := prefix(r.Network, r.Netmask); err == nil {
			list("routes", map[string]any{"to": p.Masked().String(), "via": r.Gateway})
		}
	}
	servers, _ := o["nameservers"].(map[string]any)
	for _, s := range append(append([]Service(nil), n.Service...), global...) {
		if s.Type != "dns" {
			continue
		}
		if servers == nil {
			servers = map[string]any{}
			o["nameservers"] = servers
		}
		addresses, _ := servers["addresses"].([]string)
		seen := false
		for _, a := range addresses {
			seen = seen || a == s.Address
		}
		if !seen {
			servers["addresses"] = append(addresses, s.Address)
		}
	}
}
