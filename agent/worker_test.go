package agent

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// Invariant A1: one (operation, index, try) runs at most once.
func TestARepeatedTaskIsAnsweredFromMemory(t *testing.T) {
	f := newFakeServer(t)
	var runs atomic.Int32
	release := make(chan struct{})
	began := make(chan struct{}, 8)
	start(t, config(f, step.Funcs{step.EraseDisks: func(context.Context, step.Call) (step.Outcome, error) {
		n := runs.Add(1)
		began <- struct{}{}
		<-release
		return step.Outcome{Evidence: n}, nil
	}}))
	f.push(task(step.EraseDisks, 1))
	receive(t, began, "start")
	f.push(task(step.EraseDisks, 1), task(step.EraseDisks, 1)) // while it runs
	f.awaitTaken()
	close(release)
	first := receive(t, f.results, "result")
	f.push(task(step.EraseDisks, 1)) // and after it
	again := receive(t, f.results, "repeated result")
	if string(first.Evidence) != "1" || string(again.Evidence) != "1" || runs.Load() != 1 {
		t.Errorf("evidence %s and %s after %d runs", first.Evidence, again.Evidence, runs.Load())
	}
	f.push(task(step.EraseDisks, 2))
	if second := receive(t, f.results, "second try"); string(second.Evidence) != "2" || second.Try != 2 {
		t.Errorf("a new try must run again: %s", mustJSON(t, second))
	}
}

func TestAbort(t *testing.T) {
	wait := func(began chan struct{}) step.Func {
		return func(ctx context.Context, _ step.Call) (step.Outcome, error) {
			began <- struct{}{}
			<-ctx.Done()
			return step.Outcome{}, ctx.Err()
		}
	}
	abort := func(name string) api.Task {
		t := task(name, 1)
		t.Abort = true
		return t
	}
	t.Run("where the catalogue allows it now", func(t *testing.T) {
		f, began := newFakeServer(t), make(chan struct{}, 1)
		start(t, config(f, step.Funcs{step.WriteImage: wait(began)}))
		f.push(task(step.WriteImage, 1))
		receive(t, began, "start")
		f.push(abort(step.WriteImage))
		if got := receive(t, f.results, "result"); got.Error == nil || got.Error.Code != "MC-AGENT-ABORTED" || got.Error.Transient {
			t.Errorf("result = %s", mustJSON(t, got))
		}
	})
	t.Run("a step that never aborts goes on", func(t *testing.T) {
		f, began, release := newFakeServer(t), make(chan struct{}, 1), make(chan struct{})
		start(t, config(f, step.Funcs{step.EraseDisks: func(ctx context.Context, _ step.Call) (step.Outcome, error) {
			began <- struct{}{}
			<-release
			return step.Outcome{Evidence: "erased"}, ctx.Err()
		}}))
		f.push(task(step.EraseDisks, 1))
		receive(t, began, "start")
		f.push(abort(step.EraseDisks))
		f.awaitTaken()
		close(release)
		if got := receive(t, f.results, "result"); got.Error != nil {
			t.Errorf("result = %s", mustJSON(t, got))
		}
	})
	t.Run("before the task was seen", func(t *testing.T) {
		f := newFakeServer(t)
		start(t, config(f, step.Funcs{step.WriteImage: func(context.Context, step.Call) (step.Outcome, error) {
			t.Error("it ran")
			return step.Outcome{}, nil
		}}))
		f.push(abort(step.WriteImage))
		if got := receive(t, f.results, "result"); got.Error == nil || got.Error.Code != "MC-AGENT-ABORTED" {
			t.Errorf("result = %s", mustJSON(t, got))
		}
	})
}

func TestANewerTaskTakesTheOldOnesPlace(t *testing.T) {
	f, began := newFakeServer(t), make(chan struct{}, 1)
	start(t, config(f, step.Funcs{step.VerifyImage: func(ctx context.Context, c step.Call) (step.Outcome, error) {
		if c.Try == 1 {
			began <- struct{}{}
			<-ctx.Done()
			return step.Outcome{}, ctx.Err()
		}
		return step.Outcome{Evidence: c.Resumed}, nil
	}}))
	f.push(task(step.VerifyImage, 1))
	receive(t, began, "start")
	f.push(task(step.VerifyImage, 2))
	if first := receive(t, f.results, "first result"); first.Try != 1 || first.Error == nil {
		t.Errorf("first = %s", mustJSON(t, first))
	}
	if second := receive(t, f.results, "second result"); second.Try != 2 || string(second.Evidence) != "true" {
		t.Errorf("second = %s", mustJSON(t, second))
	}
}

// panicky cannot be encoded, in the worst way.
type panicky struct{}

func (panicky) MarshalJSON() ([]byte, error) { panic("it cannot be shown") }

