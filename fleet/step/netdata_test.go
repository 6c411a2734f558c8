package step

import (
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestNetworkData(t *testing.T) {
	net := fleet.Network{Name: "team", Subnets: []fleet.Subnet{{CIDR: "10.0.0.0/24", Gateway: "10.0.0.1"}, {CIDR: "10.1.0.0/24", Gateway: "10.1.0.1"}, {CIDR: "fd00::/64", Gateway: "fd00::1", DNS: []string{"fd00::53"}}}}
	port := func(name, lag string) fleet.Port {
		return fleet.Port{MAC: fleet.MAC("52:54:00:00:00:0" + name), Role: fleet.PortTenant, Switch: "leaf", Port: "swp" + name, LAG: lag}
	}
	for name, c := range map[string]struct {
		ports     []fleet.Port
		addresses []string
		want      string
		code      string
	}{
		"two subnets of a kind have one way out": {[]fleet.Port{port("1", "")}, []string{"10.0.0.5/24", "10.1.0.5/24", "fd00::5/64"},
			`{"links":[{"id":"port0","type":"phy","ethernet_mac_address":"52:54:00:00:00:01"}],` +
				`"networks":[{"id":"address0","link":"port0","type":"ipv4","ip_address":"10.0.0.5/24","gateway":"10.0.0.1"},{"id":"address1","link":"port0","type":"ipv4","ip_address":"10.1.0.5/24"},` +
				`{"id":"address2","link":"port0","type":"ipv6","ip_address":"fd00::5/64","gateway":"fd00::1"}],"services":[{"type":"dns","address":"fd00::53"}]}`, ""},
		"a LAG goes before a single port": {[]fleet.Port{port("1", ""), port("2", "po1"), {Role: fleet.PortProvisioning, MAC: "52:54:00:00:00:09"}, port("3", "po1")}, []string{"10.0.0.5/24"},
			`{"links":[{"id":"port0","type":"phy","ethernet_mac_address":"52:54:00:00:00:02"},{"id":"port1","type":"phy","ethernet_mac_address":"52:54:00:00:00:03"},` +
				`{"id":"bond0","type":"bond","ethernet_mac_address":"52:54:00:00:00:02","bond_links":["port0","port1"],"bond_mode":"802.3ad","bond_xmit_hash_policy":"layer3+4","bond_miimon":100}],` +
				`"networks":[{"id":"address0","link":"bond0","type":"ipv4","ip_address":"10.0.0.5/24","gateway":"10.0.0.1"}]}`, ""},
		"two cards at one port of a switch are a LAG": {[]fleet.Port{{MAC: "52:54:00:00:00:02", Role: fleet.PortTenant, Switch: "leaf", Port: "po1"}, {MAC: "52:54:00:00:00:03", Role: fleet.PortTenant, Switch: "leaf", Port: "po1"}}, []string{"10.0.0.5/24"},
			`{"links":[{"id":"port0","type":"phy","ethernet_mac_address":"52:54:00:00:00:02"},{"id":"port1","type":"phy","ethernet_mac_address":"52:54:00:00:00:03"},` +
				`{"id":"bond0","type":"bond","ethernet_mac_address":"52:54:00:00:00:02","bond_links":["port0","port1"],"bond_mode":"802.3ad","bond_xmit_hash_policy":"layer3+4","bond_miimon":100}],` +
				`"networks":[{"id":"address0","link":"bond0","type":"ipv4","ip_address":"10.0.0.5/24","gateway":"10.0.0.1"}]}`, ""},
		"no port for tenants":               {[]fleet.Port{{Role: fleet.PortProvisioning, MAC: "52:54:00:00:00:09"}}, []string{"10.0.0.5/24"}, "", "MC-NET-ADDRESS"},
		"an address of no subnet any more":  {[]fleet.Port{port("1", "")}, []string{"10.9.0.5/24"}, "", "MC-NET-ADDRESS"},
		"one whose range has become larger": {[]fleet.Port{port("1", "")}, []string{"10.0.0.5/25"}, "", "MC-NET-ADDRESS"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NetworkData(net, fleet.Node{Name: "n1", Ports: c.ports}, c.addresses)
			if fleet.CodeOf(err) != c.code || string(got) != c.want {
				t.Errorf("%s, %v\nwant %s %s", strings.ReplaceAll(string(got), "},", "},\n"), err, c.want, c.code)
			}
		})
	}
}
