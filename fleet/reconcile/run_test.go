package reconcile_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
)

// live gives the world the real time and returns what waits for a state while the loop runs.
func live(t *testing.T, w *contract.World) func(fleet.State) fleet.Node {
	t.Helper()
	return func(want fleet.State) fleet.Node {
		t.Helper()
		deadline := time.NewTimer(5 * time.Minute)
		defer deadline.Stop()
		for {
			changed := w.Store.Changed()
			n, op := w.Read()
			if n.State == want && n.Operation == "" && n.Wish == nil {
				return n
			}
			select {
			case <-changed:
			case <-deadline.C:
				t.Fatalf("node stays %s, want %s; operation %+v", n.State, want, op)
			}
		}
	}
}

// loop is the world's loop as a server runs it, with the machine's agent polling beside it.
func loop(w *contract.World, worker string, change func(*reconcile.Loop)) *reconcile.Loop {
	l := &reconcile.Loop{Store: w.Store, Blobs: w.Store, Timeline: w.Store, Funcs: w.Machine.Funcs(), Agents: w.Machine, Machine: w.Machine, Evidence: w.Machine,
		Sources: w.Loop.Sources, Worker: worker, Period: 50 * time.Millisecond, Tick: 5 * time.Millisecond, ReadyTick: 5 * time.Millisecond}
	if change != nil {
		change(l)
	}
	return reconcile.New(l)
}

