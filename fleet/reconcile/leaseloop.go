package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// leaseMovers is how many leases are moved at once: each move waits for its commit.
const leaseMovers = 64

// leases moves leases until ctx ends: by period all of them, and at every commit those that it may concern.
func (l *Loop) leases(ctx context.Context) {
	period := time.NewTicker(l.Period)
	defer period.Stop()
	all, seen := true, fleet.Revision(0)
	var failed []fleet.LeaseID
	for ctx.Err() == nil {
		changed := l.Store.Changed()
		ids, at, err := l.leasesToMove(ctx, all, seen)
		if err == nil {
			ids = append(ids, failed...)
			slices.Sort(ids)
			failed, err = l.moveLeases(ctx, slices.Compact(ids), leaseMovers)
			all, seen = false, at
		}
		if err != nil && ctx.Err() == nil {
			l.Log.Error("move leases", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-changed:
			// What comes in one burst is looked at together.
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		case <-l.bells.leases:
		case <-period.C:
			all = true
		}
	}
}

// TickLeases makes every move that leases are due, until each of them rests, one lease after the other. One that fails stops no other.
func (l *Loop) TickLeases(ctx context.Context) error {
	ids, _, err := l.leasesToMove(ctx, true, 0)
	if err == nil {
		_, err = l.moveLeases(ctx, ids, 1)
	}
	return err
}

// leasesToMove lists the leases that are not over: all, or those that a commit after seen may concern; at is up to where it looked.
func (l *Loop) leasesToMove(ctx context.Context, all bool, seen fleet.Revision) (ids []fleet.LeaseID, at fleet.Revision, err error) {
	err = l.Store.View(ctx, func(s fleet.Snapshot) (err error) {
		if err = l.anchor(s); err != nil {
			return err
		}
		at = s.Revision()
		if !all {
			known := false
			if ids, known, err = l.leasebook.stirred(s, seen); known || err != nil {
				return err
			}
		}
		ids, err = l.leasebook.all(s)
		return err
	})
	return ids, at, err
}

// moveLeases moves leases until each of them rests, so many at once, and returns those that failed.
func (l *Loop) moveLeases(ctx context.Context, ids []fleet.LeaseID, atOnce int) (failed []fleet.LeaseID, err error) {
	now, stepped := l.clock.earlier(l.Now(), l.Mono())
	if stepped != 0 {
		l.Log.Warn("the clock was set; no lease ends before both clocks say so", "by", stepped)
	}
	if err := l.keepClock(ctx, stepped != 0); err != nil {
		return ids, fmt.Errorf("record the time: %w", err)
	}
	errs := make([]error, len(ids))
	move := func(i int) {
		for moved := true; moved && ctx.Err() == nil && errs[i] == nil; {
			moved, errs[i] = l.moveLeaseOnce(ctx, ids[i], now)
		}
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(atOnce, len(ids)) - 1 {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
				move(i)
			}
		})
	}
	for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
		move(i)
	}
	group.Wait()
	for i, e := range errs {
		if e != nil {
			failed, errs[i] = append(failed, ids[i]), fmt.Errorf("lease %s: %w", ids[i], e)
		}
	}
	return failed, errors.Join(errs...)
}

// moveLeaseOnce makes the one next move of a lease and reports whether there was one.
func (l *Loop) moveLeaseOnce(ctx context.Context, id fleet.LeaseID, now time.Time) (bool, error) {
	var m LeaseMove
	_, err := l.updateLeaseBraked(ctx, id, "", func(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, b *brakes, at time.Time) ([]fleet.Event, error) {
		m = DecideLease(*x, nodes, now)
		if why := b.holdEnd(x, nodes); m.Ends && why != "" {
			m = LeaseMove{Kind: LeaseOverdue, Why: "its time is over, but " + why}
		} else if m.Kind == MemberReplace && why != "" {
			m = LeaseMove{Why: why}
		}
		if m.ofActive = m.Ends && x.State == fleet.LeaseActive; m.ofActive {
			return nil, nil // below, by the fence's leave
		}
		switch m.Kind {
		case LeaseOverdue:
			return goesOn(x, m.Why, at), nil
		case LeaseVerb:
			if m.Fault && x.Fault == "" {
				x.Fault = cut(m.Why, 300)
			}
			return moveLease(x, m.Verb, at, m.Why)
		case LeaseWarn:
			x.WarnedAt = at
			return []fleet.Event{leaseEvent(x, at, "lease.ending", "%s", m.Why)}, nil
		case MemberGone:
			mem := x.Member(m.Node)
			mem.State, mem.Since = mem.Gone(), at
			return []fleet.Event{leaseEvent(x, at, "lease.member", "%s is %s: %s", mem.Name, mem.State, m.Why)}, nil
		}
		return nil, nil
	})
	if err != nil {
		return false, err
	}
	if m.ofActive {
		return l.endByTime(ctx, id, now)
	}
	switch m.Kind {
	case LeaseRest, LeaseOverdue:
		return false, nil
	case MemberReplace:
		err = l.replaceFailed(ctx, id, m.Node)
	case MemberAllocate:
		err = l.allocate(ctx, id, m)
	case MemberDeploy:
		err = l.wishFor(ctx, id, m, fleet.VerbDeploy)
	case MemberRelease:
		err = l.wishFor(ctx, id, m, fleet.VerbRelease)
	}
	return err == nil, err
}

