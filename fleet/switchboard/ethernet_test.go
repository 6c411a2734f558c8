package switchboard_test

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
)

// etherRig is a board with two switches of one domain, a provisioning network and three nodes: each has a port for provisioning at leaf-1 and one for tenants at
// leaf-2; the last one shares one wire at leaf-1.
type etherRig struct {
	*rig
	files map[string]wires.SwitchFile
}

func leaf(n string) fleet.Switch {
	return fleet.Switch{Name: n, Domain: "hall", Managed: []string{"swp1", "swp2", "swp3", "swp4"}, Uplinks: []string{"swp9"}, First: 100, Last: 103, Quarantine: 99}
}

func newEtherRig(t *testing.T) *etherRig {
	t.Helper()
	r := &etherRig{&rig{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, map[string]wires.SwitchFile{}}
	now := func() time.Time { return r.now }
	r.Board = &switchboard.Board{Store: contract.OpenStore(t), Now: now, Every: time.Minute, Log: slog.New(slog.DiscardHandler),
		DriveSwitch: func(s fleet.Switch) (switchboard.Driver, error) {
			return wires.NewSwitchDriver(wires.SwitchOptions{Switch: s, File: r.files[s.Name], Settle: 60 * time.Second, Now: now})
		}}
	for _, name := range []string{"leaf-1", "leaf-2"} {
		var err error
		if r.files[name], err = wires.NewSwitchFile(filepath.Join(t.TempDir(), name), leaf(name)); err != nil {
			t.Fatal(err)
		}
		if err := r.DeclareSwitch(t.Context(), leaf(name), "somebody"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PutNetwork(t.Context(), fleet.Network{Name: "prov", Role: fleet.RoleProvisioning, Domain: "hall", VLAN: 100}, "somebody"); err != nil {
		t.Fatal(err)
	}
	r.put(fleet.SiteKey, fleet.Site{Isolation: fleet.IsolationRequired})
	for h := 1; h <= 3; h++ {
		n := fleet.Node{ID: node(h), Name: string(node(h)), State: fleet.Available}
		port := "swp" + string(rune('0'+h))
		n.Ports = []fleet.Port{{MAC: "a", Role: fleet.PortProvisioning, Switch: "leaf-1", Port: port}, {MAC: "b", Role: fleet.PortTenant, Switch: "leaf-2", Port: port}}
		if h == 3 {
			n.Ports[1] = fleet.Port{MAC: "a", Role: fleet.PortTenant, Switch: "leaf-1", Port: port}
		}
		r.put(fleet.KeyOf(fleet.KindNode, n.ID), n)
		r.put(fleet.KeyOf(fleet.KindLease, lease(h)), fleet.Lease{ID: lease(h), State: fleet.LeaseActive})
	}
	r.Look(t.Context())
	return r
}

// carries fails unless the switch has that on the port: a VLAN, or 0 for quarantine.
func (r *etherRig) carries(name, port string, vlan fleet.VLAN) {
	r.t.Helper()
	want := fleet.Carries{Untagged: vlan}
	if vlan == 0 {
		want = leaf(name).InQuarantine()
	}
	r.carriesAt(name, port, want)
}

func (r *etherRig) carriesAt(name, port string, want fleet.Carries) {
	r.t.Helper()
	err := r.files[name].Edit(func(s *wires.SwitchState) error {
		if c := s.Ports[port].Carries; !c.Equal(want) {
			r.t.Errorf("%s of %s carries %s, want %s", port, name, c, want)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *etherRig) did(w fleet.NodeWires, err error) fleet.NodeWires {
	r.t.Helper()
	if err != nil || !w.Proven() {
		r.t.Fatalf("%v, of %+v", err, w)
	}
	return w
}

func (r *etherRig) isolated(h int, want bool) {
	r.t.Helper()
	r.isolatedIs(node(h), want)
}

func (r *etherRig) isolatedIs(id fleet.NodeID, want bool) {
	r.t.Helper()
	if n := get[fleet.Node](r.rig, fleet.KeyOf(fleet.KindNode, id)); n.Isolated != want {
		r.t.Errorf("%s: isolated is %t, want %t", id, n.Isolated, want)
	}
}

func TestEthernetWayOfANode(t *testing.T) {
	r := newEtherRig(t)
	r.isolated(1, true)
	r.did(r.Open(t.Context(), node(1)))
	r.carries("leaf-1", "swp1", 100)
	r.carries("leaf-2", "swp1", 0)
	r.Look(t.Context())
	r.isolated(1, true) // its agent is spoken to, and no tenant

	w := r.did(r.Attach(t.Context(), node(1), lease(1)))
	r.carries("leaf-1", "swp1", 100)
	r.carries("leaf-2", "swp1", 101)
	if w.Isolated() || w.Network != "lease-l1" {
		t.Errorf("after attach: %+v", w)
	}
	for range 2 { // twice is as once
		r.did(r.Close(t.Context(), node(1)))
		r.carries("leaf-1", "swp1", 0)
		r.carries("leaf-2", "swp1", 101)
	}
	r.Look(t.Context())
	r.isolated(1, false)
	if err := r.Trusted([]string{"leaf-1", "leaf-2"}); err != nil {
		t.Error(err)
	}

	w = r.did(r.Quarantine(t.Context(), node(1)))
	if !w.Isolated() || w.Network != "" {
		t.Errorf("after quarantine: %+v", w)
	}
	r.carries("leaf-2", "swp1", 0)
	// Its VLAN rests until both switches were read without it, and a while after.
	pool := func() fleet.TagPool { return get[fleet.TagPool](r.rig, fleet.KeyOf(fleet.KindVLANs, "hall")) }
	if d := cmp.Diff([]string{"leaf-1", "leaf-2"}, pool().Resting[0].Unread); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if err := r.files["leaf-2"].Begin(wires.Gone); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(time.Minute)
	r.Look(t.Context())
	if d := cmp.Diff([]string{"leaf-2"}, pool().Resting[0].Unread); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if err := r.Trusted([]string{"leaf-2"}); fleet.CodeOf(err) != "MC-NET-STOPPED" {
		t.Errorf("a switch that does not answer: %v", err)
	}
	if err := r.files["leaf-2"].Begin(""); err != nil {
		t.Fatal(err)
	}
	r.Look(t.Context())
	if p := pool(); len(p.Resting[0].Unread) > 0 || p.Resting[0].Tag != 101 {
		t.Errorf("the pool is %+v", p)
	}
	r.did(r.Attach(t.Context(), node(2), lease(2)))
	r.carries("leaf-2", "swp2", 102)
}

func TestEthernetSharedWire(t *testing.T) {
	r := newEtherRig(t)
	r.did(r.Open(t.Context(), node(3)))
	r.did(r.Attach(t.Context(), node(3), lease(3)))
	r.carries("leaf-1", "swp3", 100) // the agent is spoken to still
	r.did(r.Close(t.Context(), node(3)))
	r.carries("leaf-1", "swp3", 101)
	r.did(r.Quarantine(t.Context(), node(3)))
	r.carries("leaf-1", "swp3", 0)
}

func TestEthernetPortOfTwo(t *testing.T) {
	r := newEtherRig(t)
	r.put(fleet.KeyOf(fleet.KindNode, "n9"), fleet.Node{ID: "n9", Name: "n9", Ports: []fleet.Port{{MAC: "c", Role: fleet.PortTenant, Switch: "leaf-2", Port: "swp1"}}})
	if _, err := r.Attach(t.Context(), node(1), lease(1)); fleet.CodeOf(err) != "MC-NET-PORT" {
		t.Errorf("attach a port of two nodes: %v", err)
	}
	r.carries("leaf-2", "swp1", 0)
}

// A port that two nodes name is not switched off for the one while the other one has it, nor for one that never had it.
func TestQuarantineLeavesAPortOfAnother(t *testing.T) {
	r := newEtherRig(t)
	ctx := t.Context()
	r.did(r.Attach(ctx, node(1), lease(1)))
	late := fleet.Node{ID: "n0", Name: "late", State: fleet.Available, Ports: []fleet.Port{
		{MAC: "c", Role: fleet.PortTenant, Switch: "leaf-2", Port: "swp1"}, {MAC: "d", Role: fleet.PortProvisioning, Switch: "leaf-2", Port: "swp4"}}}
	r.put(fleet.KeyOf(fleet.KindNode, late.ID), late)
	for range 2 { // twice is as once
		w, err := r.Quarantine(ctx, late.ID)
		if fleet.CodeOf(err) != "MC-NET-PORT" || !strings.Contains(err.Error(), "late and by n1") {
			t.Errorf("quarantine of a node with a port of another: %v", err)
		}
		if w.Isolated() || w.Proven() {
			t.Errorf("it is called isolated: %+v", w)
		}
		r.carries("leaf-2", "swp1", 101)
		r.Look(ctx)
		r.carries("leaf-2", "swp1", 101)
		r.isolatedIs(late.ID, false)
	}
	if err := r.Trusted([]string{"leaf-1", "leaf-2"}); err != nil {
		t.Errorf("a record that is wrong stops all: %v", err)
	}
	// The books: only who has the port decides, and a plan says that two name it.
	plan, err := r.Plan(ctx)
	if err != nil || plan.Digest != "" || !slices.Contains(plan.Notes, "swp1 of leaf-2 is named by late and by n1") {
		t.Errorf("%v, plan %+v", err, plan)
	}
	// Who has it may leave it.
	r.did(r.Quarantine(ctx, node(1)))
	r.carries("leaf-2", "swp1", 0)
	if _, err := r.Quarantine(ctx, late.ID); fleet.CodeOf(err) != "MC-NET-PORT" {
		t.Errorf("quarantine while two name it: %v", err)
	}
	if _, err := r.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, late.ID)}, {Key: fleet.KeyOf(fleet.KindWires, late.ID)}}}); err != nil {
		t.Fatal(err)
	}
	r.did(r.Attach(ctx, node(1), lease(1)))
}

func TestEthernetHalfIsQuarantine(t *testing.T) {
	r := newEtherRig(t)
	if err := r.files["leaf-2"].Begin(wires.Gone); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Attach(t.Context(), node(1), lease(1)); fleet.CodeOf(err) != "MC-SWITCH-SILENT" {
		t.Fatalf("attach where a switch does not answer: %v", err)
	}
	w := get[fleet.NodeWires](r.rig, fleet.KeyOf(fleet.KindWires, node(1)))
	if w.Proven() || !w.Leaving {
		t.Errorf("it is called proven: %+v", w)
	}
	if _, err := r.Quarantine(t.Context(), node(1)); err == nil {
		t.Error("a release is done although a switch does not answer")
	}
	if err := r.files["leaf-2"].Begin(""); err != nil {
		t.Fatal(err)
	}
	if w := r.did(r.Quarantine(t.Context(), node(1))); !w.Isolated() {
		t.Errorf("after the switch is back: %+v", w)
	}
}

func TestEthernetDrift(t *testing.T) {
	r := newEtherRig(t)
	r.did(r.Attach(t.Context(), node(1), lease(1)))
	// Into a network that is nobody's: reported, and left.
	if err := r.files["leaf-2"].Set("swp2", fleet.Carries{Untagged: 103}); err != nil {
		t.Fatal(err)
	}
	r.Look(t.Context())
	r.carries("leaf-2", "swp2", 103)
	r.isolated(2, false)
	// Into a tenant's: put back.
	if err := r.files["leaf-2"].Set("swp2", fleet.Carries{Untagged: 103, Tagged: []fleet.VLAN{101}}); err != nil {
		t.Fatal(err)
	}
	r.Look(t.Context())
	r.carries("leaf-2", "swp2", 0)
	if err := r.Trusted([]string{"leaf-2"}); err != nil {
		t.Error(err)
	}
	// A reading grows old.
	r.now = r.now.Add(5 * time.Minute)
	if err := r.Trusted([]string{"leaf-2"}); fleet.CodeOf(err) != "MC-NET-STOPPED" {
		t.Errorf("a reading of five periods ago: %v", err)
	}
}

func TestEthernetDeclare(t *testing.T) {
	r := newEtherRig(t)
	r.did(r.Open(t.Context(), node(1)))
	for _, c := range []struct {
		name, want string
		do         func() error
	}{
		{"another range in the domain", "MC-SWITCH-DOMAIN", func() error {
			x := leaf("leaf-3")
			x.Last = 200
			return r.DeclareSwitch(t.Context(), x, "a")
		}},
		{"a port that is in use", "MC-NET-MANAGED", func() error {
			x := leaf("leaf-1")
			x.Managed = slices.DeleteFunc(x.Managed, func(p string) bool { return p == "swp1" })
			return r.DeclareSwitch(t.Context(), x, "a")
		}},
		{"a port that is not", "", func() error {
			x := leaf("leaf-1")
			x.Managed = slices.DeleteFunc(x.Managed, func(p string) bool { return p == "swp4" })
			return r.DeclareSwitch(t.Context(), x, "a")
		}},
		{"a switch with nodes", "MC-SWITCH-USED", func() error { return r.DropSwitch(t.Context(), "leaf-1", "a") }},
		{"a second provisioning network", "MC-NET-NETWORK", func() error {
			return r.PutNetwork(t.Context(), fleet.Network{Name: "prov-2", Role: fleet.RoleProvisioning, Domain: "hall"}, "a")
		}},
		{"a VLAN that is taken", "MC-NET-TAG", func() error {
			return r.PutNetwork(t.Context(), fleet.Network{Name: "x", Role: fleet.RoleTenant, Domain: "hall", VLAN: 100}, "a")
		}},
		{"a domain that is none", "MC-SWITCH-UNKNOWN", func() error {
			return r.PutNetwork(t.Context(), fleet.Network{Name: "x", Role: fleet.RoleTenant, Domain: "yard"}, "a")
		}},
		{"a network that a node is in", "MC-NET-NETWORK", func() error { return r.RemoveNetwork(t.Context(), "prov", "a") }},
		{"a name for leases", "MC-NET-INVALID", func() error {
			return r.PutNetwork(t.Context(), fleet.Network{Name: "lease-x", Role: fleet.RoleTenant, Domain: "hall"}, "a")
		}},
		{"one for tenants, and away again", "", func() error {
			if err := r.PutNetwork(t.Context(), fleet.Network{Name: "x", Role: fleet.RoleTenant, Domain: "hall"}, "a"); err != nil {
				return err
			}
			return r.RemoveNetwork(t.Context(), "x", "a")
		}},
	} {
		if err := c.do(); fleet.CodeOf(err) != c.want || (err != nil) != (c.want != "") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestSubnetsInUseStay: a subnet whose addresses members of a lease have cannot be taken from its network.
func TestSubnetsInUseStay(t *testing.T) {
	r := newEtherRig(t)
	n := fleet.Network{Name: "team", Role: fleet.RoleTenant, Domain: "hall", Subnets: []fleet.Subnet{{CIDR: "10.0.0.0/24"}, {CIDR: "10.1.0.0/24"}}}
	if err := r.PutNetwork(t.Context(), n, "somebody"); err != nil {
		t.Fatal(err)
	}
	r.put(fleet.KeyOf(fleet.KindLease, lease(1)), fleet.Lease{ID: lease(1), State: fleet.LeasePending, Request: fleet.LeaseRequest{Network: "team"},
		Members: []fleet.Member{{Node: node(1), Name: "n1", State: fleet.MemberReserved, Addresses: []string{"10.0.0.1/24"}}}})
	n.Subnets = n.Subnets[:1]
	if err := r.PutNetwork(t.Context(), n, "somebody"); err != nil {
		t.Errorf("a subnet that nobody has an address of: %v", err)
	}
	n.Subnets[0].CIDR = "10.0.0.0/25"
	if err := r.PutNetwork(t.Context(), n, "somebody"); fleet.CodeOf(err) != "MC-NET-ADDRESS" {
		t.Errorf("one that somebody has an address of: %v", err)
	}
}
