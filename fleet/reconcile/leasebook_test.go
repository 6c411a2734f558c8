package reconcile

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// deaf is a snapshot of a store that does not tell what changed.
type deaf struct{ fleet.Snapshot }

// TestLeasebook: a book that was kept up by what changed says the same as one that is read anew, whatever became of the leases.
func TestLeasebook(t *testing.T) {
	db, err := store.Open(t.TempDir(), store.Options{Key: make([]byte, store.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	chance := rand.New(rand.NewPCG(1, 2))
	states := []fleet.LeaseState{fleet.LeaseDeploying, fleet.LeaseActive, fleet.LeaseReleased, fleet.LeaseFailed}
	members := []fleet.MemberState{fleet.MemberReserved, fleet.MemberReady, fleet.MemberReplaced, fleet.MemberReleased}
	var kept, unheard leasebook
	for i := range 200 {
		l := fleet.Lease{ID: fleet.LeaseID(fmt.Sprint("l", chance.IntN(12))), State: states[chance.IntN(len(states))]}
		for range chance.IntN(4) {
			l.Members = append(l.Members, fleet.Member{Node: fleet.NodeID(fmt.Sprint(l.ID, "n", chance.IntN(3))), State: members[chance.IntN(len(members))]})
		}
		w := fleet.Write{Key: leaseKey(l.ID), Value: &l}
		if chance.IntN(5) == 0 {
			w.Value = nil
		}
		if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{w, {Key: fleet.KeyOf(fleet.KindNode, fmt.Sprint("l3n", i%3)), Value: fleet.Node{}}}}); err != nil {
			t.Fatal(err)
		}
		if chance.IntN(3) == 0 {
			continue // several commits come together
		}
		if err := db.View(t.Context(), func(s fleet.Snapshot) error {
			var fresh leasebook
			for _, b := range []*leasebook{&fresh, &kept, &unheard} {
				view := s
				if b == &unheard {
					view = deaf{s}
				}
				if _, err := b.all(view); err != nil {
					return err
				}
			}
			for name, b := range map[string]*leasebook{"kept": &kept, "unheard": &unheard} {
				if diff := cmp.Diff(fresh.open, b.open, cmp.AllowUnexported(openLease{})); diff != "" {
					t.Errorf("round %d, %s (-fresh +kept):\n%s", i, name, diff)
				}
				if diff := cmp.Diff(fresh.held, b.held); diff != "" {
					t.Errorf("round %d, %s (-fresh +kept):\n%s", i, name, diff)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLeasesStirred: only leases that a commit may concern are looked at, and all of them where it may concern any.
func TestLeasesStirred(t *testing.T) {
	db, err := store.Open(t.TempDir(), store.Options{Key: make([]byte, store.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	l := New(&Loop{Store: db})
	commit := func(key fleet.Key, v any) {
		t.Helper()
		if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: v}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []fleet.LeaseID{"a", "b", "c"} {
		commit(leaseKey(id), &fleet.Lease{ID: id, State: fleet.LeaseActive, Members: []fleet.Member{{Node: fleet.NodeID("node-of-" + id), State: fleet.MemberReady}}})
	}
	_, at, err := l.leasesToMove(t.Context(), true, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  fleet.Key
		v    any
		want []fleet.LeaseID
	}{
		{"a step was journalled", "operation/o", fleet.Operation{}, nil},
		{"a lease was changed", leaseKey("b"), &fleet.Lease{ID: "b", State: fleet.LeaseActive}, []fleet.LeaseID{"b"}},
		{"a lease is over", leaseKey("b"), &fleet.Lease{ID: "b", State: fleet.LeaseReleased}, nil},
		{"a node of a lease was changed", "node/node-of-c", fleet.Node{}, []fleet.LeaseID{"c"}},
		{"a node of no lease was changed", "node/free", fleet.Node{}, nil},
		{"a freeze was lifted", "freeze/f", nil, []fleet.LeaseID{"a", "c"}},
		{"something was approved", "approval/p", fleet.Approval{}, []fleet.LeaseID{"a", "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			commit(c.key, c.v)
			ids, now, err := l.leasesToMove(t.Context(), false, at)
			if err != nil {
				t.Fatal(err)
			}
			if at = now; len(ids) != len(c.want) || cmp.Diff(append([]fleet.LeaseID{}, ids...), append([]fleet.LeaseID{}, c.want...)) != "" {
				t.Errorf("got %v, want %v", ids, c.want)
			}
		})
	}
}
