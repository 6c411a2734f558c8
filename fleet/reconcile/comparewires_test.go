package reconcile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestCompareWires(t *testing.T) {
	const guid = fleet.GUID("0x5000000000000101")
	leaf := func(name string) fleet.Switch {
		return fleet.Switch{Name: name, Managed: []string{"swp1", "swp2"}, Uplinks: []string{"swp9"}}
	}
	ether := fleet.Port{MAC: "a", Role: fleet.PortTenant, Switch: "leaf-1", Port: "swp1"}
	hca := fleet.Port{GUID: guid, Role: fleet.PortFabric, Fabric: "ib0"}
	heard := func(system, port, desc string) fleet.Inventory {
		return fleet.Inventory{NICs: []fleet.NIC{{Name: "eth0", MAC: "a", LLDP: &fleet.Neighbor{SystemName: system, PortID: port, PortDesc: desc}}}}
	}
	rails := func(guids ...fleet.GUID) (inv fleet.Inventory) {
		for _, g := range guids {
			inv.HCAs = append(inv.HCAs, fleet.HCA{Name: "mlx5_0", Role: fleet.HCARail, Ports: []fleet.HCAPort{{Port: 1, GUID: g, LinkLayer: "InfiniBand", State: "ACTIVE"}}})
		}
		return inv
	}
	simulated, out := rails("0x1"), rails("0x1")
	simulated.Simulated, out.OutOfBand = "hgx-h200", true
	for name, c := range map[string]struct {
		ports []fleet.Port
		inv   fleet.Inventory
		w     wiring
		want  []string
	}{
		"where the record says":                {[]fleet.Port{ether}, heard("leaf-1", "swp1", ""), wiring{}, nil},
		"with a domain, in capitals":           {[]fleet.Port{ether}, heard("LEAF-1.example.org", "swp1", ""), wiring{}, nil},
		"the port in its description":          {[]fleet.Port{ether}, heard("leaf-1", "527", "swp1"), wiring{}, nil},
		"nothing heard":                        {[]fleet.Port{ether}, fleet.Inventory{NICs: []fleet.NIC{{MAC: "a"}}}, wiring{}, nil},
		"another port":                         {[]fleet.Port{ether}, heard("leaf-1", "swp2", ""), wiring{}, []string{"MC-NET-CABLE nic/eth0"}},
		"an uplink":                            {[]fleet.Port{ether}, heard("leaf-1", "swp9", ""), wiring{}, []string{"MC-NET-CABLE nic/eth0"}},
		"another switch":                       {[]fleet.Port{ether}, heard("leaf-2", "swp1", ""), wiring{}, []string{"MC-NET-CABLE nic/eth0"}},
		"another switch, a port of no name":    {[]fleet.Port{ether}, heard("leaf-2", "99", ""), wiring{}, []string{"MC-NET-CABLE nic/eth0"}},
		"a switch that nobody declared":        {[]fleet.Port{ether}, heard("spine", "swp2", ""), wiring{}, nil},
		"a LAG, whose member the switch names": {[]fleet.Port{{MAC: "a", Role: fleet.PortTenant, Switch: "leaf-1", Port: "bond7", LAG: "bond7"}}, heard("leaf-1", "swp2", ""), wiring{}, nil},
		"the GUIDs agree":                      {[]fleet.Port{hca}, rails(guid), wiring{}, nil},
		"another HCA":                          {[]fleet.Port{hca}, rails("0x1"), wiring{}, []string{"MC-NET-GUID guid/0x1", "MC-NET-GUID guid/" + string(guid)}},
		"no HCA":                               {[]fleet.Port{hca}, rails(), wiring{}, []string{"MC-NET-GUID guid/" + string(guid)}},
		"one that nobody named":                {[]fleet.Port{hca}, rails(guid, "0x1"), wiring{}, []string{"MC-NET-GUID guid/0x1"}},
		"one that nobody keeps apart anyway":   {nil, rails("0x1"), wiring{waived: true}, nil},
		"HCAs that are made up":                {[]fleet.Port{hca}, simulated, wiring{}, nil},
		"a BMC's inventory":                    {[]fleet.Port{hca}, out, wiring{}, nil},
		"another node's port": {[]fleet.Port{ether}, heard("leaf-1", "swp1", ""), wiring{shared: []fleet.SharedPort{{Wire: fleet.Wire{Device: "leaf-1", Port: "swp1"}, With: fleet.Node{Name: "n2"}}}},
			[]string{"MC-NET-PORT port/leaf-1/swp1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.w.switches = []fleet.Switch{leaf("leaf-1"), leaf("leaf-2")}
			var got []string
			for _, f := range CompareWires(fleet.Node{Name: "n1", Ports: c.ports}, c.inv, c.w) {
				got = append(got, f.Code+" "+f.Component)
				if f.Blocks != fleet.BlocksAllocate || f.Hint == "" || f.Evidence == "" {
					t.Errorf("not whole: %+v", f)
				}
				if f.Code == "MC-NET-PORT" && !(strings.Contains(f.Evidence, "n1") && strings.Contains(f.Evidence, "n2")) {
					t.Errorf("%q does not name both nodes", f.Evidence)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