func TestHowAStepFails(t *testing.T) {
	fault := fleet.Fault{Code: "MC-DEVICE-MISSING", Component: "disk/S1", Severity: fleet.Critical, Blocks: fleet.BlocksEverything}
	for name, tc := range map[string]struct {
		fn        step.Func
		limit     int64
		code      string
		transient bool
		detail    string
	}{
		"panic": {func(context.Context, step.Call) (step.Outcome, error) { panic("off by one") }, 600, "MC-AGENT-PANIC", false, "off by one"},
		"limit": {func(ctx context.Context, _ step.Call) (step.Outcome, error) {
			<-ctx.Done()
			return step.Outcome{}, ctx.Err()
		}, 1, "MC-AGENT-LIMIT", true, "within 1s"},
		"unavailable": {func(context.Context, step.Call) (step.Outcome, error) {
			return step.Outcome{}, fleet.Errorf(fleet.Unavailable, "MC-X", "no answer")
		}, 600, "MC-X", true, "no answer"},
		"plain error": {func(context.Context, step.Call) (step.Outcome, error) { return step.Outcome{}, errBoom }, 600, "", false, "boom"},
		"faults": {func(context.Context, step.Call) (step.Outcome, error) {
			return step.Outcome{Evidence: "half", Faults: []fleet.Fault{fault}}, errBoom
		}, 600, "", false, "boom"},
		"evidence that is not JSON": {func(context.Context, step.Call) (step.Outcome, error) {
			return step.Outcome{Evidence: func() {}}, nil
		}, 600, "MC-AGENT-EVIDENCE", false, "cannot be encoded"},
		"evidence that panics": {func(context.Context, step.Call) (step.Outcome, error) {
			return step.Outcome{Evidence: panicky{}}, nil
		}, 600, "MC-AGENT-PANIC", false, "cannot be shown"},
		"not in this agent": {nil, 600, "MC-AGENT-STEP", false, "does not know"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeServer(t)
			start(t, config(f, step.Funcs{step.VerifyErase: tc.fn}))
			want := task(step.VerifyErase, 1)
			want.LimitSeconds = tc.limit
			f.push(want)
			got := receive(t, f.results, "result")
			if got.Error == nil || got.Error.Code != tc.code || got.Error.Transient != tc.transient || !strings.Contains(got.Error.Detail, tc.detail) {
				t.Fatalf("result = %s", mustJSON(t, got))
			}
			switch name {
			case "faults":
				if len(got.Error.Faults) != 1 || got.Error.Faults[0] != fault || string(got.Evidence) != `"half"` {
					t.Errorf("result = %s", mustJSON(t, got))
				}
			case "panic":
				for r := receive(t, f.reports, "report"); r.Kind != "panic"; r = receive(t, f.reports, "report") {
					continue
				}
			}
			// The agent lives on.
			f.push(api.Task{Operation: "op2", Step: "unheard-of"})
			if next := receive(t, f.results, "next result"); next.Error.Code != "MC-AGENT-STEP" {
				t.Errorf("next = %s", mustJSON(t, next))
			}
		})
	}
}

// Invariant A2: nothing starts while a step that was told to end may still write.
func TestAStuckStepKeepsOthersFromStarting(t *testing.T) {
	f := newFakeServer(t)
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	cfg := config(f, step.Funcs{
		step.WriteImage: func(context.Context, step.Call) (step.Outcome, error) {
			<-release
			return step.Outcome{}, nil
		},
		step.Inventory: nothing,
	})
	cfg.Pace.Stop = 50 * time.Millisecond
	start(t, cfg)
	t.Cleanup(free)
	stuck := task(step.WriteImage, 1)
	stuck.LimitSeconds = 1
	f.push(stuck)
	if got := receive(t, f.results, "result"); got.Error == nil || got.Error.Code != "MC-AGENT-STUCK" {
		t.Fatalf("result = %s", mustJSON(t, got))
	}
	f.push(task(step.Inventory, 5))
	if got := receive(t, f.results, "result"); got.Error == nil || got.Error.Code != "MC-AGENT-STUCK" {
		t.Fatalf("result = %s", mustJSON(t, got))
	}
	free()
	for try := 6; ; try++ {
		f.push(task(step.Inventory, try))
		if got := receive(t, f.results, "result"); got.Error == nil {
			break
		}
	}
}

func TestEvidenceTooBigForTheJournalIsAttached(t *testing.T) {
	f := newFakeServer(t)
	start(t, config(f, step.Funcs{step.EraseDisks: func(context.Context, step.Call) (step.Outcome, error) {
		return step.Outcome{Evidence: strings.Repeat("x", 5000)}, nil
	}}))
	f.push(task(step.EraseDisks, 1))
	got := receive(t, f.results, "result")
	if len(got.Evidence) > 200 || !strings.Contains(string(got.Evidence), `"attached":"sha256:`) || len(got.Attachment) != 5002 {
		t.Errorf("evidence %s, attachment of %d bytes", got.Evidence, len(got.Attachment))
	}
}

func TestAResultThatTheServerCannotTakeIsReplacedByAShortOne(t *testing.T) {
	f := newFakeServer(t)
	f.onResult = func(w http.ResponseWriter, r api.Result) bool {
		if len(r.Attachment) > 100 {
			refuse(w, http.StatusRequestEntityTooLarge, "too much")
			return true
		}
		return false
	}
	start(t, config(f, step.Funcs{step.Inventory: func(context.Context, step.Call) (step.Outcome, error) {
		return step.Outcome{Attachment: strings.Repeat("x", 5000)}, nil
	}}))
	f.push(task(step.Inventory, 1))
	if got := receive(t, f.results, "result"); got.Error == nil || got.Error.Code != "MC-AGENT-RESULT" || !strings.Contains(got.Error.Detail, "too much") {
		t.Errorf("result = %s", mustJSON(t, got))
	}
}
