//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// following keeps operations up to date: it listens to events and progress, and reads afresh what they are about. A connection that breaks is resumed
// after the last event seen; where the server no longer keeps what follows, everything is read afresh. Whatever is missed, it is read every 15 s.
type following struct {
	cl *api.Client
	// lease is whose members' operations are followed, those that shows chooses; "" where the operations alone are.
	lease fleet.LeaseID
	shows func(api.Operation) bool

	mu    sync.Mutex // guards the rest
	order []fleet.OperationID
	ops   map[fleet.OperationID]api.Operation
	stale map[fleet.OperationID]bool
	now   api.Lease
	// again: the lease is to be read afresh.
	again bool
	// lost is since when the server does not answer; zero where it does.
	lost time.Time
}

func newFollowing(cl *api.Client, ids []fleet.OperationID) *following {
	f := &following{cl: cl, ops: map[fleet.OperationID]api.Operation{}, stale: map[fleet.OperationID]bool{}, shows: func(api.Operation) bool { return true }}
	f.add(ids...)
	return f
}

// add follows further operations; mu is held, or nobody else knows f yet.
func (f *following) add(ids ...fleet.OperationID) {
	for _, id := range ids {
		if id != "" && !slices.Contains(f.order, id) {
			f.order = append(f.order, id)
			f.stale[id] = true
		}
	}
}

