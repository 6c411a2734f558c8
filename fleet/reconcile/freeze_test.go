package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func events(t *testing.T, w *contract.World, kind string) []string {
	t.Helper()
	all, err := w.Store.Events(t.Context(), 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		if e.Type == kind {
			out = append(out, e.Text)
		}
	}
	return out
}

// TestFrozenVerbs: what would write is refused with the reason and the command; what only changes facts or looks is not.
func TestFrozenVerbs(t *testing.T) {
	w := available(t)
	w.Freeze()
	for _, verb := range []string{"inspect", "clean", "burn", "release", "rebuild", "accept", api.VerbRetry} {
		refused(t, w, verb, api.NodeVerb{AllowReboot: true}, fleet.CodeFrozen)
	}
	if _, err := w.Loop.CreateLease(t.Context(), request(nil), "tester"); fleet.CodeOf(err) != fleet.CodeFrozen || !strings.Contains(err.Error(), "something is burning") ||
		!strings.Contains(fleet.HintOf(err), "metalctl thaw n1") {
		t.Errorf("lease: %v (%s)", err, fleet.HintOf(err))
	}
	ask(t, w, "protect", api.NodeVerb{})
	ask(t, w, "unprotect", api.NodeVerb{})
	wrote := w.Machine.Writes()
	ask(t, w, "inspect", api.NodeVerb{OutOfBand: true})
	w.Settle(time.Hour)
	if n, op := w.Read(); n.State != fleet.Available || op.State != fleet.OperationDone || op.Use != "inspect" || w.Machine.Writes() != wrote {
		t.Errorf("an inspection through the BMC alone: node %s, %s %s, %d writes", n.State, op.Use, op.State, w.Machine.Writes()-wrote)
	}
	w.Thaw()
	leased(t, w, nil)
	wantState(t, w, fleet.Active)
}

// TestFrozenTenant: neither the end of a lease nor that of a grace time acts on a frozen node, and the tenant's release waits for the thaw, too. A hold
// lets the release through.
func TestFrozenTenant(t *testing.T) {
	w := available(t)
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.Until, r.GraceSeconds = w.Clock.Add(10*time.Hour), 3600 })
	wantState(t, w, fleet.Active)
	w.Freeze()
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); fleet.CodeOf(err) != fleet.CodeFrozen {
		t.Errorf("release of a frozen lease: %v", err)
	}
	w.Clock = w.Clock.Add(11 * time.Hour)
	w.Settle(time.Minute)
	w.Settle(time.Minute)
	if l := readLease(t, w, id); l.State != fleet.LeaseActive || !strings.Contains(l.Overdue, "metalctl thaw n1") {
		t.Fatalf("the lease is %s, overdue %q", l.State, l.Overdue)
	}
	if got := events(t, w, "lease.overdue"); len(got) != 1 {
		t.Errorf("warned %d times: %q", len(got), got)
	}
	wantState(t, w, fleet.Active)
	w.Thaw()
	ask(t, w, "hold", api.NodeVerb{Reason: "a hold stops no isolation"})
	w.Settle(10 * time.Minute)
	wantState(t, w, fleet.Grace)
	w.Freeze()
	ask(t, w, "unhold", api.NodeVerb{})
	w.Clock = w.Clock.Add(2 * time.Hour)
	w.Settle(time.Hour)
	if wantState(t, w, fleet.Grace); !strings.Contains(w.Loop.Waits(w.Node), "metalctl thaw n1") {
		t.Errorf("the node waits for %q", w.Loop.Waits(w.Node))
	}
	w.Thaw()
	w.Settle(time.Hour)
	wantState(t, w, fleet.Available)
}

// TestThawOneByOne: a node comes out of every freeze that covers it, and the freezes go on for others.
func TestThawOneByOne(t *testing.T) {
	w := available(t)
	for _, r := range []api.FreezeCreate{{All: true, Reason: "a restore"}, {Nodes: []string{"n1"}, Reason: "a smell"}} {
		if _, err := w.Loop.Freeze(t.Context(), r, "tester"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Loop.Thaw(t.Context(), api.Thaw{Nodes: []string{string(w.Node)}, Reason: "looked at it"}, "tester"); err != nil {
		t.Fatal(err)
	}
	var freezes []fleet.Freeze
	err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
		freezes, err = fleet.Freezes(s)
		return err
	})
	if err != nil || len(freezes) != 1 || freezes[0].Scope != fleet.FreezeAll || !slices.Equal(freezes[0].Thawed, []fleet.NodeID{w.Node}) {
		t.Fatalf("left are %+v, %v", freezes, err)
	}
	leased(t, w, nil)
	wantState(t, w, fleet.Active)
	if err := w.Loop.Thaw(t.Context(), api.Thaw{Freeze: "x", Reason: "r"}, "tester"); fleet.CodeOf(err) != "MC-FREEZE-UNKNOWN" {
		t.Errorf("an unknown freeze: %v", err)
	}
	if err := w.Loop.Thaw(t.Context(), api.Thaw{Freeze: freezes[0].ID, Reason: "over"}, "tester"); err != nil {
		t.Error(err)
	}
	if got := events(t, w, "freeze.ended"); len(got) != 3 {
		t.Errorf("told %q", got)
	}
}

// TestFreezeRefuses names what is wrong with a freeze or a thaw.
func TestFreezeRefuses(t *testing.T) {
	w := contract.NewWorld(t)
	for name, r := range map[string]api.FreezeCreate{
		"nothing":           {Reason: "r"},
		"two things":        {All: true, Nodes: []string{"n1"}, Reason: "r"},
		"no reason":         {All: true},
		"another selector":  {Selector: "rack!=r1", Reason: "r"},
		"no selector":       {Selector: "rack=r1,,", Reason: "r"},
		"two racks at once": {Selector: "rack=r1,rack=r2", Reason: "r"},
		"a label alone":     {Selector: "rack", Reason: "r"},
		"labels and a site": {Selector: "rack=r1", Site: "north", Reason: "r"},
	} {
		if _, err := w.Loop.Freeze(t.Context(), r, "tester"); fleet.CodeOf(err) != "MC-FREEZE-INVALID" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Loop.Freeze(t.Context(), api.FreezeCreate{Nodes: []string{"n1", "n7"}, Reason: "r"}, "tester"); fleet.CodeOf(err) != "MC-NODE-UNKNOWN" {
		t.Errorf("an unknown node: %v", err)
	}
	for name, r := range map[string]api.Thaw{"nothing": {Reason: "r"}, "two things": {All: true, Freeze: "x", Reason: "r"}, "no reason": {All: true}} {
		if err := w.Loop.Thaw(t.Context(), r, "tester"); fleet.CodeOf(err) != "MC-FREEZE-INVALID" {
			t.Errorf("thaw %s: %v", name, err)
		}
	}
	if got := events(t, w, "freeze.begun"); len(got) != 0 {
		t.Errorf("something was frozen: %q", got)
	}
}