func runLoop(t *testing.T, w *contract.World, l *reconcile.Loop) (stop func()) {
	t.Helper()
	w.Loop = l
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the loop ended: %v", err)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			changed := w.Store.Changed()
			if w.PollContext(ctx) {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	t.Cleanup(stop)
	return stop
}

func TestRunTakesANodeRound(t *testing.T) {
	w := contract.NewWorld(t)
	l := loop(w, "a", nil)
	stop := runLoop(t, w, l)
	wait := live(t, w)
	if _, err := l.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	wait(fleet.Managed)
	if _, err := l.Ask(t.Context(), w.Node, "accept", api.NodeVerb{Devices: contract.Disks()}, "tester"); err != nil {
		t.Fatal(err)
	}
	wait(fleet.Available)
	lease, err := l.CreateLease(t.Context(), request(nil), "tester")
	if err != nil {
		t.Fatal(err)
	}
	wait(fleet.Active)
	if _, err := l.ReleaseLease(t.Context(), lease.ID, "tester"); err != nil {
		t.Fatal(err)
	}
	if n := wait(fleet.Available); n.Lease != "" || w.Machine.Holds("ROOT-1") != "" {
		t.Fatalf("lease %q, disk %q", n.Lease, w.Machine.Holds("ROOT-1"))
	}
	stop()
	wantNoClaim(t, w)
}

func wantNoClaim(t *testing.T, w *contract.World) {
	t.Helper()
	err := w.Store.View(context.Background(), func(s fleet.Snapshot) error {
		return s.List(fleet.KindClaim, func(r fleet.Record) bool {
			t.Errorf("claim left behind: %s", r.Data)
			return true
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestStopInTheMiddle: a server that stops in order leaves the step *started* and lets go of its claim, so that the next one goes on at once.
func TestStopInTheMiddle(t *testing.T) {
	w := contract.NewWorld(t)
	reached := make(chan struct{})
	l := loop(w, "a", nil)
	l.Funcs[step.AwaitAgent] = func(ctx context.Context, _ step.Call) (step.Outcome, error) {
		close(reached)
		<-ctx.Done()
		return step.Outcome{}, ctx.Err()
	}
	stop := runLoop(t, w, l)
	if _, err := l.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	<-reached
	stop()
	wantNoClaim(t, w)
	if _, op := w.Read(); op.Steps[op.Current()].State != fleet.StepStarted {
		t.Fatalf("the step is %s", op.Steps[op.Current()].State)
	}
	runLoop(t, w, loop(w, "b", nil))
	live(t, w)(fleet.Managed)
}

// TestAbortEndsAWait: an abort acts at once on a step that allows it.
func TestAbortEndsAWait(t *testing.T) {
	w := contract.NewWorld(t)
	reached := make(chan struct{})
	l := loop(w, "a", nil)
	l.Funcs[step.AwaitAgent] = func(ctx context.Context, _ step.Call) (step.Outcome, error) {
		close(reached)
		<-ctx.Done()
		return step.Outcome{}, ctx.Err()
	}
	runLoop(t, w, l)
	id, err := l.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester")
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	if _, err := l.Ask(t.Context(), w.Node, "abort", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	live(t, w)(fleet.Enrolled)
	// What is put right after it is another operation, which may be the node's by now.
	err = w.Store.View(t.Context(), func(s fleet.Snapshot) error {
		op, _, err := fleet.Get[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, id))
		if op.State != fleet.OperationAborted {
			t.Errorf("operation %s: %+v", op.State, op.Error)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFenced: a worker whose claim can no longer be renewed stops its outside calls before a successor may begin, and what it says afterwards counts
// for nothing.
func TestFenced(t *testing.T) {
	w := contract.NewWorld(t)
	reached, fenced := make(chan struct{}), make(chan struct{})
	l := loop(w, "a", func(l *reconcile.Loop) {
		l.ClaimTTL, l.CallDeadline = 600*time.Millisecond, 200*time.Millisecond
		l.Store = partition{w.Store, reached}
	})
	l.Funcs[step.BMCIdentify] = func(ctx context.Context, _ step.Call) (step.Outcome, error) {
		close(reached)
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("the step was ended by %v, not by its lost claim", ctx.Err())
		}
		close(fenced)
		return step.Outcome{}, nil
	}
	w.Loop = l
	if _, err := l.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for { // a claim may be over before its step begins, on a machine that is slow
			select {
			case <-fenced:
				return
			default:
				//nolint:errcheck // the store refuses this worker everything, which is the point
				l.Once(context.Background(), w.Node)
			}
		}
	}()
	<-fenced
	<-done
	_, op := w.Read()
	if op.Steps[0].State != fleet.StepStarted {
		t.Fatalf("the fenced worker's step is %s", op.Steps[0].State)
	}
	successor := loop(w, "b", func(l *reconcile.Loop) { l.ClaimTTL, l.CallDeadline = 600*time.Millisecond, 200*time.Millisecond })
	runLoop(t, w, successor)
	live(t, w)(fleet.Managed)
	wantNoClaim(t, w)
}

// partition is a store that a worker cannot write to any more once cut is closed.
type partition struct {
	fleet.Store
	cut chan struct{}
}

func (p partition) Commit(ctx context.Context, c fleet.Change) (fleet.Revision, error) {
	select {
	case <-p.cut:
		return 0, fleet.Errorf(fleet.Unavailable, "", "the store cannot be reached")
	default:
		return p.Store.Commit(ctx, c)
	}
}

// TestSuccessorWaits: another worker's claim is waited for, with the longest call on top, whatever the wall clock is set to.
func TestSuccessorWaits(t *testing.T) {
	w := contract.NewWorld(t)
	if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	expires := w.Clock.Add(time.Minute)
	claim := reconcile.Claim{Node: w.Node, Worker: "another", Expires: expires}
	key := fleet.KeyOf(fleet.KindClaim, w.Node)
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: claim}}}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		m, err := w.Loop.Once(t.Context(), w.Node)
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == reconcile.Wait {
			// The claim may have been renewed just before it was seen.
			if want := w.Clock.Add(w.Loop.ClaimTTL + w.Loop.CallDeadline); !m.Until.Equal(want) || w.Loop.Waits(w.Node) == "" {
				t.Fatalf("waits until %s (%q), want %s", m.Until, w.Loop.Waits(w.Node), want)
			}
			w.Set = 24 * time.Hour
			if m, err := w.Loop.Once(t.Context(), w.Node); err != nil || m.Kind != reconcile.Wait {
				t.Fatalf("with the clock set: %s, %v", m.Kind, err)
			}
			w.Set = 0
			w.Settle(time.Hour)
			wantState(t, w, fleet.Managed)
			return
		}
	}
	t.Fatal("the successor did not wait")
}
