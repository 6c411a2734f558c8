package reconcile_test

import (
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func ask(t *testing.T, w *contract.World, verb string, v api.NodeVerb) {
	t.Helper()
	if _, err := w.Loop.Ask(t.Context(), w.Node, verb, v, "tester"); err != nil {
		t.Fatalf("%s: %v", verb, err)
	}
	w.Settle(time.Hour)
}

func wantState(t *testing.T, w *contract.World, want fleet.State) fleet.Node {
	t.Helper()
	n, op := w.Read()
	if n.State != want {
		t.Fatalf("node is %s, want %s; faults %+v; operation %+v; waits %q", n.State, want, n.Faults, op, w.Loop.Waits(w.Node))
	}
	return n
}

func TestWholeCycle(t *testing.T) {
	w := contract.NewWorld(t)
	ask(t, w, "inspect", api.NodeVerb{})
	n := wantState(t, w, fleet.Managed)
	if n.Inventory == "" || n.Dirty != fleet.DirtyUnknown {
		t.Fatalf("after inspection: inventory %q, dirty %q", n.Inventory, n.Dirty)
	}
	if got := w.Machine.Holds("ROOT-1"); got != "a stranger's system" {
		t.Fatalf("inspection changed a disk: %q", got)
	}
	ask(t, w, "accept", api.NodeVerb{Devices: contract.Disks()})
	n = wantState(t, w, fleet.Available)
	if n.Dirty != "" || len(n.Faults) > 0 || w.Machine.Holds("DATA-1") != "" {
		t.Fatalf("after cleaning: dirty %q, faults %v, disk %q", n.Dirty, n.Faults, w.Machine.Holds("DATA-1"))
	}
	first := n.Cleaning
	if first == "" {
		t.Fatal("a cleaning left no record")
	}
	lease, err := w.Loop.CreateLease(t.Context(), api.LeaseCreate{Name: "l1", UserData: []byte("#cloud-config"),
		LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "debian"}}, "tester")
	if err != nil {
		t.Fatalf("lease: %v", err)
	}
	w.Settle(time.Hour)
	n = wantState(t, w, fleet.Active)
	if n.Lease != lease.ID || n.Dirty != fleet.Dirty(lease.ID) || w.Machine.Holds("ROOT-1") != "debian" {
		t.Fatalf("after deploying: lease %q, dirty %q, disk %q", n.Lease, n.Dirty, w.Machine.Holds("ROOT-1"))
	}
	if _, err := w.Loop.ReleaseLease(t.Context(), lease.ID, "tester"); err != nil {
		t.Fatalf("release: %v", err)
	}
	w.Settle(time.Hour)
	n = wantState(t, w, fleet.Available)
	if n.Lease != "" || n.Dirty != "" || w.Machine.Holds("ROOT-1") != "" {
		t.Fatalf("after release: lease %q, dirty %q, disk %q", n.Lease, n.Dirty, w.Machine.Holds("ROOT-1"))
	}
	if m := readLease(t, w, lease.ID).Members[0]; m.Cleaning == "" || m.Cleaning != n.Cleaning || m.Cleaning == first {
		t.Errorf("the lease's record is %q, the node's newest %q, the one before %q", m.Cleaning, n.Cleaning, first)
	}
	t.Logf("what happened to the machine:\n%v", w.Machine.Log)
}
