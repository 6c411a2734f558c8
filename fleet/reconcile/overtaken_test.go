package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// TestOvertakenWish: a wish that was allowed when it was asked, and had to wait, is not done where somebody was first. Nothing has failed then: the operation
// that was promised says why it never began and what to type, nothing is erased, and afterwards it goes on.
func TestOvertakenWish(t *testing.T) {
	waiting := func(t *testing.T, w *contract.World, name string, ask func()) {
		t.Helper()
		w.Between = func() {
			_, op := w.Read()
			if op == nil || op.Current() < 0 || op.Steps[op.Current()].Name != name || op.Steps[op.Current()].State != fleet.StepStarted {
				return
			}
			w.Between = nil
			ask()
		}
		w.Settle(30 * time.Minute)
		if w.Between != nil {
			t.Fatalf("%s did not begin", name)
		}
	}
	for name, c := range map[string]struct {
		// meet brings the wish and what overtakes it together, and says what the operation was promised as.
		meet       func(*testing.T, *contract.World) fleet.OperationID
		code, hint string
		rests      fleet.State
		then       func(*testing.T, *contract.World)
		ends       fleet.State
	}{
		"a lease's release waits for an erase to end, and its node is protected": {
			func(t *testing.T, w *contract.World) (id fleet.OperationID) {
				l, err := w.Loop.CreateLease(t.Context(), request(func(r *fleet.LeaseRequest) { r.WipeData = true }), "tester")
				if err != nil {
					t.Fatal(err)
				}
				waiting(t, w, step.EraseDisks, func() {
					if _, err := w.Loop.ReleaseLease(t.Context(), l.ID, "tester"); err != nil {
						t.Fatal(err)
					}
					if err := w.Loop.TickLeases(t.Context()); err != nil {
						t.Fatal(err)
					}
					n, _ := w.Read()
					id = n.Wish.Operation
					askOnly(t, w, "protect", api.NodeVerb{})
				})
				return id
			},
			"MC-NODE-PROTECTED", "metalctl node unprotect n1", fleet.Allocated,
			func(t *testing.T, w *contract.World) { ask(t, w, "unprotect", api.NodeVerb{}) }, fleet.Available},
		"a rebuild waits for a hold to end, and its node is protected": {
			func(t *testing.T, w *contract.World) fleet.OperationID {
				leased(t, w, nil)
				id, err := w.Loop.Ask(t.Context(), w.Node, "rebuild", api.NodeVerb{}, "tester")
				if err != nil {
					t.Fatal(err)
				}
				askOnly(t, w, "hold", api.NodeVerb{Reason: "look"})
				askOnly(t, w, "protect", api.NodeVerb{})
				w.Settle(time.Hour)
				ask(t, w, "unhold", api.NodeVerb{})
				return id
			},
			"MC-NODE-PROTECTED", "metalctl node unprotect n1", fleet.Active,
			func(t *testing.T, w *contract.World) {
				ask(t, w, "unprotect", api.NodeVerb{})
				ask(t, w, "rebuild", api.NodeVerb{})
			}, fleet.Active},
		"an erase after the grace time waits for a hold to end, and its node is protected": {
			func(t *testing.T, w *contract.World) fleet.OperationID {
				l := leased(t, w, func(r *fleet.LeaseRequest) { r.GraceSeconds = 7 * 24 * 3600 })
				if _, err := w.Loop.ReleaseLease(t.Context(), l, "tester"); err != nil {
					t.Fatal(err)
				}
				w.Settle(time.Hour)
				wantState(t, w, fleet.Grace)
				id, err := w.Loop.Ask(t.Context(), w.Node, "clean", api.NodeVerb{WaiveGrace: true}, "tester")
				if err != nil {
					t.Fatal(err)
				}
				askOnly(t, w, "hold", api.NodeVerb{Reason: "look"})
				askOnly(t, w, "protect", api.NodeVerb{})
				w.Settle(time.Hour)
				ask(t, w, "unhold", api.NodeVerb{})
				return id
			},
			"MC-NODE-PROTECTED", "metalctl node unprotect n1", fleet.Grace,
			func(t *testing.T, w *contract.World) {
				ask(t, w, "unprotect", api.NodeVerb{})
				ask(t, w, "clean", api.NodeVerb{WaiveGrace: true})
			}, fleet.Available},
		"an inspection waits for a clean-up, and its plan is another by then": {
			func(t *testing.T, w *contract.World) (id fleet.OperationID) {
				broken(w, step.AwaitAgent)
				askOnly(t, w, "inspect", api.NodeVerb{})
				w.Between = func() {
					if _, op := w.Read(); op.Use == string(step.Undo) {
						w.Between = nil
						var err error
						if id, err = w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{AllowReboot: true, Plan: "sha256:" + strings.Repeat("0", 64)}, "tester"); err != nil {
							t.Fatal(err)
						}
					}
				}
				w.Settle(time.Hour)
				return id
			},
			"MC-PLAN-DIGEST", "metalctl node plan n1", fleet.Enrolled,
			func(t *testing.T, w *contract.World) { ask(t, w, "inspect", api.NodeVerb{AllowReboot: true}) }, fleet.Managed},
	} {
		t.Run(name, func(t *testing.T) {
			w := available(t)
			if c.rests == fleet.Enrolled {
				w = contract.NewWorld(t)
			}
			id := c.meet(t, w)
			n := wantState(t, w, c.rests)
			var op fleet.Operation
			err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
				op, _, err = fleet.Get[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, id))
				return err
			})
			if err != nil {
				t.Fatalf("the operation that was promised: %v", err)
			}
			if op.State != fleet.OperationAborted || op.Error == nil || op.Error.Code != c.code || !strings.HasPrefix(op.Error.Hint, c.hint) || !op.StartedAt.IsZero() || n.Wish != nil {
				t.Errorf("operation %s, %+v, started %s; wish %+v", op.State, op.Error, op.StartedAt, n.Wish)
			}
			held := w.Machine.Holds("ROOT-1")
			w.Settle(24 * time.Hour)
			if wantState(t, w, c.rests); w.Machine.Holds("ROOT-1") != held {
				t.Errorf("the root disk held %q and holds %q", held, w.Machine.Holds("ROOT-1"))
			}
			c.then(t, w)
			if n := wantState(t, w, c.ends); len(n.Blocked(fleet.BlocksEverything)) > 0 {
				t.Errorf("faults %+v", n.Faults)
			}
		})
	}
}
