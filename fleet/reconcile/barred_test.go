package reconcile_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// raise gives the world's node a fault, as whoever finds it does.
func raise(t *testing.T, w *contract.World, change func(*fleet.Node)) {
	t.Helper()
	n, _ := w.Read()
	change(&n)
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}}}); err != nil {
		t.Fatal(err)
	}
}

func barring(code, component string) func(*fleet.Node) {
	return func(n *fleet.Node) {
		n.RaiseFault(fleet.Fault{Code: code, Component: component, Severity: fleet.Critical, Blocks: fleet.BlocksEverything, Evidence: "somebody saw it",
			Hint: "metalctl node clear-fault NODE --code " + code + " --component " + component})
	}
}

// TestBlocksEverything: what each fault that blocks everything keeps a person from, and that looking through the BMC alone stays possible.
func TestBlocksEverything(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		raise func(*fleet.Node)
		// erase and boot are the codes that refuse an accept or a retry of it, and an inspection from inside; "": it goes on.
		erase, boot string
	}{
		"a token was used twice":   {barring(fleet.FaultTokenReused, "agent"), "MC-NODE-BARRED", "MC-NODE-BARRED"},
		"another machine booted":   {barring("MC-FAULT-IDENTITY", "system"), "MC-NODE-BARRED", ""},
		"another serial was found": {barring("MC-NODE-IDENTITY", "system/serial"), "MC-NODE-BARRED", ""},
		"the store is stale":       {func(n *fleet.Node) { n.MarkStale(fleet.WitnessTag{}, "the BMC names a later boot", now) }, fleet.CodeFrozen, fleet.CodeFrozen},
		"nobody vouches":           {func(n *fleet.Node) { n.DoubtStore("it was restored", now) }, fleet.CodeFrozen, fleet.CodeFrozen},
	} {
		t.Run(name, func(t *testing.T) {
			for verb, ask := range map[string]struct {
				body api.NodeVerb
				code string
			}{
				"accept":  {api.NodeVerb{Devices: contract.Disks()}, c.erase},
				"inspect": {api.NodeVerb{AllowReboot: true}, c.boot},
			} {
				t.Run(verb, func(t *testing.T) {
					w := contract.NewWorld(t)
					managed(t, w)
					raise(t, w, c.raise)
					before := w.Machine.Writes()
					_, err := w.Loop.Ask(t.Context(), w.Node, verb, ask.body, "tester")
					if fleet.CodeOf(err) != ask.code {
						t.Fatalf("got %v, want %q", err, ask.code)
					}
					if err == nil {
						return
					}
					if ask.code == "MC-NODE-BARRED" && !strings.Contains(fleet.HintOf(err), "metalctl node clear-fault n1") {
						t.Errorf("the next command is %q", fleet.HintOf(err))
					}
					w.Settle(time.Hour)
					if n, _ := w.Read(); n.State != fleet.Managed || n.Wish != nil || w.Machine.Writes() != before {
						t.Errorf("refused, and the node is %s with %+v; %d writes", n.State, n.Wish, w.Machine.Writes()-before)
					}
				})
			}
			t.Run("inspect through the BMC", func(t *testing.T) {
				w := contract.NewWorld(t)
				managed(t, w)
				raise(t, w, c.raise)
				before := w.Machine.Writes()
				ask(t, w, "inspect", api.NodeVerb{OutOfBand: true})
				if n, op := w.Read(); n.State != fleet.Managed || op.State != fleet.OperationDone || w.Machine.Writes() != before || len(n.Blocked(fleet.BlocksEverything)) == 0 {
					t.Errorf("node %s, %s %s, %d writes, faults %+v", n.State, op.Use, op.State, w.Machine.Writes()-before, n.Faults)
				}
			})
			t.Run("explained", func(t *testing.T) {
				w := contract.NewWorld(t)
				managed(t, w)
				raise(t, w, c.raise)
				x, err := w.Loop.Explain(t.Context(), w.Node)
				if err != nil {
					t.Fatal(err)
				}
				if len(x.Reasons) == 0 || x.Reasons[0].On == api.OnNobody || strings.Contains(x.Reasons[0].Command, "node accept") {
					t.Errorf("what comes first is %+v", x.Reasons)
				}
				for _, r := range x.Reasons {
					if c.erase == "MC-NODE-BARRED" && strings.Contains(r.Command, "node accept") {
						t.Errorf("%q is offered, and refused", r.Command)
					}
				}
			})
		})
	}
}

// managed brings the node to where it may be accepted, with its machine on and the agent up.
func managed(t *testing.T, w *contract.World) {
	t.Helper()
	ask(t, w, "inspect", api.NodeVerb{})
	wantState(t, w, fleet.Managed)
}

// TestStolenTokenHoldsCleaning: a node that comes back from a tenant is not booted while somebody may read its boot medium.
func TestStolenTokenHoldsCleaning(t *testing.T) {
	w := available(t)
	l, err := w.Loop.CreateLease(t.Context(), request(nil), "tester")
	if err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Active)
	raise(t, w, barring(fleet.FaultTokenReused, "agent"))
	if _, err := w.Loop.ReleaseLease(context.Background(), l.ID, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	n := wantState(t, w, fleet.Cleaning)
	if n.Operation != "" || n.Dirty == "" || !strings.Contains(w.Loop.Waits(w.Node), fleet.FaultTokenReused) || w.Machine.Left() != "" {
		t.Fatalf("operation %q, dirty %q, waits %q, left %q", n.Operation, n.Dirty, w.Loop.Waits(w.Node), w.Machine.Left())
	}
	ask(t, w, api.VerbClearFault, api.NodeVerb{FaultCode: fleet.FaultTokenReused, FaultComponent: "agent", Reason: "the switch port is shut"})
	wantState(t, w, fleet.Available)
}
