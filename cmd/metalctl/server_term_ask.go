//go:build !ramdisk

package main

import (
	"context"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/term"
)

// ask puts one question. What comes of it is for heard, under the lock.
func (t *tenure) ask(ctx context.Context, question func(now time.Duration) (term.Request, bool), heard func(sent, now time.Duration, q term.Request, a term.Reply)) (term.Reply, error) {
	t.calling.Lock()
	defer t.calling.Unlock()
	for try := 0; ; try++ {
		t.mu.Lock()
		sent := sinceBoot()
		q, ok := question(sent)
		t.mu.Unlock()
		if !ok {
			return term.Reply{}, nil
		}
		a, err := t.cl.AskTerm(ctx, q)
		t.mu.Lock()
		now := sinceBoot()
		if err != nil {
			if ctx.Err() == nil && fleet.KindOf(err) != fleet.Denied {
				err = fleet.Errorf(fleet.Unavailable, "MC-ARBITER-GONE", "the arbiter %s does not answer: %w", t.url, err).WithHint("start it again; while it is away nobody takes over")
			}
			if t.problem == nil && ctx.Err() == nil {
				t.log.Warn("the arbiter does not answer", "peer", t.url, "err", err)
			}
			t.problem, t.next = err, now+time.Second
			t.mu.Unlock()
			return a, err
		}
		if t.problem != nil {
			t.log.Info("the arbiter answers again", "peer", t.url)
		}
		t.problem, t.answeredAt = nil, now
		heard(sent, now, q, a)
		t.tellLocked(now)
		t.mu.Unlock()
		if a.Why != term.Stale || try == 3 {
			return a, nil
		}
	}
}

func (t *tenure) renew(ctx context.Context, standbyURL string, even bool) (term.Reply, error) {
	return t.ask(ctx, func(now time.Duration) (term.Request, bool) {
		if t.right == nil {
			return term.Request{}, false
		}
		q := t.right.Renewal(now, standbyURL, even)
		t.wanted, t.even, t.next = standbyURL, q.Even, now+term.RenewEvery
		return q, true
	}, t.heardLocked)
}

func (t *tenure) heardLocked(sent, now time.Duration, q term.Request, a term.Reply) {
	if t.right == nil {
		return
	}
	if !t.right.Heard(sent, now, q, a) {
		t.problem = fleet.Errorf(fleet.Conflict, "MC-ARBITER-STRANGER", "another arbiter answers at %s than before, or it has lost its file", t.url).
			WithHint("see that one server acts and the other one follows; then start both anew: metalctl help MC-ARBITER-STRANGER")
	}
	switch {
	case !a.Granted:
		t.next = min(t.next, now+time.Second)
	case q.Kind == term.Renew && q.Standby != t.wanted:
		t.next = now // it is named now
	}
}

// look sees whether the arbiter answers.
func (t *tenure) look(ctx context.Context) (term.Reply, error) {
	return t.ask(ctx, func(now time.Duration) (term.Request, bool) {
		if t.right == nil {
			t.next = now + lookAtArbiter
		}
		return term.Request{Kind: term.Look, Server: t.self, Mark: t.lastLocked().Mark}, true
	}, func(sent, now time.Duration, q term.Request, a term.Reply) {
		if t.cand != nil {
			t.cand.Heard(a)
		}
		t.heardLocked(sent, now, q, a)
	})
}

// lastLocked is the arbiter's newest answer.
func (t *tenure) lastLocked() (last term.Reply) {
	switch {
	case t.right != nil:
		last = t.right.Last()
	case t.cand != nil:
		last = t.cand.Last()
	}
	return last
}

// yield hands the term to the server at that URL. This one has no right any more, whatever comes of it.
func (t *tenure) yield(ctx context.Context, to string) error {
	a, err := t.ask(ctx, func(now time.Duration) (term.Request, bool) {
		return t.right.Yielding(now, to), true
	}, t.heardLocked)
	if err == nil && !a.Granted {
		err = errTerm(a)
	}
	return err
}

// handOver hands the term to the follower, once that has everything up to pos.
func (t *tenure) handOver(ctx context.Context, hub *standby.Hub, pos fleet.Position, to string) error {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if !hub.Even(wait, pos) {
		return fleet.Errorf(fleet.Timeout, "MC-STANDBY-BEHIND", "the server %s does not come to where this one is", to).WithHint("metalctl standby status; then repeat: metalctl standby promote")
	}
	return t.yield(ctx, to)
}
