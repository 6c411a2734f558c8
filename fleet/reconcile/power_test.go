package reconcile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/store"
)

const idleWatts, loadWatts = 1000, 10000

// powered gives the site budgets and puts the world's node into rack r1.
func powered(t *testing.T, w *contract.World, budgets ...fleet.PowerBudget) {
	t.Helper()
	write(t, w, fleet.SiteKey, fleet.Site{Isolation: "none", Power: fleet.SitePower{IdleWatts: idleWatts, LoadWatts: loadWatts, Budgets: budgets}})
	n, _ := w.Read()
	n.Labels = map[string]string{"rack": "r1", "feed": "a"}
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
}

// beside is a tenant's machine in the same rack.
func beside(t *testing.T, w *contract.World, power string) {
	t.Helper()
	write(t, w, "node/b", fleet.Node{ID: "b", Name: "n2", State: fleet.Active, Lease: "l9", Power: power, Labels: map[string]string{"rack": "r1"}, CreatedAt: w.Clock})
	write(t, w, "lease/l9", fleet.Lease{ID: "l9", State: fleet.LeaseActive, Members: []fleet.Member{{Node: "b", Name: "n2", State: fleet.MemberReady}}})
}

func why(t *testing.T, w *contract.World) api.Reason {
	t.Helper()
	e, err := w.Loop.Explain(t.Context(), w.Node)
	if err != nil {
		t.Fatal(err)
	}
	return e.Reasons[0]
}

