package step

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// OpenStack's network_data.json, as far as it is written here (its JSON Schema stands in Nova's doc/api_schemas/network_data.json).
type (
	netLink struct {
		ID        string    `json:"id"`
		Type      string    `json:"type"`
		MAC       fleet.MAC `json:"ethernet_mac_address,omitempty"`
		MTU       int       `json:"mtu,omitempty"`
		BondLinks []string  `json:"bond_links,omitempty"`
		BondMode  string    `json:"bond_mode,omitempty"`
		BondHash  string    `json:"bond_xmit_hash_policy,omitempty"`
		BondMII   int       `json:"bond_miimon,omitempty"`
	}
	netAddress struct {
		ID      string `json:"id"`
		Link    string `json:"link"`
		Type    string `json:"type"`
		Address string `json:"ip_address"`
		Gateway string `json:"gateway,omitempty"`
	}
	netService struct {
		Type    string `json:"type"`
		Address string `json:"address"`
	}
	netData struct {
		Links    []netLink    `json:"links"`
		Networks []netAddress `json:"networks"`
		Services []netService `json:"services,omitempty"`
	}
)

// oneLink reports whether two ports are one link: the same port, or those of one LAG, which ends at one port of its switch.
func oneLink(p, q fleet.Port) bool {
	return p == q || p.LAG != "" && p.LAG == q.LAG || p.Switch != "" && p.Switch == q.Switch && p.Port == q.Port
}

// NetworkData is what the node's system is told of the network that its ports for tenants are in. The ports of one LAG are a bond that speaks LACP, and have the
// addresses; else the first port has them, and the others are left to the tenant. MC-NET-ADDRESS where an address is none of the network's any more, or a
// port does not name its MAC, by which the system would know it.
func NetworkData(net fleet.Network, n fleet.Node, addresses []string) (json.RawMessage, error) {
	ports := slices.DeleteFunc(slices.Clone(n.Ports), func(p fleet.Port) bool { return p.Role != fleet.PortTenant })
	if len(ports) == 0 {
		return nil, fleet.Errorf(fleet.Conflict, "MC-NET-ADDRESS", "%s has no port for tenants that could have an address of the network %s", n.Name, net.Name).WithHint("metalctl node show %s", n.Name)
	}
	var d netData
	first, bonded := ports[0], false
	for _, p := range ports {
		mates := 0
		for _, q := range ports {
			if oneLink(p, q) {
				mates++
			}
		}
		if p.LAG != "" || mates > 1 {
			first, bonded = p, true
			break
		}
	}
	for _, p := range ports {
		if p.MAC == "" {
			return nil, fleet.Errorf(fleet.Conflict, "MC-NET-ADDRESS", "port %s of %s does not name its MAC, so that the node's system could not be told which of its ports has which address", p.Port, n.Name).
				WithHint("metalctl node show %s; or bring network data of your own: metalctl lease create --network-data FILE", n.Name)
		}
		if !oneLink(p, first) {
			continue
		}
		d.Links = append(d.Links, netLink{ID: fmt.Sprintf("port%d", len(d.Links)), Type: "phy", MAC: p.MAC, MTU: net.MTU})
	}
	link := d.Links[0].ID
	if bonded {
		bond := netLink{ID: "bond0", Type: "bond", MAC: first.MAC, MTU: net.MTU, BondMode: "802.3ad", BondHash: "layer3+4", BondMII: 100}
		for _, x := range d.Links {
			bond.BondLinks = append(bond.BondLinks, x.ID)
		}
		d.Links, link = append(d.Links, bond), bond.ID
	}
	routed := map[string]bool{}
	for i, a := range addresses {
		s := net.Of(a)
		if s == nil {
			return nil, fleet.Errorf(fleet.Conflict, "MC-NET-ADDRESS", "%s was given %s, which is of no subnet of the network %s", n.Name, a, net.Name).WithHint("metalctl network show %s", net.Name)
		}
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, fmt.Errorf("address of %s: %w", n.Name, err)
		}
		x := netAddress{ID: fmt.Sprintf("address%d", i), Link: link, Type: "ipv6", Address: a}
		if p.Addr().Is4() {
			x.Type = "ipv4"
		}
		if !routed[x.Type] && s.Gateway != "" { // one way out for each of the two
			x.Gateway, routed[x.Type] = s.Gateway, true
		}
		d.Networks = append(d.Networks, x)
		for _, dns := range s.DNS {
			d.Services = append(d.Services, netService{"dns", dns})
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode network data: %w", err)
	}
	return b, nil
}
