package step

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// run is a journal of these steps: the first done of them have finished.
func run(done int, names ...string) fleet.Operation {
	op := fleet.Operation{ID: "o", Node: "n", NodeName: "n1", Use: string(Clean), State: fleet.OperationRunning, StartedAt: t0}
	for i, n := range names {
		s, _ := Find(n)
		r := fleet.StepRun{Name: n, Side: s.Side, State: fleet.StepPending}
		if i < done {
			r.State, r.FinishedAt = fleet.StepFinished, t0
		}
		op.Steps = append(op.Steps, r)
	}
	return op
}

func TestNext(t *testing.T) {
	up := Signals{AgentUp: true}
	with := func(op fleet.Operation, change func(*fleet.Operation)) fleet.Operation { change(&op); return op }
	release := func(op *fleet.Operation) { op.Use = string(Release) }
	started := func(op fleet.Operation, i int, at time.Time) fleet.Operation { return Started(op, i, 1, at) }
	for name, c := range map[string]struct {
		op      fleet.Operation
		now     time.Time
		signals Signals
		want    Do
		index   int
		until   time.Time
	}{
		"first step":                     {run(0, PowerOff, PowerOn), t0, up, Start, 0, time.Time{}},
		"second step":                    {run(1, PowerOff, PowerOn), t0, up, Start, 1, time.Time{}},
		"all done":                       {run(2, PowerOff, PowerOn), t0, up, Finish, 0, time.Time{}},
		"out of band, no agent":          {run(0, PowerOff), t0, Signals{}, Start, 0, time.Time{}},
		"in band, agent up":              {run(0, Inventory), t0, up, Start, 0, time.Time{}},
		"in band, agent silent":          {run(0, Inventory), t0, Signals{}, Wait, 0, t0.Add(AgentPatience)},
		"in band, silent since":          {run(0, Inventory), t0, Signals{AgentSince: t0.Add(time.Minute)}, Wait, 0, t0.Add(time.Minute + AgentPatience)},
		"in band, agent lost":            {run(0, Inventory), t0.Add(AgentPatience), Signals{}, Fail, 0, time.Time{}},
		"held":                           {run(0, EraseDisks), t0, Signals{AgentUp: true, Held: true}, Wait, 0, time.Time{}},
		"held, but isolation":            {with(run(0, Isolate), release), t0, Signals{Held: true}, Start, 0, time.Time{}},
		"held, but a release powers off": {with(run(0, PowerOff), release), t0, Signals{Held: true}, Start, 0, time.Time{}},
		"held, and a plan powers off":    {run(0, PowerOff), t0, Signals{Held: true}, Wait, 0, time.Time{}},
		"held while it runs":             {started(run(0, EraseDisks), 0, t0), t0, Signals{AgentUp: true, Held: true}, Running, 0, t0.Add(6*time.Hour + limitSlack)},
		"backoff":                        {with(run(0, PowerOn), func(o *fleet.Operation) { o.Steps[0].NotBefore = t0.Add(time.Second) }), t0, up, Wait, 0, t0.Add(time.Second)},
		"backoff over":                   {with(run(0, PowerOn), func(o *fleet.Operation) { o.Steps[0].NotBefore = t0 }), t0, up, Start, 0, time.Time{}},
		"out of band runs":               {started(run(0, PowerOn), 0, t0), t0.Add(time.Hour), up, Running, 0, time.Time{}},
		"in band over its limit":         {started(run(0, Inventory), 0, t0), t0.Add(10*time.Minute + limitSlack), up, Fail, 0, time.Time{}},
		"in band, the server was away":   {started(run(0, Inventory), 0, t0), t0.Add(time.Hour), Signals{AgentUp: true, AgentSince: t0.Add(time.Hour)}, Running, 0, t0.Add(time.Hour + limitSlack)},
		"erasing, the server was away":   {started(run(0, EraseDisks), 0, t0), t0.Add(7 * time.Hour), Signals{AgentSince: t0.Add(7 * time.Hour)}, Running, 0, t0.Add(7*time.Hour + limitSlack)},
		"in band, back and no result":    {started(run(0, Inventory), 0, t0), t0.Add(time.Hour + limitSlack), Signals{AgentUp: true, AgentSince: t0.Add(time.Hour)}, Fail, 0, time.Time{}},
		"in band, agent away a moment":   {started(run(0, Inventory), 0, t0), t0.Add(time.Minute), Signals{AgentSince: t0}, Running, 0, t0.Add(AgentPatience)},
		"in band, agent away for good":   {started(run(0, Inventory), 0, t0), t0.Add(AgentPatience), Signals{}, Fail, 0, time.Time{}},
		"erasing, network cut":           {started(run(0, EraseDisks), 0, t0), t0.Add(5 * time.Hour), Signals{}, Running, 0, t0.Add(6*time.Hour + limitSlack)},
		"erasing, its limit over":        {started(run(0, EraseDisks), 0, t0), t0.Add(6*time.Hour + limitSlack), Signals{}, Fail, 0, time.Time{}},
		"writing, network cut":           {started(run(0, WriteImage), 0, t0), t0.Add(time.Hour), Signals{}, Running, 0, t0.Add(2*time.Hour + limitSlack)},
		"abort between steps":            {with(run(1, PowerOff, PowerOn), func(o *fleet.Operation) { o.Abort = true }), t0, up, Abort, 1, time.Time{}},
		"abort waits for a step":         {with(started(run(0, EraseDisks), 0, t0), func(o *fleet.Operation) { o.Abort = true }), t0, up, Running, 0, t0.Add(6*time.Hour + limitSlack)},
		"abort of a step without agent":  {with(started(run(0, Inventory), 0, t0), func(o *fleet.Operation) { o.Abort = true }), t0, Signals{}, Abort, 0, time.Time{}},
		"failed":                         {with(run(0, PowerOn), func(o *fleet.Operation) { *o = Failed(*o, 0, fleet.Problem{Detail: "x"}, SeenEnd, t0) }), t0, up, Fail, 0, time.Time{}},
		"failed by the abort":            {with(run(0, PowerOn), func(o *fleet.Operation) { *o = Failed(*o, 0, fleet.Problem{Detail: "x"}, SeenEnd, t0); o.Abort = true }), t0, up, Abort, 0, time.Time{}},
		"a person must say":              {with(run(0, PowerOn), func(o *fleet.Operation) { o.Steps[0].State = fleet.StepAsk }), t0, up, AskPerson, 0, time.Time{}},
		"a step of another version":      {with(run(0, PowerOn), func(o *fleet.Operation) { o.Steps[0].Name = "gone" }), t0, up, Fail, 0, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Next(c.op, c.now, c.signals)
			if got.Do != c.want || got.Index != c.index || !got.Until.Equal(c.until) {
				t.Errorf("got %+v, want do %d index %d until %s", got, c.want, c.index, c.until)
			}
			if got.Why == "" && got.Do != Start && got.Do != Finish {
				t.Error("it does not say why")
			}
		})
	}
}

