package reconcile_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// patch are wires that somebody plugs by hand: whatever is asked is done.
type patch struct{}

func (patch) Open(context.Context, fleet.NodeID) (fleet.NodeWires, error) {
	return fleet.NodeWires{}, nil
}
func (patch) Close(context.Context, fleet.NodeID) (fleet.NodeWires, error) {
	return fleet.NodeWires{}, nil
}
func (patch) Quarantine(context.Context, fleet.NodeID) (fleet.NodeWires, error) {
	return fleet.NodeWires{}, nil
}
func (patch) Attach(context.Context, fleet.NodeID, fleet.LeaseID) (fleet.NodeWires, error) {
	return fleet.NodeWires{}, nil
}
func (patch) Trusted([]string) error { return nil }

// subnetRig has n1, a, b and c with a port for tenants each, and a network that has three addresses.
func subnetRig(t *testing.T) *contract.World {
	t.Helper()
	w := available(t)
	w.Loop.Wires = patch{}
	n, _ := w.Read()
	n.Ports = append(slices.Clone(n.Ports), fleet.Port{MAC: "52:54:00:00:00:02", Role: fleet.PortTenant, Switch: "leaf-2", Port: "swp1"})
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
	write(t, w, fleet.KeyOf(fleet.KindNetwork, "team"), fleet.Network{Name: "team", Role: fleet.RoleTenant, Domain: "leaf-2", VLAN: 110, MTU: 9000,
		Subnets: []fleet.Subnet{{CIDR: "10.0.0.0/24", Gateway: "10.0.0.1", Pool: "10.0.0.1-10.0.0.4", DNS: []string{"10.0.0.53"}}}})
	alike(t, w, "a", "b", "c")
	return w
}

func inTeam(t *testing.T, w *contract.World, nodes ...string) (fleet.Lease, error) {
	t.Helper()
	return w.Loop.CreateLease(t.Context(), api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: nodes, Image: "debian", Network: "team", Ready: fleet.ReadyNow}}, "tester")
}

// TestAddresses: each member has an address of its network from the moment on that it is claimed until its node has left, and its system is told of it.
func TestAddresses(t *testing.T) {
	w := subnetRig(t)
	first, err := inTeam(t, w, "n1")
	if err != nil || !slices.Equal(first.Members[0].Addresses, []string{"10.0.0.2/24"}) {
		t.Fatalf("%v, %+v", err, first.Members)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Active)
	_, op := w.Read()
	i := slices.IndexFunc(op.Steps, func(r fleet.StepRun) bool { return r.Name == step.ConfigDrive })
	var p step.ConfigDriveParams
	if err := json.Unmarshal(op.Steps[i].Params, &p); err != nil {
		t.Fatal(err)
	}
	want := `{"links":[{"id":"port0","type":"phy","ethernet_mac_address":"52:54:00:00:00:02","mtu":9000}],"networks":[{"id":"address0","link":"port0","type":"ipv4","ip_address":"10.0.0.2/24","gateway":"10.0.0.1"}],"services":[{"type":"dns","address":"10.0.0.53"}]}`
	if string(p.Network) != want {
		t.Errorf("its system is told %s", p.Network)
	}
	second, err := inTeam(t, w, "a", "b")
	if err != nil || second.Members[0].Addresses[0] != "10.0.0.3/24" || second.Members[1].Addresses[0] != "10.0.0.4/24" {
		t.Fatalf("%v, %+v", err, second.Members)
	}
	if _, err := inTeam(t, w, "c"); fleet.CodeOf(err) != "MC-NET-ADDRESS" {
		t.Errorf("a fourth: %v", err)
	}
	if n := readNode(t, w, "node-c"); n.Lease != "" {
		t.Error("who got no address is claimed")
	}
	own, err := w.Loop.CreateLease(t.Context(), api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{"c"}, Image: "debian", Network: "team", NetworkData: json.RawMessage(`{"links":[],"networks":[]}`)}}, "tester")
	if err != nil || len(own.Members[0].Addresses) > 0 {
		t.Errorf("one with network data of its own: %v, %+v", err, own.Members)
	}
	if _, err := w.Loop.ReleaseLease(t.Context(), first.ID, "tester"); err != nil {
		t.Fatal(err)
	}
	if g := fleet.Given([]fleet.Lease{readLease(t, w, first.ID)}, "team"); len(g) != 1 {
		t.Errorf("while its node is still there: %+v", g)
	}
	w.Settle(time.Hour)
	tickLeases(t, w)
	if g := fleet.Given([]fleet.Lease{readLease(t, w, first.ID)}, "team"); len(g) != 0 {
		t.Errorf("after its node has left: %+v", g)
	}
}

// TestAddressOfAReplacement: with the identity go the addresses; without it there are others.
func TestAddressOfAReplacement(t *testing.T) {
	for keep, want := range map[bool]string{true: "10.0.0.2/24", false: "10.0.0.3/24"} {
		w := subnetRig(t)
		l, err := inTeam(t, w, "n1")
		if err != nil {
			t.Fatal(err)
		}
		w.Settle(time.Hour)
		l, err = w.Loop.ReplaceNode(t.Context(), l.ID, w.Node, api.LeaseReplace{With: "a", KeepIdentity: keep}, "tester")
		if err != nil || !slices.Equal(l.Members[1].Addresses, []string{want}) {
			t.Errorf("keep identity %t: %v, %+v", keep, err, l.Members)
		}
	}
}

// TestNoAddressWithoutAMAC: a system could not be told which port has the address.
func TestNoAddressWithoutAMAC(t *testing.T) {
	w := subnetRig(t)
	n := readNode(t, w, "node-a")
	n.Ports[1].MAC = ""
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
	if _, err := inTeam(t, w, "a"); fleet.CodeOf(err) != "MC-NET-ADDRESS" {
		t.Errorf("%v", err)
	}
}
