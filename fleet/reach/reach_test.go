package reach

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func ib(m ...fleet.Membership) fleet.Carries { return fleet.InPartitions(m...) }

var full1, limited1, full2 = fleet.Membership{PKey: 0x101, Full: true}, fleet.Membership{PKey: 0x101}, fleet.Membership{PKey: 0x102, Full: true}

func TestCheck(t *testing.T) {
	open := fleet.Carries{Partitions: []fleet.Membership{{PKey: fleet.DefaultPKey, Full: true}}}
	for _, c := range []struct {
		name   string
		a, b   fleet.Carries
		ao, bo Owner
		want   string
	}{
		{"two tenants apart", ib(full1), ib(full2), "l1", "l2", ""},
		{"one tenant", ib(full1), ib(full1), "l1", "l1", ""},
		{"two full members", ib(full1), ib(full1), "l1", "l2", "a (l1) and b (l2) meet in partition 0x0101 of d"},
		{"a full and a limited one", ib(limited1), ib(full1), "l1", "l2", "a (l1) and b (l2) meet in partition 0x0101 of d"},
		{"two limited ones", ib(limited1), ib(limited1), "l1", "l2", ""},
		{"a gateway", ib(full1), ib(full1), "l1", Fabric, ""},
		{"a freed node in a tenant's partition", ib(full1), ib(full1), "l1", Quarantine, "a (l1) and b (quarantine) meet in partition 0x0101 of d"},
		{"two freed nodes", ib(), ib(), Quarantine, Quarantine, ""},
		{"two freed nodes that speak", ib(full1), ib(limited1), Quarantine, Quarantine, "a (quarantine) and b (quarantine) meet in partition 0x0101 of d"},
		{"one open port reaches all", open, ib(full1), "l1", "l2", "a (l1) and b (l2) meet in partition 0x7fff of d"},
		{"one VLAN", fleet.Carries{Untagged: 20}, fleet.Carries{Untagged: 20}, "l1", "l2", "a (l1) and b (l2) meet in VLAN 20 of d"},
		{"a trunk that has it", fleet.Carries{Untagged: 20}, fleet.Carries{Untagged: 30, Tagged: []fleet.VLAN{20}}, "l1", "l2", "a (l1) and b (l2) meet in VLAN 20 of d"},
		{"two VLANs", fleet.Carries{Untagged: 20}, fleet.Carries{Untagged: 30}, "l1", "l2", ""},
		{"a port that is down", fleet.Carries{Untagged: 20}, fleet.Carries{Untagged: 20, Down: true}, "l1", "l2", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, unread := Check(Observed{Views: []fleet.WireView{{Device: "d", Ports: []fleet.PortView{{Port: "a", Carries: c.a}, {Port: "b", Carries: c.b}}}},
				Owners: []Port{{"d", "a", c.ao}, {"d", "b", c.bo}}})
			s := ""
			if len(got) > 0 {
				s = got[0].String()
			}
			if s != c.want || len(got) > 1 || len(unread) > 0 {
				t.Errorf("got %v, unread %v; want %q", got, unread, c.want)
			}
		})
	}
}

func TestCheckDomains(t *testing.T) {
	views := []fleet.WireView{{Device: "leaf-1", Ports: []fleet.PortView{{Port: "p", Carries: fleet.Carries{Untagged: 20}}}},
		{Device: "leaf-2", Ports: []fleet.PortView{{Port: "p", Carries: fleet.Carries{Untagged: 20}}}}}
	owners := []Port{{"leaf-1", "p", "l1"}, {"leaf-2", "p", "l2"}}
	if got, _ := Check(Observed{Views: views, Owners: owners}); len(got) != 0 {
		t.Errorf("two switches without a link: %v", got)
	}
	if got, _ := Check(Observed{Views: views, Owners: owners, Domains: map[string]string{"leaf-1": "site", "leaf-2": "site"}}); len(got) != 1 {
		t.Errorf("two switches that pass VLANs on: %v", got)
	}
}

func TestCheckUnread(t *testing.T) {
	views := []fleet.WireView{{Device: "d", Ports: []fleet.PortView{{Port: "a", Doubt: "did not answer"}, {Port: "c", Carries: ib(full1)}, {Port: "e", Carries: ib(full1)}}}}
	got, unread := Check(Observed{Views: views, Owners: []Port{{"d", "a", "l1"}, {"d", "b", "l1"}, {"d", "c", "l1"}}})
	if d := cmp.Diff([]Port{{"d", "a", "l1"}, {"d", "b", "l1"}}, unread); d != "" {
		t.Errorf("unread (-want +got):\n%s", d)
	}
	if len(got) != 1 || got[0].B.Port != "e" {
		t.Errorf("a port that nobody knows is in a tenant's partition: %v", got)
	}
}