func TestFailedRetries(t *testing.T) {
	op := run(0, PowerOn)
	transient := fleet.Problem{Detail: "away", Transient: true}
	var waits []time.Duration
	for op.Steps[0].State != fleet.StepFailed {
		op = Started(op, 0, 1, t0)
		op = Failed(op, 0, transient, SeenEnd, t0)
		if op.Steps[0].State == fleet.StepPending {
			waits = append(waits, op.Steps[0].NotBefore.Sub(t0))
		}
	}
	decl, _ := Find(PowerOn)
	if op.Steps[0].Try != decl.Tries || len(waits) != decl.Tries-1 {
		t.Fatalf("%d tries with waits %v, want %d", op.Steps[0].Try, waits, decl.Tries)
	}
	for i := 1; i < len(waits); i++ {
		if waits[i] <= waits[i-1] {
			t.Errorf("the pauses do not grow: %v", waits)
		}
	}
	for try := 1; try < 100; try++ {
		if d := Backoff("o", 0, try); d < 3*time.Second || d > 375*time.Second {
			t.Errorf("pause after try %d is %s", try, d)
		}
	}
	op = Failed(Started(run(0, PowerOn), 0, 1, t0), 0, fleet.Problem{Detail: "broken"}, SeenEnd, t0)
	if op.Steps[0].State != fleet.StepFailed {
		t.Error("a lasting problem was to be tried again")
	}
	aborted := Started(run(0, PowerOn), 0, 1, t0)
	aborted.Abort = true
	if op = Failed(aborted, 0, transient, SeenEnd, t0); op.Steps[0].State != fleet.StepFailed {
		t.Error("an aborted run was to be tried again")
	}
}

// TestJournalLeavesItsArgument: what was read from the store stays as it was, because the decision may be made again.
func TestJournalLeavesItsArgument(t *testing.T) {
	op := run(0, PowerOn, AwaitAgent)
	before, err := json.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	Started(op, 0, 7, t0)
	Finished(op, 0, []byte(`{}`), t0)
	Failed(op, 0, fleet.Problem{}, UnseenEnd, t0)
	Recovered(op, 0, t0)
	Again(op, "p", "x", t0)
	after, err := json.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(after), string(before)); diff != "" {
		t.Error(diff)
	}
}

func TestRecovered(t *testing.T) {
	for _, s := range Catalogue {
		op := Recovered(Started(run(0, s.Name), 0, 1, t0), 0, t0)
		r := op.Steps[0]
		want := fleet.StepPending
		if s.OnCrash == Ask {
			want = fleet.StepAsk
		}
		if r.State != want || !r.Resumed || r.Try != 1 {
			t.Errorf("%s: %+v", s.Name, r)
		}
	}
}

func TestAgainGoesOnWhereItStopped(t *testing.T) {
	op := Failed(Started(run(2, BMCIdentify, PowerOff, PowerOn, AwaitAgent), 2, 1, t0), 2, fleet.Problem{Detail: "x"}, UnseenEnd, t0)
	op.State, op.Error = fleet.OperationFailed, &fleet.Problem{Detail: "x"}
	got := Again(op, "next", "me", t0.Add(time.Hour))
	if got.Current() != 2 || got.State != fleet.OperationPending || got.Error != nil || got.ID != "next" {
		t.Fatalf("%+v", got)
	}
	if r := got.Steps[2]; r.Try != 0 || !r.Resumed || r.Error != nil || got.Steps[3].Resumed {
		t.Errorf("%+v", got.Steps)
	}
}

func TestFill(t *testing.T) {
	op := run(2, MediaInsert, WriteImage, BootFromMedia, VerifyImage, BootEntry, Inventory)
	op.Steps[0].Evidence = json.RawMessage(`{"target":"UefiHttp","generation":3}`)
	op.Steps[1].Evidence = json.RawMessage(`{"serial":"A","content_sha256":"d","disk_bytes":5,"path":"/dev/sda"}`)
	op.Steps[3].Params = json.RawMessage(`{"image":{"name":"i"}}`)
	for i, want := range map[int]string{2: `{"target":"UefiHttp"}`, 3: `{"content_sha256":"d","disk_bytes":5,"image":{"name":"i"},"serial":"A"}`, 4: `{"serial":"A"}`, 5: ``} {
		got, err := Fill(op, i)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", op.Steps[i].Name, got, err, want)
		}
	}
}