func powerStatus(t *testing.T, w *contract.World) (st api.PowerStatus) {
	t.Helper()
	err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
		st, err = w.Loop.PowerStatus(s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestBurnInWaitsForPower: a stage whose load has no room waits, says what for, also after a crash, and begins when others draw less.
func TestBurnInWaitsForPower(t *testing.T) {
	for name, c := range map[string]struct {
		budgets []fleet.PowerBudget
		waits   string // for which budget; "" for none
		on      string
	}{
		"room for both":                 {[]fleet.PowerBudget{{Label: "rack", Value: "r1", Watts: 2 * loadWatts}}, "", ""},
		"the rack has room for one":     {[]fleet.PowerBudget{{Label: "rack", Value: "r1", Watts: 2*loadWatts - 1}}, "rack=r1", api.OnTime},
		"its feed has none at all":      {[]fleet.PowerBudget{{Label: "rack", Value: "r1", Watts: 9 * loadWatts}, {Label: "feed", Value: "a", Watts: loadWatts - 1}}, "feed=a", api.OnPerson},
		"the budget is of another rack": {[]fleet.PowerBudget{{Label: "rack", Value: "r2", Watts: 1}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := burnable(t)
			powered(t, w, c.budgets...)
			beside(t, w, "on")
			ask(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
			if c.waits == "" {
				wantState(t, w, fleet.Available)
				return
			}
			for range 2 {
				wantState(t, w, fleet.Burning)
				r := why(t, w)
				if r.Kind != "power" || r.On != c.on || !strings.Contains(r.Text, c.waits) || r.Since.IsZero() || r.Command == "" || r.Code != "MC-POWER-BUDGET" {
					t.Errorf("explain says %+v", r)
				}
				if st := powerStatus(t, w); len(st.Waiting) != 1 || st.Waiting[0].Node != "n1" || st.Budgets[0].Watts != c.budgets[0].Watts {
					t.Errorf("status %+v", st)
				}
				w.Restart()
				w.Settle(time.Hour)
			}
			if c.on == api.OnPerson {
				powered(t, w, fleet.PowerBudget{Label: "rack", Value: "r1", Watts: 2 * loadWatts})
			} else {
				beside(t, w, "off")
			}
			w.Settle(time.Hour)
			wantState(t, w, fleet.Available)
			if st := powerStatus(t, w); len(st.Waiting) != 0 {
				t.Errorf("nothing waits, and the status says %+v", st.Waiting)
			}
		})
	}
}

// TestPowerOnByHand asks the budgets, too.
func TestPowerOnByHand(t *testing.T) {
	w := available(t)
	w.Machine.SwitchOff()
	n, _ := w.Read()
	n.Power = "off"
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
	powered(t, w, fleet.PowerBudget{Label: "rack", Value: "r1", Watts: loadWatts + idleWatts - 1})
	beside(t, w, "on")
	if err := w.Loop.MayPowerOn(t.Context(), w.Node); fleet.CodeOf(err) != "MC-POWER-BUDGET" {
		t.Errorf("beside a machine under load: %v", err)
	}
	beside(t, w, "off")
	if err := w.Loop.MayPowerOn(t.Context(), w.Node); err != nil {
		t.Errorf("alone: %v", err)
	}
	if _, err := w.Loop.StopLoad(t.Context(), api.LoadStopCreate{Selector: "rack=r1", Reason: "smoke"}, "tester"); err != nil {
		t.Fatal(err)
	}
	if err := w.Loop.MayPowerOn(t.Context(), w.Node); fleet.CodeOf(err) != "MC-POWER-STOPPED" {
		t.Errorf("with all load stopped: %v", err)
	}
}

// TestLoadIsStopped: the agent is told to end its load, the stage waits until somebody resumes, over a crash, and runs again whole; it costs no try.
func TestLoadIsStopped(t *testing.T) {
	w := burnable(t)
	powered(t, w)
	stop, tries := fleet.LoadStop{}, 0
	w.Machine.BurnEnds = func(step.BurnParams, int) error {
		if tries++; tries > 1 {
			return nil
		}
		n, _ := w.Read()
		if task, err := w.Loop.TaskFor(t.Context(), w.Node, n.Boot.Generation); err != nil || task == nil || task.Abort {
			t.Errorf("before the stop: %+v, %v", task, err)
		}
		var err error
		if stop, err = w.Loop.StopLoad(t.Context(), api.LoadStopCreate{Selector: "rack=r1", Reason: "smoke in row 3"}, "tester"); err != nil {
			t.Fatal(err)
		}
		task, err := w.Loop.TaskFor(t.Context(), w.Node, n.Boot.Generation)
		if err != nil || task == nil || !task.Abort || task.Step != step.BurnStage {
			t.Errorf("after the stop: %+v, %v", task, err)
		}
		return fleet.Errorf(fleet.Conflict, "MC-AGENT-ABORTED", "burn-stage was aborted")
	}
	ask(t, w, "burn", api.NodeVerb{Profile: contract.Brief.Name})
	for range 2 {
		wantState(t, w, fleet.Burning)
		r := why(t, w)
		if r.Kind != "load-stop" || r.On != api.OnPerson || r.Command != stop.Command() || !strings.Contains(r.Text, "smoke in row 3") {
			t.Errorf("explain says %+v", r)
		}
		w.Restart()
		w.Settle(time.Hour)
	}
	if tries != 1 {
		t.Fatalf("%d tries ran although load is stopped", tries)
	}
	if err := w.Loop.ResumeLoad(t.Context(), api.LoadResume{ID: "another", Reason: "x"}, "tester"); fleet.CodeOf(err) != "MC-POWER-UNKNOWN" {
		t.Errorf("a stop that is not there: %v", err)
	}
	if err := w.Loop.ResumeLoad(t.Context(), api.LoadResume{ID: stop.ID, Reason: "looked at it"}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Available)
	rep := burnReport(t, w)
	if tries != 2 || len(rep.Stages) != 2 || rep.Verdict != fleet.Pass {
		t.Errorf("%d tries, %d stages in the report, %s: %s", tries, len(rep.Stages), rep.Verdict, rep.Headline)
	}
}

func TestLoadStopRefusesWhatIsNoStop(t *testing.T) {
	w := contract.NewWorld(t)
	for name, r := range map[string]api.LoadStopCreate{
		"for nothing":      {Reason: "x"},
		"for both":         {All: true, Selector: "rack=r1", Reason: "x"},
		"without a reason": {All: true, Reason: " "},
		"by no equality":   {Selector: "rack!=r1", Reason: "x"},
	} {
		if _, err := w.Loop.StopLoad(t.Context(), r, "tester"); fleet.CodeOf(err) != "MC-POWER-INVALID" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := powerStatus(t, w); len(st.Stops) != 0 {
		t.Errorf("stops %+v", st.Stops)
	}
}

// budgeted checks the site's budgets at every commit, by its own reckoning.
type budgeted struct {
	fleet.Store
	t *testing.T

	mu       sync.Mutex // guards what follows
	most     int64
	exceeded bool
}

func (b *budgeted) Commit(ctx context.Context, c fleet.Change) (fleet.Revision, error) {
	rev, err := b.Store.Commit(ctx, c)
	if err != nil {
		return rev, err
	}
	return rev, b.View(ctx, func(s fleet.Snapshot) error {
		site, _, err := fleet.Get[fleet.Site](s, fleet.SiteKey)
		if err != nil {
			return err
		}
		nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
		if err != nil {
			return err
		}
		drawn := make([]int64, len(site.Power.Budgets))
		for _, n := range nodes {
			watts := int64(0)
			var op fleet.Operation
			if n.Operation != "" {
				if op, _, err = fleet.Get[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, n.Operation)); err != nil {
					return err
				}
			}
			started := func(name string) bool {
				return slices.ContainsFunc(op.Steps, func(r fleet.StepRun) bool { return r.Name == name && r.State == fleet.StepStarted })
			}
			switch {
			case started(step.BurnStage):
				watts = loadWatts
			case n.Power != "off", started(step.PowerOn):
				watts = idleWatts
			}
			for i, x := range site.Power.Budgets {
				if x.Covers(n) {
					drawn[i] += watts
				}
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, x := range site.Power.Budgets {
			b.most = max(b.most, drawn[i])
			if drawn[i] > x.Watts && !b.exceeded {
				b.exceeded = true
				b.t.Errorf("revision %d: %d W are drawn from %s, which has %d", s.Revision(), drawn[i], x.Name(), x.Watts)
			}
		}
		return nil
	})
}

// everUp is an agent that always answers.
type everUp struct{}

func (everUp) Up(fleet.NodeID, int64) (bool, time.Time) { return true, time.Time{} }
func (everUp) Wake(fleet.NodeID)                        {}

// TestBudgetsAreNeverExceeded has two workers on one store, each with many nodes, which switch on, load and switch off at once.
func TestBudgetsAreNeverExceeded(t *testing.T) {
	db := contract.OpenStoreIn(t, t.TempDir(), store.Options{})
	watched := &budgeted{Store: db, t: t}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	// Beside the idle ones two of a rack and three in all may be loaded.
	const racks, perRack = 2, 6
	site := fleet.Site{Isolation: "none", Power: fleet.SitePower{IdleWatts: idleWatts, LoadWatts: loadWatts, Budgets: []fleet.PowerBudget{{Label: "row", Value: "1", Watts: 3*loadWatts + 8*idleWatts}}}}
	c := fleet.Change{}
	params, err := json.Marshal(step.BurnParams{Profile: "brief", Stage: contract.Brief.Stages[0], Round: 1})
	if err != nil {
		t.Fatal(err)
	}
	var ids []fleet.NodeID
	for r := range racks {
		rack := fmt.Sprint("r", r)
		site.Power.Budgets = append(site.Power.Budgets, fleet.PowerBudget{Label: "rack", Value: rack, Watts: 2*loadWatts + 3*idleWatts})
		for i := range perRack {
			id := fmt.Sprint(rack, "n", i)
			ids = append(ids, fleet.NodeID(id))
			n := fleet.Node{ID: fleet.NodeID(id), Name: id, State: fleet.Burning, Power: "off", Operation: fleet.OperationID("o" + id), Labels: map[string]string{"row": "1", "rack": rack}, Boot: fleet.BootRecord{Generation: 1, Protocol: 2}, CreatedAt: now}
			op := fleet.Operation{ID: n.Operation, Node: n.ID, Use: "burn", State: fleet.OperationRunning, Generation: 1, StartedAt: now, CreatedAt: now, Catalogue: step.CatalogueVersion}
			for _, name := range []string{step.PowerOn, step.BurnStage, step.PowerOff} {
				decl, _ := step.Find(name)
				run := fleet.StepRun{Name: name, Side: decl.Side, State: fleet.StepPending}
				if name == step.BurnStage {
					run.Params = params
				}
				op.Steps = append(op.Steps, run)
			}
			c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}, fleet.Write{Key: fleet.KeyOf(fleet.KindOperation, op.ID), Value: op})
		}
	}
	c.Writes = append(c.Writes, fleet.Write{Key: fleet.SiteKey, Value: site})
	if _, err := db.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	done := func(context.Context, step.Call) (step.Outcome, error) { return step.Outcome{}, nil }
	var wg sync.WaitGroup
	for worker := range 2 {
		l := reconcile.New(&reconcile.Loop{Store: watched, Blobs: db, Agents: everUp{}, Funcs: step.Funcs{step.PowerOn: done, step.PowerOff: done}, Worker: fmt.Sprint("w", worker),
			Now: func() time.Time { return now }, Profiles: []fleet.BurnProfile{contract.Brief}})
		for i, id := range ids {
			if i%2 == worker {
				wg.Go(func() { cycle(ctx, t, l, watched, id) })
			}
		}
	}
	wg.Wait()
	if watched.most < 2*loadWatts {
		t.Errorf("at most %d W were drawn at once: nothing ran side by side", watched.most)
	}
}

// cycle moves one node until it has been switched off again; its agent does what it is told at once.
func cycle(ctx context.Context, t *testing.T, l *reconcile.Loop, s fleet.Store, id fleet.NodeID) {
	for ctx.Err() == nil {
		var op fleet.Operation
		err := s.View(ctx, func(sn fleet.Snapshot) (err error) {
			op, _, err = fleet.Get[fleet.Operation](sn, fleet.KeyOf(fleet.KindOperation, fleet.OperationID("o"+string(id))))
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", id, err)
			return
		}
		if op.Steps[2].State == fleet.StepFinished {
			return
		}
		if run := op.Steps[1]; run.State == fleet.StepStarted {
			part := fleet.BurnPart{Version: 1, Profile: "brief", Stage: "cpu", Round: 1, BeganAt: op.CreatedAt, EndedAt: op.CreatedAt, Planned: 60}
			b, err := json.Marshal(part)
			if err == nil {
				err = l.Report(ctx, id, 1, api.Result{Operation: op.ID, Index: 1, Try: run.Try, Step: step.BurnStage, Attachment: b})
			}
			if err != nil {
				t.Errorf("%s: %v", id, err)
				return
			}
			continue
		}
		if _, err := l.Once(ctx, id); err != nil {
			t.Errorf("%s: %v", id, err)
			return
		}
	}
	t.Errorf("%s did not come to its end in time", id)
}