// TestCheckAsNaive compares with a model that asks, for each pair of ports of random fabrics, whether a packet from one would be taken by the other.
func TestCheckAsNaive(t *testing.T) {
	for seed := range uint64(400) {
		o := randomly(rand.New(rand.NewPCG(seed, 6)))
		got, _ := Check(o)
		pairs := map[string]bool{}
		for _, m := range got {
			pairs[pair(m.A.Owner, m.B.Owner)] = true
			if !speak(o, m.A, m.B) {
				t.Fatalf("seed %d: %s, and they cannot", seed, m)
			}
		}
		want := naive(o)
		if d := cmp.Diff(want, pairs); d != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, d)
		}
	}
}

func pair(a, b Owner) string {
	s := []string{string(a), string(b)}
	slices.Sort(s)
	return s[0] + "|" + s[1]
}

func naive(o Observed) map[string]bool {
	out := map[string]bool{}
	for i, a := range o.Owners {
		for _, b := range o.Owners[i+1:] {
			apart := a.Owner != b.Owner || a.Owner == Quarantine
			if apart && a.Owner != Fabric && b.Owner != Fabric && speak(o, a, b) {
				out[pair(a.Owner, b.Owner)] = true
			}
		}
	}
	return out
}

// speak sends a packet with every tag that a's device would let it have, and asks whether b's takes it.
func speak(o Observed, a, b Port) bool {
	view := func(p Port) fleet.Carries {
		for _, v := range o.Views {
			if v.Device == p.Device {
				return v.Port(p.Port).Carries
			}
		}
		return fleet.Carries{}
	}
	x, y := view(a), view(b)
	if o.Domains[a.Device] != o.Domains[b.Device] || x.Down || y.Down {
		return false
	}
	for tag := fleet.VLAN(1); tag < 40; tag++ {
		in := func(c fleet.Carries) bool { return c.Untagged == tag || slices.Contains(c.Tagged, tag) }
		if in(x) && in(y) {
			return true
		}
	}
	for _, m := range x.Partitions {
		for _, n := range y.Partitions {
			// InfiniBand Architecture 1.4, section 10.9.3: keys match, and not both are limited.
			if m.Raw()&0x7fff == n.Raw()&0x7fff && (m.Raw()|n.Raw())&0x8000 != 0 {
				return true
			}
		}
	}
	return false
}

// randomly makes switches in one or two domains and a fabric, with few tags, so that ports meet often and not always.
func randomly(r *rand.Rand) Observed {
	o := Observed{Domains: map[string]string{}}
	owners := []Owner{"l1", "l2", "l3", Fabric, Quarantine}
	for d := range 1 + r.IntN(4) {
		v := fleet.WireView{Device: fmt.Sprintf("d%d", d)}
		fabric := r.IntN(2) == 0
		o.Domains[v.Device] = fmt.Sprintf("%t%d", fabric, r.IntN(2))
		for p := range 1 + r.IntN(4) {
			name := fmt.Sprintf("p%d", p)
			var c fleet.Carries
			switch {
			case fabric:
				for k := fleet.PKey(0x101); k < 0x106; k++ {
					if r.IntN(4) == 0 {
						c.Partitions = append(c.Partitions, fleet.Membership{PKey: k, Full: r.IntN(2) == 0})
					}
				}
				c.Partitions = append(c.Partitions, fleet.Membership{PKey: fleet.DefaultPKey, Full: r.IntN(20) == 0})
			default:
				c.Down = r.IntN(5) == 0
				if r.IntN(3) > 0 {
					c.Untagged = fleet.VLAN(20 + r.IntN(6))
				}
				for t := fleet.VLAN(26); t < 32; t++ {
					if r.IntN(6) == 0 {
						c.Tagged = append(c.Tagged, t)
					}
				}
			}
			v.Ports = append(v.Ports, fleet.PortView{Port: name, Carries: c})
			o.Owners = append(o.Owners, Port{v.Device, name, owners[r.IntN(len(owners))]})
		}
		o.Views = append(o.Views, v)
	}
	return o
}
