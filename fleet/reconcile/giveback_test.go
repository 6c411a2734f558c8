package reconcile_test

import (
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// write puts a record as it is.
func write(t *testing.T, w *contract.World, key fleet.Key, v any) {
	t.Helper()
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: v}}}); err != nil {
		t.Fatal(err)
	}
}

// shared adds a second node, which works for the tenant, to a lease.
func shared(t *testing.T, w *contract.World, id fleet.LeaseID) {
	t.Helper()
	l := readLease(t, w, id)
	l.Members = append(l.Members, fleet.Member{Node: "b", Name: "b", Hostname: "b", State: fleet.MemberReady, Since: w.Clock})
	write(t, w, fleet.KeyOf(fleet.KindLease, id), l)
	write(t, w, fleet.KeyOf(fleet.KindNode, "b"), fleet.Node{ID: "b", Name: "b", State: fleet.Active, StateSince: w.Clock, Lease: id, Dirty: fleet.Dirty(id), CreatedAt: w.Clock})
}

// TestGivingOneNodeBack: the lease goes on without it, and it does not come back by itself.
func TestGivingOneNodeBack(t *testing.T) {
	w := available(t)
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.GraceSeconds = 3600 })
	shared(t, w, id)
	if _, err := w.Loop.Ask(t.Context(), w.Node, "release", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Between = func() {
		if n, _ := w.Read(); n.State == fleet.Resuming {
			t.Fatal("a node that was given back went to its tenant again")
		}
	}
	w.Settle(30 * time.Minute)
	wantState(t, w, fleet.Grace)
	if l := readLease(t, w, id); l.State != fleet.LeaseActive || l.Members[0].State != fleet.MemberReleased || l.Members[1].State != fleet.MemberReady {
		t.Fatalf("lease %+v", l)
	}
	w.Settle(3 * time.Hour)
	if n := wantState(t, w, fleet.Available); n.Lease != "" || w.Machine.Holds("ROOT-1") != "" {
		t.Errorf("lease %q, disk %q", n.Lease, w.Machine.Holds("ROOT-1"))
	}
}
