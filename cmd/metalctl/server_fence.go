//go:build !ramdisk

package main

import (
	"cmp"
	"context"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/standby"
)

// writable is the brakes' last gate: it is asked immediately before each write to the node's BMC.
func (b *bmcs) writable(ctx context.Context, id fleet.NodeID) error {
	if b.fence != nil {
		if err := b.fence.mayWrite(ctx); err != nil {
			return err
		}
	}
	err := b.store.View(ctx, func(s fleet.Snapshot) error { return fleet.Writable(s, id) })
	if err == nil && b.fence != nil {
		err = b.fence.begins(ctx)
	}
	return err
}

// written is told of the end of each write that writable let pass.
func (b *bmcs) written() {
	if b.fence != nil {
		b.fence.ended()
	}
}

// fence says whether this server is the one that acts.
type fence interface {
	// mayWrite is asked before each write to a BMC, and may wait.
	mayWrite(context.Context) error
	// begins is asked at last, after everything else; ended is told when a write that it let pass is over.
	begins(context.Context) error
	ended()
}

var _ fence = (*actingSide)(nil)

// mayWrite is asked before each write to a BMC. It waits for the calls of the server before to be over, and refuses where another server has taken over: a
// process that stood still for a while, or a machine that slept, would find that too late otherwise.
func (a *actingSide) mayWrite(ctx context.Context) error {
	if a.calm != nil {
		if end, ok := ctx.Deadline(); ok && end.Before(a.until) && time.Now().Before(a.until) {
			return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-HANDS-OFF", "nothing is written to BMCs for another %s: the server before this one may still be speaking to them",
				secondsText(time.Until(a.until).Seconds())).WithHint("metalctl standby status; then repeat the command")
		}
		select {
		case <-a.calm:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f := a.hub.Follower()
	if f == nil || a.hub.Connected() || !a.due() {
		return nil
	}
	v, err := a.ask(ctx, f.URL)
	if err != nil || !v.took {
		return ctx.Err() // it does not answer, or has not taken over
	}
	select {
	case a.overtaken <- struct{}{}:
	default:
	}
	return errOvertaken(v.by)
}

func errOvertaken(by string) error {
	return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-RETIRED", "the server %s has taken over from this one", by).WithHint("ask that one: --server %s", by)
}

// due reports whether the other server was not asked for longer than it is asked by itself.
func (a *actingSide) due() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.askedAt) > standby.Gone
}

// ask asks the other server whether it has taken over.
func (a *actingSide) ask(ctx context.Context, url string) (heardRole, error) {
	ask, err := newAsker(ctx, a.db, url)
	if err != nil {
		return heardRole{}, err
	}
	v, err := ask.verdict(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.askedAt = time.Now()
	return v, err
}

// begins counts a write, unless this server steps down or has lost the right to act: then none begins any more. The engine's are left to whoever takes over,
// so that they wait for it to be told to end instead of failing.
func (a *actingSide) begins(ctx context.Context) error {
	settled := a.tenure.settled(ctx)
	a.mu.Lock()
	refuses := cmp.Or(a.refuses, settled)
	if refuses == nil {
		a.writes++
	}
	a.mu.Unlock()
	if refuses == nil {
		return nil
	}
	select {
	case <-a.halted:
	case <-ctx.Done():
	}
	return refuses
}

func (a *actingSide) ended() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.writes--; a.writes == 0 && a.idle != nil {
		close(a.idle)
		a.idle = nil
	}
}

// dry waits until nothing is being written to BMCs. Nothing begins meanwhile.
func (a *actingSide) dry(ctx context.Context) error {
	a.mu.Lock()
	if a.writes == 0 {
		a.mu.Unlock()
		return nil
	}
	if a.idle == nil {
		a.idle = make(chan struct{})
	}
	idle := a.idle
	a.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
