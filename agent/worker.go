package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// errAborted is the cause of a step's context after the server asked for it to stop.
var errAborted = errors.New("aborted")

// errSilent is that cause after no server had answered for as long as a machine may be loaded without one.
var errSilent = errors.New("no server answers")

// remembered is how many results of this boot the agent can answer again.
const remembered = 64

// taskKey names one try of one step.
type taskKey struct {
	operation  fleet.OperationID
	index, try int
}

func keyOf(t api.Task) taskKey { return taskKey{t.Operation, t.Index, t.Try} }

// worker does one task at a time and remembers what became of each (invariant A1: one (operation, index, try) runs at most once).
type worker struct {
	cfg   Config
	clock *clock
	// base is the context of all steps: it outlives the calls to the server and ends with stop.
	base   context.Context
	cancel context.CancelFunc
	steps  sync.WaitGroup

	mu      sync.Mutex
	running *running           // guarded by mu: nil between tasks
	next    *api.Task          // guarded by mu: what to do after it; the newest wins
	done    []api.Result       // guarded by mu: oldest first, at most remembered
	outbox  []api.Result       // guarded by mu: not yet delivered, in order
	sending bool               // guarded by mu: the first of outbox is on its way
	stuck   map[string]taskKey // guarded by mu: steps that did not end when told to, by name
	bell    chan struct{}      // rung when outbox grows
}

// running is the task that is being done.
type running struct {
	task   api.Task
	decl   step.Step
	ctx    context.Context // good until the task has ended
	cancel context.CancelCauseFunc
	meter  *meter
}

func newWorker(cfg Config, clock *clock) *worker {
	base, cancel := context.WithCancel(context.Background())
	return &worker{cfg: cfg, clock: clock, base: base, cancel: cancel, stuck: map[string]taskKey{}, bell: make(chan struct{}, 1)}
}

// stop ends the running step and waits for it, for as long as a step may take to end.
func (w *worker) stop() {
	w.mu.Lock()
	w.next = nil
	w.mu.Unlock()
	w.cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.cfg.caught("waiting for steps", func() error { w.steps.Wait(); return nil }) // it has no error but a panic, which was reported
	}()
	t := time.NewTimer(w.cfg.Pace.Stop)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
		w.cfg.Log.Error("a step does not end; leaving it behind")
	}
}

// offer takes a task from the server: it starts it, keeps it for later, aborts the one that runs, or answers from memory. It reports whether the task
// is the one that runs already.
func (w *worker) offer(t api.Task) (repeat bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := keyOf(t)
	if r, ok := w.rememberedLocked(key); ok {
		w.cfg.Log.InfoContext(w.about(w.base, t), "answering a repeated task from memory")
		w.enqueueLocked(r)
		return true
	}
	if w.running != nil {
		same := keyOf(w.running.task) == key
		if (t.Abort || !same) && w.running.decl.Abort == step.AbortNow {
			w.running.cancel(errAborted)
		}
		if !same {
			w.next = &t
		}
		return same
	}
	w.startLocked(t)
	return false
}

func (w *worker) rememberedLocked(key taskKey) (api.Result, bool) {
	for _, r := range w.done {
		if (taskKey{r.Operation, r.Index, r.Try}) == key {
			return r, true
		}
	}
	return api.Result{}, false
}

func (w *worker) startLocked(t api.Task) {
	decl, _ := step.Find(t.Step)
	switch fn := w.cfg.Funcs[t.Step]; {
	case t.Abort:
		w.finishLocked(t, problem(fleet.Errorf(fleet.Conflict, "MC-AGENT-ABORTED", "%s was aborted before it began", t.Step)))
	case fn == nil:
		w.finishLocked(t, problem(fleet.Errorf(fleet.Invalid, "MC-AGENT-STEP", "this agent does not know the step %q", t.Step).
			WithHint("the boot medium is of another version than the server; boot the node again: metalctl node retry NODE")))
	case len(w.stuck) > 0:
		w.finishLocked(t, problem(w.stuckErrorLocked()))
	default:
		limit := time.Duration(t.LimitSeconds) * time.Second
		if limit == 0 {
			limit = decl.Limit
		}
		if limit == 0 {
			limit = time.Hour
		}
		ctx, cancel := context.WithCancelCause(w.base)
		w.running = &running{task: t, decl: decl, ctx: ctx, cancel: cancel, meter: &meter{}}
		w.steps.Add(2) // do and the step itself
		go w.do(ctx, w.running, fn, limit)
	}
}

// finishLocked remembers what became of a task and sends it.
func (w *worker) finishLocked(t api.Task, r api.Result) {
	r.Operation, r.Index, r.Try, r.Step = t.Operation, t.Index, t.Try, t.Step
	w.done = append(w.done, r)
	if len(w.done) > remembered {
		w.done = w.done[len(w.done)-remembered:]
	}
	w.enqueueLocked(r)
}

// enqueueLocked puts a result into the outbox unless it waits there already. One that is on its way counts as sent: the server may have asked again after it
// came, because it lost it.
func (w *worker) enqueueLocked(r api.Result) {
	for i, o := range w.outbox {
		if i == 0 && w.sending {
			continue
		}
		if o.Operation == r.Operation && o.Index == r.Index && o.Try == r.Try {
			return
		}
	}
	w.outbox = append(w.outbox, r)
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

func (w *worker) stuckErrorLocked() error {
	var names []string
	for name := range w.stuck {
		names = append(names, name)
	}
	return fleet.Errorf(fleet.Broken, "MC-AGENT-STUCK", "the agent cannot work on: %v was told to end and still runs", names).
		WithHint("power the node off and try again: metalctl node retry NODE")
}

// endLoad ends the running step where it loads the machine: nobody can say any more that load is to end.
func (w *worker) endLoad(ctx context.Context, t api.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil || keyOf(w.running.task) != keyOf(t) || t.Step != step.BurnStage || context.Cause(w.running.ctx) != nil {
		return
	}
	w.cfg.Log.WarnContext(w.about(ctx, t), "no server answers; the load ends")
	w.running.cancel(errSilent)
}

// current returns the running task and its meter, or false.
func (w *worker) current() (api.Task, *meter, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		return api.Task{}, nil, false
	}
	return w.running.task, w.running.meter, true
}