// endByTime ends a lease whose time is over, as far as the fence lets it: a clock or a file that is wrong could end all of them at once.
func (l *Loop) endByTime(ctx context.Context, id fleet.LeaseID, now time.Time) (bool, error) {
	moved := false
	_, err := l.updateLeaseBraked(ctx, id, fleet.HarmRelease, func(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, b *brakes, at time.Time) ([]fleet.Event, error) {
		m := DecideLease(*x, nodes, now)
		if moved = m.Ends && m.Kind == LeaseVerb && b.holdEnd(x, nodes) == ""; !moved {
			return nil, nil
		}
		if err := b.end(x, nodes, byLoop); err != nil {
			return nil, err
		}
		return moveLease(x, m.Verb, at, m.Why)
	})
	err = l.fenced(ctx, err)
	if fleet.CodeOf(err) != "MC-FENCE" {
		return err == nil && moved, err
	}
	why := "its time is over, but " + err.Error()
	if hint := fleet.HintOf(err); hint != "" {
		why += ": " + strings.TrimPrefix(strings.TrimSuffix(hint, "; then the same command again"), "let a second person look: ")
	}
	_, err = l.updateLease(ctx, id, func(x *fleet.Lease, _ map[fleet.NodeID]*fleet.Node, at time.Time) ([]fleet.Event, error) {
		if x.State != fleet.LeaseActive {
			return nil, nil
		}
		return goesOn(x, why, at), nil
	})
	return false, err
}

// goesOn records why a lease goes on beyond its end, and warns once for each reason.
func goesOn(x *fleet.Lease, why string, at time.Time) []fleet.Event {
	if why = cut(why, 300); x.Overdue == why {
		return nil
	}
	x.Overdue = why
	return []fleet.Event{leaseEvent(x, at, "lease.overdue", "%s", why)}
}

// withLease reads the node together with a lease that it does not belong to yet.
func (l *Loop) withLease(ctx context.Context, v *view, id fleet.LeaseID) error {
	return l.Store.View(ctx, func(s fleet.Snapshot) error {
		var err error
		v.lease, err = load[fleet.Lease](s, leaseKey(id))
		return err
	})
}

// allocate reserves one node that the lease has claimed. Where the table refuses it by now, the member has failed.
func (l *Loop) allocate(ctx context.Context, id fleet.LeaseID, m LeaseMove) error {
	err := l.update(ctx, m.Node, func(v *view) error {
		n := v.node.v
		if n.Lease != "" && n.Lease != id {
			return l.memberFails(ctx, v, id, fmt.Sprintf("it belongs to lease %s", n.Lease))
		}
		if err := l.withLease(ctx, v, id); err != nil {
			return err
		}
		f := v.guards(fleet.VerbAllocate)
		f.Lease = id
		if err := v.allocatable(f); err != nil {
			return l.memberFails(ctx, v, id, err.Error())
		}
		n.Lease = id
		return v.move(fleet.VerbAllocate, f, v.lease.v.CreatedBy, "lease "+firstOf(v.lease.v.Name, string(id)))
	})
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		_, err = l.updateLease(ctx, id, func(x *fleet.Lease, _ map[fleet.NodeID]*fleet.Node, at time.Time) ([]fleet.Event, error) {
			mem := x.Member(m.Node)
			mem.State, mem.Since, mem.Proof = fleet.MemberFailed, at, "the node is gone"
			return []fleet.Event{leaseEvent(x, at, "lease.member", "%s failed: the node is gone", mem.Name)}, nil
		})
	}
	return err
}

func (l *Loop) memberFails(ctx context.Context, v *view, id fleet.LeaseID, why string) error {
	if v.lease.v == nil || v.lease.v.ID != id {
		if err := l.withLease(ctx, v, id); err != nil {
			return err
		}
	}
	if mem := v.lease.v.Member(v.node.v.ID); mem != nil {
		v.setMember(mem, fleet.MemberFailed, cut(why, 200))
	}
	return nil
}

// wishFor stores the lease's wish for one of its nodes; the node's own worker plans and does it. A release ends what runs first.
func (l *Loop) wishFor(ctx context.Context, id fleet.LeaseID, m LeaseMove, verb fleet.Verb) error {
	err := l.update(ctx, m.Node, func(v *view) error {
		n := v.node.v
		if n.Lease != id || n.Wish != nil {
			return nil
		}
		if verb == fleet.VerbDeploy {
			if _, err := fleet.Move(n.State, verb, v.guards(verb)); err != nil {
				v.setMember(v.member(), fleet.MemberFailed, cut(err.Error(), 200))
				return nil
			}
		}
		if v.op.v != nil {
			if verb != fleet.VerbRelease {
				return nil
			}
			v.op.v.Abort = true
		}
		n.Wish = &fleet.Wish{Verb: verb, By: "lease " + firstOf(v.lease.v.Name, string(id)), At: v.now, Operation: fleet.OperationID(l.NewID())}
		v.event("node.wish", "%s: %s asked by %s: %s", n.Name, verb, n.Wish.By, m.Why)
		return nil
	})
	if err == nil {
		l.interrupted(ctx, m.Node)
		l.Bell(m.Node)
	}
	return err
}

// comeBack wishes that a node in grace is started again for its tenant.
func (l *Loop) comeBack(v *view) error {
	n := v.node.v
	n.Wish = &fleet.Wish{Verb: fleet.VerbResume, By: "lease " + firstOf(v.lease.v.Name, string(n.Lease)), At: v.now, Operation: fleet.OperationID(l.NewID())}
	v.event("node.wish", "%s: resume asked, its lease was extended", n.Name)
	return nil
}
