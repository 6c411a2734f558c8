package reconcile_test

import (
	"context"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
)

// between is a store where something happens after its user has looked and before it first commits.
type between struct {
	fleet.Store
	do func()
}

func (b *between) Commit(ctx context.Context, c fleet.Change) (fleet.Revision, error) {
	if do := b.do; do != nil {
		b.do = nil
		do()
	}
	return b.Store.Commit(ctx, c)
}

// TestExtendOrEndNeverBoth: whichever of extending a lease and ending its grace is first, the other sees it.
func TestExtendOrEndNeverBoth(t *testing.T) {
	for name, extendFirst := range map[string]bool{"extended while the grace ends": true, "grace ends while it is extended": false} {
		t.Run(name, func(t *testing.T) {
			w := waiting(t)
			n, _ := w.Read()
			id := n.Lease
			seen := &between{Store: w.Store}
			rigged := func(store fleet.Store, now time.Time) *reconcile.Loop {
				return loop(w, "a", func(l *reconcile.Loop) {
					l.Store, l.Now, l.Mono, l.TrustWall = store, func() time.Time { return now }, func() time.Duration { return 0 }, true
				})
			}
			ends := readLease(t, w, id).GraceEnds
			var extend, end error
			extending := func(l *reconcile.Loop) {
				_, extend = l.ExtendLease(t.Context(), id, api.LeaseExtend{Until: ends.Add(time.Hour)}, "tester")
			}
			waive := func(l *reconcile.Loop) {
				_, end = l.Once(t.Context(), w.Node)
			}
			// The tenant's request came in the last second; the loop sees the first one after.
			early, late := ends.Add(-time.Second), ends.Add(time.Second)
			if extendFirst {
				seen.do = func() { extending(rigged(w.Store, early)) }
				waive(rigged(seen, late))
			} else {
				seen.do = func() { waive(rigged(w.Store, late)) }
				extending(rigged(seen, early))
			}
			if end != nil {
				t.Fatal(end)
			}
			n, _ = w.Read()
			if extended := extend == nil; extended == (n.State == fleet.Cleaning) {
				t.Fatalf("extended %v (%v), and the node is %s", extended, extend, n.State)
			}
			if (extend == nil) != extendFirst {
				t.Errorf("the first did not win: %v", extend)
			}
		})
	}
}