// watch listens until ctx ends; it returns early only where the server refuses.
func (f *following) watch(ctx context.Context) error {
	for {
		err := f.cl.Watch(ctx, api.WatchOptions{After: api.EventsNow, Event: f.event, Progress: f.progress, Position: f.position, Broken: f.open})
		if fleet.CodeOf(err) != "MC-EVENTS-GONE" {
			return err
		}
		if !pause(ctx, 250*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (f *following) event(e fleet.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.order {
		// One that is not known yet may be on its way, as it was before this.
		if op, known := f.ops[id]; !known || op.Node == e.Node && !op.State.Over() {
			f.stale[id] = true
		}
	}
	f.again = f.again || e.Lease == f.lease || e.Subject == fleet.KeyOf(fleet.KindLease, f.lease)
	return nil
}

// position: a stream has begun, maybe after a break, or is quiet for a while.
func (f *following) position(int64) error {
	f.open()
	return nil
}

// open marks everything that is not over to be read afresh.
func (f *following) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.order {
		if !f.ops[id].State.Over() {
			f.stale[id] = true
		}
	}
	f.again = true
}

func (f *following) progress(p fleet.Progress) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op, ok := f.ops[p.Operation]; ok && !op.State.Over() {
		op.Progress = &p
		op.Percent = op.HowFar()
		f.ops[p.Operation] = op
	}
	return nil
}

// readAtOnce is how many operations are asked for side by side.
const readAtOnce = 8

// refresh reads what is stale. A server that does not answer is no error: it is asked again.
func (f *following) refresh(ctx context.Context) error {
	f.mu.Lock()
	lease, again := f.lease, f.again && f.lease != ""
	f.again = false
	f.mu.Unlock()
	if again {
		l, err := f.cl.Lease(ctx, string(lease))
		f.mu.Lock()
		if err == nil {
			f.now = l
			for _, m := range l.Members {
				f.add(m.Operation)
			}
		} else {
			f.again = true
		}
		f.mu.Unlock()
		if err := f.answered(ctx, err); err != nil {
			return fmt.Errorf("follow lease %s: %w", lease, err)
		}
	}
	f.mu.Lock()
	var ids []fleet.OperationID
	for id := range f.stale {
		ids = append(ids, id)
	}
	clear(f.stale)
	f.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	// One alone goes first: a server that is away is not asked a hundred times.
	if err := f.read(ctx, ids[0]); err != nil {
		return err
	}
	ids = ids[1:]
	var wg sync.WaitGroup
	gate := make(chan struct{}, readAtOnce)
	errs := make([]error, len(ids))
	for i, id := range ids {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			errs[i] = f.read(ctx, id)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *following) read(ctx context.Context, id fleet.OperationID) error {
	f.mu.Lock()
	if skip := !f.lost.IsZero() && len(f.stale) > 0; skip {
		f.stale[id] = true
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	op, err := f.cl.Operation(ctx, id, 0)
	f.mu.Lock()
	if err == nil {
		f.take(op)
	} else {
		f.stale[id] = true
	}
	f.mu.Unlock()
	if err := f.answered(ctx, err); err != nil {
		return fmt.Errorf("follow operation %s: %w", id, err)
	}
	return nil
}

// answered notes whether the server answers, and returns only errors that waiting does not mend.
func (f *following) answered(ctx context.Context, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.lost = time.Time{}
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case fleet.KindOf(err) == fleet.Unavailable || fleet.KindOf(err) == fleet.Timeout:
		if f.lost.IsZero() {
			f.lost = time.Now()
		}
		return nil
	}
	return err
}

// take keeps an answer; mu is held. A server that was restarted has forgotten how far a step is until it is told anew: what was seen still counts.
func (f *following) take(op api.Operation) {
	old, known := f.ops[op.ID]
	if known && old.Revision > op.Revision {
		return // an answer that was overtaken
	}
	if i := op.Current(); known && op.Progress == nil && old.Progress != nil && !op.State.Over() && i >= 0 && i == old.Current() &&
		op.Steps[i].Name == old.Progress.Step && op.Steps[i].Try == old.Steps[i].Try {
		op.Progress = old.Progress
		op.Percent = op.HowFar()
	}
	f.ops[op.ID] = op
}

// snapshot is what is known now, in order, and since when the server does not answer.
func (f *following) snapshot() (ops []api.Operation, lease api.Lease, lost time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.order {
		if op, ok := f.ops[id]; ok && f.shows(op) {
			ops = append(ops, op)
		}
	}
	return ops, f.now, f.lost
}

// run draws what it follows until over says so. An interrupt only detaches; again is what to type to follow anew.
func (f *following) run(ctx context.Context, p *program, again string, over func([]api.Operation, api.Lease) bool) ([]api.Operation, api.Lease, error) {
	watching, stop := context.WithCancel(ctx)
	refused := make(chan error, 1)
	go func() { refused <- f.watch(watching) }()
	ended := false
	defer func() {
		stop()
		if !ended {
			<-refused
		}
	}()
	d := newDrawer(p.stderr)
	for {
		err := f.refresh(ctx)
		ops, lease, lost := f.snapshot()
		if err == nil {
			d.draw(ops, lost)
			if over(ops, lease) {
				return ops, lease, nil
			}
			select {
			case <-ctx.Done():
			case err = <-refused:
				ended = true
			case <-time.After(250 * time.Millisecond):
				continue
			}
		}
		if ctx.Err() != nil {
			fmt.Fprintf(p.stderr, "no longer following; the work goes on. To follow it again: %s\n", again)
			return ops, lease, &exitError{code: exitTimeout}
		}
		return ops, lease, err
	}
}

// followOperations follows until every operation is over. The error says how many failed; exit code 7 for one, 8 for some of many.
func followOperations(ctx context.Context, p *program, c *api.Client, ids []fleet.OperationID) error {
	ops, err := watchOperations(ctx, p, c, ids)
	if err != nil {
		return err
	}
	return verdict(p, ops)
}

func watchOperations(ctx context.Context, p *program, c *api.Client, ids []fleet.OperationID) ([]api.Operation, error) {
	ops, _, err := newFollowing(c, ids).run(ctx, p, followCommand(ids), func(ops []api.Operation, _ api.Lease) bool {
		return len(ops) == len(ids) && !slices.ContainsFunc(ops, func(o api.Operation) bool { return !o.State.Over() })
	})
	return ops, err
}

// followCommand is what shows these operations again.
func followCommand(ids []fleet.OperationID) string {
	const most = 4
	if len(ids) > most {
		return "metalctl operation list --state running"
	}
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = string(id)
	}
	return "metalctl operation show " + strings.Join(words, " ") + " --follow"
}

func verdict(p *program, ops []api.Operation) error {
	failed := 0
	for _, op := range ops {
		if op.State == fleet.OperationDone {
			continue
		}
		failed++
		if op.Error != nil {
			fmt.Fprintf(p.stderr, "%s: %s: %s\n", op.NodeName, op.Use, printable(op.Error.Detail))
			if op.Error.Hint != "" {
				fmt.Fprintf(p.stderr, "  try: %s\n", printable(fleet.HintFor(op.Error.Hint, op.NodeName)))
			}
			if op.Error.Code != "" {
				fmt.Fprintf(p.stderr, "  more: metalctl help %s\n", printable(op.Error.Code))
			}
		}
	}
	switch {
	case failed == 0:
		return nil
	case failed < len(ops):
		return &exitError{exitSomeFailed, fmt.Errorf("%d of %d nodes failed", failed, len(ops))}
	case ops[0].State == fleet.OperationAborted:
		return &exitError{exitTimeout, fmt.Errorf("%s of %s was aborted", ops[0].Use, ops[0].NodeName)}
	default:
		return &exitError{exitNodeFailed, fmt.Errorf("%s of %s failed", ops[0].Use, ops[0].NodeName)}
	}
}

// followLease follows every member's operation until the lease is where it should be, or is over.
func followLease(ctx context.Context, p *program, cl *api.Client, l api.Lease, want fleet.LeaseState) (api.Lease, error) {
	f := newFollowing(cl, nil)
	f.lease, f.now, f.again = l.ID, l, true
	f.shows = func(op api.Operation) bool { return (want == fleet.LeaseReleased) == (op.Use == "release") }
	_, l, err := f.run(ctx, p, "metalctl lease show "+string(l.ID), func(_ []api.Operation, l api.Lease) bool {
		return l.State == want || l.State.Over() || want == fleet.LeaseActive && l.State == fleet.LeaseReleasing
	})
	if err == nil && l.State != want {
		err = &exitError{exitNodeFailed, fleet.Errorf(fleet.Broken, "MC-LEASE-FAILED", "lease %s is %s: %s", l.ID, l.State, orDash(l.Fault)).
			WithHint("metalctl lease show %s", l.ID)}
	}
	return l, err
}
