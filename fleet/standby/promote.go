package standby

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// askFor bounds a look at the other server.
const askFor = 3 * time.Second

// Claimant is the right of a server that follows to take over.
type Claimant interface {
	// Promise leaves the term alone for its length; false where this server has it.
	Promise() bool
	// Claim returns once this server has the term. How says what is known of the other one.
	Claim(ctx context.Context, how Claim) error
}

// Claim is why a server claims the term.
type Claim int

const (
	// Alone: the other one is not heard of, and this server may take over by itself. It asks once.
	Alone Claim = iota
	// Handed: the other one has stepped down.
	Handed
	// Forced: a person orders it.
	Forced
)

// Promote makes the copy a store that acts, which is durable when it returns without an error. Run must be ended then.
//
// Without force the primary is asked to step down: it stops acting for good, this server takes over its last commits, and nothing is lost. With force the
// primary must not answer. What it committed after the last batch that came is lost, and its last calls to BMCs may still run (handsOff).
func (f *Follower) Promote(ctx context.Context, force bool, by string) (fleet.StoreIdentity, error) {
	if !f.promoting.TryLock() {
		return fleet.StoreIdentity{}, fleet.Errorf(fleet.Conflict, "MC-STANDBY-BUSY", "this server is being promoted already").WithHint("metalctl standby status")
	}
	defer f.promoting.Unlock()
	f.mu.Lock()
	have := f.have && (force || !f.spent)
	f.mu.Unlock()
	if !have {
		return fleet.StoreIdentity{}, fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FOLLOWS", "this server has no whole copy of the other one's store yet").
			WithHint("metalctl standby status")
	}
	if !force {
		return f.handOver(ctx, by)
	}
	handsOff, err := f.mayForce(ctx)
	if err != nil {
		return fleet.StoreIdentity{}, err
	}
	if err := f.claim(ctx, Forced); err != nil {
		return fleet.StoreIdentity{}, err
	}
	return f.promote(ctx, fmt.Sprintf("taken over by force by %s at revision %d; the other server did not answer", by, f.at().Revision), handsOff)
}

func (f *Follower) claim(ctx context.Context, how Claim) error {
	if f.Term == nil {
		return nil
	}
	return f.Term.Claim(ctx, how)
}

// TakeOver makes the copy a store that acts, where the primary is not heard of and the arbiter gives this server the term. It reports false where it is too early.
func (f *Follower) TakeOver(ctx context.Context) (bool, error) {
	f.mu.Lock()
	ready := f.have && !f.spent && f.Mono()-f.heardAt >= Gone
	f.mu.Unlock()
	if !ready || !f.promoting.TryLock() {
		return false, nil
	}
	defer f.promoting.Unlock()
	if err := f.Term.Claim(ctx, Alone); err != nil {
		return false, err
	}
	_, err := f.promote(ctx, fmt.Sprintf("taken over from %s, which was not heard of any more, at revision %d", f.Peer, f.at().Revision), true)
	return err == nil, err
}

func (f *Follower) at() fleet.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pos
}

// handOver takes over with the primary's consent.
func (f *Follower) handOver(ctx context.Context, by string) (id fleet.StoreIdentity, err error) {
	last, err := f.Primary.StepDown(ctx, f.Self.URL)
	if err != nil {
		if kind := fleet.KindOf(err); (kind == fleet.Unavailable || kind == fleet.Timeout) && fleet.CodeOf(err) != "MC-ARBITER-GONE" {
			err = fleet.Errorf(fleet.Unavailable, "MC-STANDBY-PRIMARY-GONE", "the server %s cannot be asked to step down: %w", f.Peer, err).
				WithHint("where its machine is off for certain: metalctl standby promote --force; what is lost then: metalctl standby status")
		}
		return id, err
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !f.until(wait, func() bool { return f.pos == last }) {
		return id, fleet.Errorf(fleet.Timeout, "MC-STANDBY-BEHIND", "the server %s has stepped down at revision %d, and this one is still at %d", f.Peer, last.Revision, f.at().Revision).
			WithHint("nothing is lost as long as that one answers; repeat: metalctl standby promote")
	}
	if err := f.claim(ctx, Handed); err != nil {
		return id, err
	}
	return f.promote(ctx, fmt.Sprintf("taken over from %s, which stepped down for %s at revision %d", f.Peer, by, last.Revision), false)
}

// mayForce makes sure that the primary does not act as far as can be seen, and says whether its last calls may still run.
func (f *Follower) mayForce(ctx context.Context) (handsOff bool, err error) {
	acts := fleet.Errorf(fleet.Refused, "MC-STANDBY-PRIMARY-ACTS", "the server %s answers, and acts", f.Peer).
		WithHint("metalctl standby promote, without --force; or stop that server first")
	ask, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	role, err := f.Primary.Role(ask)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err == nil && role.Role == fleet.RoleActs.Word():
		return false, acts
	case err == nil:
		return true, nil
	}
	// It does not answer, which is what force is for. But where its stream is heard, it lives.
	listen, enough := context.WithTimeout(ctx, 2*Gone)
	defer enough()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !f.silent() {
		select {
		case <-tick.C:
		case <-listen.Done():
			return false, errors.Join(ctx.Err(), acts)
		}
	}
	return true, nil
}

// silent reports whether nothing was heard of the primary for a while.
func (f *Follower) silent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Mono()-f.heardAt >= Gone
}

func (f *Follower) promote(ctx context.Context, why string, handsOff bool) (fleet.StoreIdentity, error) {
	f.applying.Lock()
	defer f.applying.Unlock()
	id, err := f.Copy.Promote(ctx, why, handsOff)
	if err == nil {
		f.promoted = true
	}
	return id, err
}
