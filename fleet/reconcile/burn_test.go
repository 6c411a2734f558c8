package reconcile_test

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// burnable is a node that is available, and whose class wants the profile Brief.
func burnable(t *testing.T) *contract.World {
	t.Helper()
	w := available(t)
	write(t, w, "class/plain", fleet.Class{Name: "plain", BurnIn: contract.Brief.Name, AfterTenant: contract.Brief.Name, EraseLevel: "clear", Packs: []string{"tools@1"}, Expect: fleet.ClassExpect{Disks: 2}})
	return w
}

// burnReport is the report of the node's newest burn-in.
func burnReport(t *testing.T, w *contract.World) (rep fleet.BurnReport) {
	t.Helper()
	n, _ := w.Read()
	var op fleet.Operation
	err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
		op, _, err = fleet.Get[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, n.BurnIn))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.Store.OpenBlob(t.Context(), step.ReportOf(op))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &rep); err != nil {
		t.Fatal(err)
	}
	return rep
}

func findCheck(rep fleet.BurnReport, id string) fleet.Check {
	i := slices.IndexFunc(rep.Checks, func(c fleet.Check) bool { return c.ID == id })
	if i < 0 {
		return fleet.Check{}
	}
	return rep.Checks[i]
}

// TestStageAtItsLimit: what a try measured before its time was over counts, whether there is another try or not.
func TestStageAtItsLimit(t *testing.T) {
	late := fleet.Errorf(fleet.Timeout, "MC-AGENT-LIMIT", "burn-stage did not end in time")
	for name, c := range map[string]struct {
		wrong bool // what the first try measures
		ends  func(p step.BurnParams, try int) error
		state fleet.State
		tries int
		parts int
		code  string
	}{
		"the second try ends": {false, func(_ step.BurnParams, try int) error {
			if try == 1 {
				return late
			}
			return nil
		}, fleet.Available, 2, 2, ""},
		"both tries take too long": {false, func(step.BurnParams, int) error { return late }, fleet.Managed, 2, 2, "MC-FAULT-BURN"},
		"the first try found wrong data": {true, func(_ step.BurnParams, try int) error {
			if try == 1 {
				return late
			}
			return nil
		}, fleet.Managed, 1, 1, "MC-BURN-DATA"},
	} {
		t.Run(name, func(t *testing.T) {
			w := burnable(t)
			healthy, tries := w.Machine.Burns, 0
			w.Machine.Burns = func(p step.BurnParams, inv fleet.Inventory) fleet.BurnPart {
				part := healthy(p, inv)
				if tries++; tries == 1 {
					part.Stopped = fleet.StoppedLimit
					if c.wrong {
						part.Measured[0].Value = 3
					}
				}
				return part
			}
			w.Machine.BurnEnds = c.ends
			ask(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
			n := wantState(t, w, c.state)
			rep := burnReport(t, w)
			if tries != c.tries || len(rep.Stages) != c.parts {
				t.Errorf("%d tries, %d parts in the report, want %d and %d", tries, len(rep.Stages), c.tries, c.parts)
			}
			if c.code != "" && !slices.ContainsFunc(n.Faults, func(f fleet.Fault) bool { return f.Code == c.code }) {
				t.Errorf("faults %+v, want %s", n.Faults, c.code)
			}
			if c.state == fleet.Available && (!rep.Finished || rep.Verdict != fleet.Pass) {
				t.Errorf("%s, finished %v: %s", rep.Verdict, rep.Finished, rep.Headline)
			}
		})
	}
}

// TestGoesDownUnderLoad: once is a warning and the burn-in goes on; twice is a fault, judged by what was measured until then.
func TestGoesDownUnderLoad(t *testing.T) {
	for name, c := range map[string]struct {
		falls   int
		state   fleet.State
		outcome fleet.Outcome
	}{"once": {1, fleet.Available, fleet.Warn}, "twice": {2, fleet.Managed, fleet.Fail}} {
		t.Run(name, func(t *testing.T) {
			w := burnable(t)
			healthy, falls, cut := w.Machine.Burns, 0, 0
			w.Machine.Burns = func(p step.BurnParams, inv fleet.Inventory) fleet.BurnPart {
				if falls < c.falls {
					falls++
					w.Lose = step.BurnStage
				}
				return healthy(p, inv)
			}
			w.Between = func() {
				if cut < falls {
					cut++
					w.Machine.CutPower(step.BurnStage)
				}
			}
			askOnly(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
			w.Settle(3 * time.Hour)
			n := wantState(t, w, c.state)
			rep := burnReport(t, w)
			got := findCheck(rep, "restarts")
			if got.Outcome != c.outcome || len(rep.Restarts) != c.falls || len(got.Evidence) != c.falls || got.Component != "system" {
				t.Errorf("%+v of %d restarts: %+v", got, len(rep.Restarts), rep.Restarts)
			}
			if f := n.Fault("MC-BURN-RESTART", "system"); (f != nil) != (c.falls > 1) {
				t.Errorf("fault %+v", f)
			}
			if c.falls > 1 && rep.Verdict != fleet.Fail {
				t.Errorf("%s: %s", rep.Verdict, rep.Headline)
			}
		})
	}
}

// TestPassClearsWhatItLookedAt: faults of an earlier burn-in go with one that looked again for them, in that part, by a profile that is long enough.
func TestPassClearsWhatItLookedAt(t *testing.T) {
	w := burnable(t)
	plant := func(code, component, check string) {
		n, _ := w.Read()
		n.RaiseFault(fleet.Fault{Code: code, Component: component, Check: check, Severity: fleet.Critical, Since: w.Clock, Evidence: "seen", Blocks: fleet.BlocksAllocate, Step: step.JudgeBurnIn})
		write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
	}
	plant("MC-BURN-DATA", "core/14", "cpu-mismatches")
	plant("MC-BURN-DATA", "gpu/3", "gpu-mismatches")
	plant("MC-GPU-LOST", "gpu/4", "gpu-lost")
	ask(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
	n := wantState(t, w, fleet.Available)
	var left []string
	for _, f := range n.Faults {
		left = append(left, f.Code+" "+f.Component)
	}
	if got := strings.Join(left, ", "); got != "MC-BURN-DATA gpu/3, MC-GPU-LOST gpu/4" {
		t.Errorf("left: %s", got)
	}
	if _, err := w.Loop.CreateLease(context.Background(), request(nil), "tester"); err == nil {
		t.Error("a node with a fault that nobody looked at again was leased")
	}
}
