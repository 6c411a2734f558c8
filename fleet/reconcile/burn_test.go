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

// TestPartsThatAreNone: what is no record of the stage, and what comes from a machine that is not there, never gets into a report.
func TestPartsThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *fleet.BurnPart)
		code   string
	}{
		"of another stage":     {func(p *fleet.BurnPart) { p.Stage = "other" }, "MC-BURN-PART"},
		"ends before it began": {func(p *fleet.BurnPart) { p.EndedAt = p.BeganAt.Add(-time.Hour) }, "MC-BURN-PART"},
		"a value of nothing":   {func(p *fleet.BurnPart) { p.Measured[0].Check = "" }, "MC-BURN-PART"},
		"a series that limps": {func(p *fleet.BurnPart) {
			p.Series = []fleet.Series{{Name: "x", Component: "y", Bucket: 1, Mean: make([]*float64, 2)}}
		}, "MC-BURN-PART"},
		"of a newer program":          {func(p *fleet.BurnPart) { p.Version = 99 }, "MC-BURN-PART"},
		"of a machine that is not":    {func(p *fleet.BurnPart) { p.Fixture = "hgx-h200" }, "MC-BURN-FIXTURE"},
		"time that was never passed":  {func(p *fleet.BurnPart) { p.Speed = 100 }, "MC-BURN-PART"},
		"more than an agent measures": {func(p *fleet.BurnPart) { p.Untold = make([]fleet.Untold, 9000) }, "MC-BURN-PART"},
	} {
		t.Run(name, func(t *testing.T) {
			w := burnable(t)
			healthy := w.Machine.Burns
			w.Machine.Burns = func(p step.BurnParams, inv fleet.Inventory) fleet.BurnPart {
				part := healthy(p, inv)
				c.change(&part)
				return part
			}
			ask(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
			n := wantState(t, w, fleet.Managed)
			if n.BurnIn != "" {
				t.Errorf("there is a report: %+v", burnReport(t, w))
			}
			if f := n.Fault("MC-FAULT-BURN", "plan/burn"); f == nil || !strings.HasPrefix(f.Evidence, c.code+": ") {
				t.Errorf("faults %+v", n.Faults)
			}
		})
	}
}

// TestFleetHistory: what a node measured is kept when it passed, and the next of its class is held against what the others had: a warning, and no more.
func TestFleetHistory(t *testing.T) {
	w := burnable(t)
	healthy := w.Machine.Burns
	w.Machine.Burns = func(p step.BurnParams, inv fleet.Inventory) fleet.BurnPart {
		part := healthy(p, inv)
		for _, core := range []string{"core/0", "core/1", "core/2", "core/3", "core/4", "core/5"} {
			part.Measured = append(part.Measured, fleet.Measured{Check: "cpu-rate", Component: core, Unit: "passes/s", Value: 50, N: 1})
		}
		return part
	}
	others := func(n int, class string) {
		for i := range n {
			id := fleet.NodeID(class + string(rune('a'+i)))
			write(t, w, fleet.KeyOf(fleet.KindBurned, id), fleet.BurnValues{Node: id, Class: class, Machine: string(id), Profile: contract.Brief.Name, At: w.Clock,
				Values: map[string]map[string]float64{"cpu-rate": {"core": 100 + float64(i)}}})
		}
	}
	rate := func() fleet.Check {
		t.Helper()
		ask(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
		wantState(t, w, fleet.Available)
		return findCheck(burnReport(t, w), "cpu-rate")
	}
	others(7, "plain")
	others(20, "another")
	if c := rate(); c.Outcome != fleet.Pass {
		t.Errorf("beside seven of its class: %+v", c)
	}
	others(8, "plain")
	if c := rate(); c.Outcome != fleet.Warn || c.Limit == nil || c.Limit.Against != "fleet" || !strings.Contains(c.Words, "the median of 8 nodes") {
		t.Errorf("beside eight of its class: %+v", c)
	}
	var mine fleet.BurnValues
	err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
		mine, _, err = fleet.Get[fleet.BurnValues](s, fleet.KeyOf(fleet.KindBurned, w.Node))
		return err
	})
	if err != nil || mine.Values["cpu-rate"]["core"] != 50 || mine.Class != "plain" || mine.Profile != contract.Brief.Name {
		t.Errorf("kept: %+v, %v", mine, err)
	}
}
