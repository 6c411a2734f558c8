package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Claim is a worker's right to act on a node's BMC and wires until a time. It is written in the commit that journals a step's start and goes in
// the one that journals its end, so that it exists exactly while somebody may be writing to the outside.
type Claim struct {
	Node   fleet.NodeID `json:"node"`
	Worker string       `json:"worker"`
	// Epoch is the operation and step that it was taken for.
	Operation fleet.OperationID `json:"operation"`
	Index     int               `json:"index"`
	Try       int               `json:"try"`
	Expires   time.Time         `json:"expires"`
}

// Keep implements fleet.Keeper.
func (c Claim) Keep() any {
	c.Expires = c.Expires.Round(0)
	return &c
}

// errFenced ends a step whose claim could not be kept: a successor may act from now on.
var errFenced = errors.New("the claim on the node could not be renewed in time")

// errInterrupted ends a step that somebody aborted.
var errInterrupted = errors.New("aborted")

// sighting is when this process first saw another worker's claim as it stands, by the clock that nobody sets.
type sighting struct {
	rev  fleet.Revision
	mono time.Duration
}

// freeAt is when this worker may act on a node whose claim is another's: a whole claim and the longest call after it was last seen renewed. What
// the claim says of its end was written by another clock, and this one may have been set.
func (l *Loop) freeAt(d doc[Claim], now time.Time) time.Time {
	if d.v == nil || d.v.Worker == l.Worker {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	seen, ok := l.sightings[d.v.Node]
	if !ok || seen.rev != d.rev {
		seen = sighting{d.rev, l.Mono()}
		l.sightings[d.v.Node] = seen
	}
	return now.Add(seen.mono + l.ClaimTTL + l.CallDeadline - l.Mono())
}

// handsOff is for how long nothing is written to the outside yet, because the server that this one took over from may have a call under way.
func (l *Loop) handsOff() time.Duration {
	if l.HandsOff == 0 {
		return 0
	}
	return l.HandsOff - l.age()
}

// age is how long this process is there, by the clock that nobody sets.
func (l *Loop) age() time.Duration {
	l.clock.mu.Lock()
	defer l.clock.mu.Unlock()
	return l.Mono() - l.clock.start0
}

// guarded returns a context for outside writes under a claim that was just committed. It ends CallDeadline before the claim does unless the claim
// is renewed, which happens until stop is called.
func (l *Loop) guarded(ctx context.Context, id fleet.NodeID, mine Claim) (guarded context.Context, interrupt context.CancelCauseFunc, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done, over := make(chan struct{}), make(chan struct{})
	safe := l.ClaimTTL - l.CallDeadline
	go func() {
		defer close(over)
		fence := time.NewTimer(safe)
		defer fence.Stop()
		tick := time.NewTicker(min(l.ClaimTTL/3, safe/2))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-fence.C:
				cancel(errFenced)
				return
			case <-tick.C:
				asked := time.Now()
				renewing, end := context.WithTimeout(ctx, safe/2)
				err := l.renew(renewing, id, mine)
				end()
				if err == nil {
					fence.Reset(safe - time.Since(asked))
				} else if fleet.KindOf(err) == fleet.Conflict {
					cancel(errFenced)
					return
				}
			}
		}
	}()
	return ctx, cancel, func() {
		close(done)
		<-over
		cancel(nil)
	}
}

// renew extends a claim that is still mine; Conflict where it is another's by now.
func (l *Loop) renew(ctx context.Context, id fleet.NodeID, mine Claim) error {
	var d doc[Claim]
	err := l.Store.View(ctx, func(s fleet.Snapshot) error {
		var err error
		d, err = maybe[Claim](s, fleet.KeyOf(fleet.KindClaim, id))
		return err
	})
	if err != nil {
		return err
	}
	if d.v == nil || !d.v.same(mine) {
		return fleet.Errorf(fleet.Conflict, "MC-CLAIM-LOST", "the claim on node %s is another worker's", id)
	}
	d.v.Expires = l.Now().UTC().Add(l.ClaimTTL)
	var c fleet.Change
	if err := d.put(&c); err != nil || len(c.Writes) == 0 {
		return err
	}
	_, err = l.Store.Commit(ctx, c)
	return err
}

func (c Claim) same(d Claim) bool {
	return c.Worker == d.Worker && c.Operation == d.Operation && c.Index == d.Index && c.Try == d.Try
}
