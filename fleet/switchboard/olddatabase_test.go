package switchboard_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
)

// bigLeaf declares a third switch of the domain with a node at each of its ports, and returns the nodes.
func (r *etherRig) bigLeaf(ports int) []fleet.NodeID {
	r.t.Helper()
	x := leaf("leaf-3")
	x.Managed = nil
	for i := range ports {
		x.Managed = append(x.Managed, fmt.Sprintf("swp%d", 101+i))
	}
	var err error
	if r.files[x.Name], err = wires.NewSwitchFile(filepath.Join(r.t.TempDir(), x.Name), x); err != nil {
		r.t.Fatal(err)
	}
	if err := r.DeclareSwitch(r.t.Context(), x, "somebody"); err != nil {
		r.t.Fatal(err)
	}
	var out []fleet.NodeID
	for i, p := range x.Managed {
		n := fleet.Node{ID: node(101 + i), Name: string(node(101 + i)), State: fleet.Available}
		n.Ports = []fleet.Port{{MAC: fleet.MAC(p), Role: fleet.PortTenant, Switch: x.Name, Port: p}}
		r.put(fleet.KeyOf(fleet.KindNode, n.ID), n)
		r.put(fleet.KeyOf(fleet.KindLease, lease(101+i)), fleet.Lease{ID: lease(101 + i), State: fleet.LeaseActive, Request: fleet.LeaseRequest{Network: "team-a"}})
		out = append(out, n.ID)
	}
	return out
}

// ports are what a switch has on its ports.
func (r *etherRig) ports(name string) (out map[string]fleet.PortView) {
	r.t.Helper()
	err := r.files[name].Edit(func(s *wires.SwitchState) error { out = maps.Clone(s.Ports); return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *etherRig) restore(name string, ports map[string]fleet.PortView) {
	r.t.Helper()
	if err := r.files[name].Edit(func(s *wires.SwitchState) error { s.Ports = maps.Clone(ports); return nil }); err != nil {
		r.t.Fatal(err)
	}
}

// One switch of a domain comes back with the database of the day before. Within a minute that is undone where it is few ports, and stops everything where it is
// many; the other switch is not touched.
func TestOldDatabaseOfOneSwitch(t *testing.T) {
	for _, c := range []struct {
		name  string
		nodes int
		few   bool
	}{{"a few ports", 4, true}, {"more than a few", 12, false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newEtherRig(t)
			r.Every = 15 * time.Second
			ctx := t.Context()
			if err := r.PutNetwork(ctx, fleet.Network{Name: "team-a", Role: fleet.RoleTenant, Domain: "hall", VLAN: 103}, "somebody"); err != nil {
				t.Fatal(err)
			}
			freed := r.bigLeaf(c.nodes)
			r.Look(ctx)
			for i, n := range freed {
				r.did(r.Attach(ctx, n, lease(101+i)))
			}
			yesterday := r.ports("leaf-3")
			for _, n := range freed {
				r.did(r.Quarantine(ctx, n))
			}
			r.did(r.Attach(ctx, node(1), lease(1))) // a tenant at the other switch
			r.Look(ctx)
			if err := r.Trusted([]string{"leaf-2", "leaf-3"}); err != nil {
				t.Fatal(err)
			}
			other := r.ports("leaf-2")
			r.restore("leaf-3", yesterday)
			for end := r.now.Add(time.Minute); r.now.Before(end); {
				r.now = r.now.Add(r.Every)
				r.Look(ctx)
				if err := r.Trusted([]string{"leaf-3"}); (err == nil) != c.few {
					t.Errorf("%s after it came back: trusted is %v", r.now.Sub(end.Add(-time.Minute)), err)
				}
				for i := range freed {
					if c.few {
						r.carriesAt("leaf-3", fmt.Sprintf("swp%d", 101+i), leaf("leaf-3").InQuarantine())
					}
				}
			}
			if !c.few { // a person has it put right
				r.isolatedIs(freed[0], false)
				plan, err := r.Plan(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Apply(ctx, plan.Digest, "somebody"); err != nil {
					t.Fatal(err)
				}
				r.Look(ctx)
				if err := r.Trusted([]string{"leaf-2", "leaf-3"}); err != nil {
					t.Errorf("after it was put right: %v", err)
				}
			}
			r.isolatedIs(freed[0], true)
			for port, p := range other {
				r.carriesAt("leaf-2", port, p.Carries)
			}
		})
	}
}
