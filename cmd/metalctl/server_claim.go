//go:build !ramdisk

package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/term"
)

// Promise implements standby.Claimant.
func (t *tenure) Promise() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cand != nil && t.cand.Promise(sinceBoot())
}

// Claim implements standby.Claimant.
func (t *tenure) Claim(ctx context.Context, how standby.Claim) error {
	end := sinceBoot() + 2*term.Length
	for {
		var wait time.Duration
		var taken bool
		a, err := t.ask(ctx, func(now time.Duration) (q term.Request, ok bool) {
			if t.cand == nil {
				return q, false // this server has come to act meanwhile
			}
			if how == standby.Handed {
				t.cand.Released()
			}
			q, wait = t.cand.Claim(now, how == standby.Forced)
			return q, wait == 0
		}, func(sent, now time.Duration, _ term.Request, a term.Reply) {
			// A grant does not count where a promise was made meanwhile.
			if taken = t.cand != nil && t.cand.Heard(a); taken {
				t.right = term.Taken(t.self, sent, now, a)
			}
		})
		switch {
		case err != nil && how == standby.Forced:
			return fleet.Errorf(fleet.KindOf(err), fleet.CodeOf(err), "%w", err).
				WithHint("start the arbiter. Where it is gone, too: start this server without arbiter, and then metalctl standby promote --force; if the other one lives and has the term, both act")
		case err != nil:
			return err
		case taken:
			t.log.Warn("this server has the term and takes over", "term", a.State.Number, "since_boot", sinceBoot().Seconds())
			return nil
		case a.Granted:
			wait = lookForTerm
		case wait == 0:
			wait = time.Duration(a.WaitMS) * time.Millisecond
		}
		if how == standby.Alone && (a.Why == "" || a.Why == term.Early || a.Why == term.Stale) {
			return errTooEarly
		}
		if how == standby.Alone || wait == 0 || sinceBoot()+wait > end {
			return errTerm(a)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(wait+50*time.Millisecond, time.Second)):
		}
	}
}

// errTooEarly is no failure: a server that follows asks again a moment later.
var errTooEarly = errors.New("it is too early to take over")

// errTerm says why the arbiter refused.
func errTerm(a term.Reply) error {
	switch a.Why {
	case term.Unnamed:
		return fleet.Errorf(fleet.Refused, "MC-ARBITER-REFUSED", "the arbiter has lent the term to %s, which has not named this server as its standby", cmp.Or(a.State.Holder, "nobody")).
			WithHint("give both servers the same arbiter. Where that server is off for certain: start this one without arbiter, then metalctl standby promote --force")
	case term.Behind:
		return fleet.Errorf(fleet.Refused, "MC-ARBITER-REFUSED", "the arbiter does not lend this server the term: it lacks more than a second of what %s has acknowledged", a.State.Holder).
			WithHint("start that one again; where it is gone for good: metalctl standby promote --force")
	}
	return fleet.Errorf(fleet.Refused, "MC-ARBITER-REFUSED", "the arbiter does not lend this server the term: %s has it", cmp.Or(a.State.Holder, "somebody")).
		WithHint("metalctl standby status --server %s", cmp.Or(a.State.Holder, "URL"))
}
