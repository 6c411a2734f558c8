//go:build !ramdisk

package main

import (
	"context"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/standby"
)

// held says why this server may not act; nil: it may.
func (t *tenure) held() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.right != nil && t.right.Held(sinceBoot()) {
		return nil
	}
	return t.errFencedLocked()
}

func (t *tenure) errFencedLocked() error {
	if t.right != nil {
		if s := t.right.Last().State; s.Holder != "" && s.Holder != t.self {
			return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FENCED", "the arbiter has lent the term to %s, so this server does not act", s.Holder).WithHint("ask that one: --server %s", s.Holder)
		}
	}
	return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FENCED", "this server hears neither of the arbiter nor of its standby, which may take over, so it does not act").
		WithHint("metalctl standby status; it goes on by itself as soon as one of the two answers")
}

// settled waits until what was committed here may be acknowledged and acted upon.
func (t *tenure) settled(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, standby.Gone)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		lag := time.Duration(1<<63 - 1)
		t.mu.Lock()
		hub := t.hub
		t.mu.Unlock()
		if hub != nil {
			lag, _ = hub.Lag()
		}
		t.mu.Lock()
		now := sinceBoot()
		held := t.right != nil && t.right.Held(now)
		ok := held && t.right.Covered(now, lag)
		err := t.errFencedLocked()
		t.mu.Unlock()
		switch {
		case ok:
			return nil
		case !held:
			return err
		}
		select {
		case <-ctx.Done():
			return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FENCED", "the standby lacks what this server has just done, and the arbiter cannot be told: it may be lost").
				WithHint("metalctl standby status; then look whether it was done, and repeat the command")
		case <-tick.C:
		}
	}
}

// fill says how this server stands with the arbiter.
func (t *tenure) fill(out *api.Standby) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := sinceBoot()
	last := t.lastLocked()
	v := &api.Tenure{URL: t.url, Reached: t.problem == nil && last.Mark != "", Automatic: t.automatic, Holder: last.State.Holder, Term: last.State.Number, Even: last.State.Even}
	if t.right != nil {
		left, promise := t.right.Left(now)
		v.Needed, v.TermSeconds, v.PromiseSeconds = t.right.Bound(), left.Seconds(), promise.Seconds()
	}
	if !v.Reached {
		v.SilentSeconds = (now - t.answeredAt).Seconds()
	}
	if t.problem != nil {
		v.Problem, v.Code = t.problem.Error(), fleet.CodeOf(t.problem)
	}
	out.Arbiter = v
}
