package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// updateLease reads a lease and its nodes afresh, lets do change the lease, and commits it. Where do changes nothing, nothing is committed.
func (l *Loop) updateLease(ctx context.Context, id fleet.LeaseID, do func(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, now time.Time) ([]fleet.Event, error)) (fleet.Lease, error) {
	return l.updateLeaseBraked(ctx, id, "", func(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, _ *brakes, now time.Time) ([]fleet.Event, error) {
		return do(x, nodes, now)
	})
}

// updateLeaseBraked is updateLease for what the brakes may hold back; with h the fence's book is there, too.
func (l *Loop) updateLeaseBraked(ctx context.Context, id fleet.LeaseID, h fleet.Harm,
	do func(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, b *brakes, now time.Time) ([]fleet.Event, error)) (fleet.Lease, error) {
	leave, err := l.harm(ctx, h)
	if err != nil {
		return fleet.Lease{}, err
	}
	defer leave()
	for try := 1; ; try++ {
		var d doc[fleet.Lease]
		var name doc[string]
		var b *brakes
		nodes := map[fleet.NodeID]*fleet.Node{}
		err := l.Store.View(ctx, func(s fleet.Snapshot) error {
			var err error
			if err = l.anchor(s); err != nil {
				return err
			}
			if d, err = load[fleet.Lease](s, leaseKey(id)); err != nil {
				return err
			}
			if d.v.Name != "" {
				if name, err = maybe[string](s, nameKey(d.v.Name)); err != nil {
					return err
				}
			}
			if b, err = l.readBrakes(s, h); err != nil {
				return err
			}
			return membersOf(s, d.v, nodes)
		})
		if err != nil {
			if fleet.KindOf(err) == fleet.NotFound {
				err = fleet.Errorf(fleet.NotFound, "MC-LEASE-UNKNOWN", "there is no lease %s", id).WithHint("metalctl lease list")
			}
			return fleet.Lease{}, err
		}
		c := fleet.Change{}
		wasOver := d.v.State.Over()
		if c.Events, err = do(d.v, nodes, b, l.Now().UTC()); err != nil {
			return *d.v, err
		}
		if d.v.State.Over() != wasOver {
			passName(&c, d.v, name)
		}
		if err := d.put(&c); err != nil || len(c.Writes) == 0 {
			return *d.v, err
		}
		if err := b.put(&c); err != nil {
			return *d.v, err
		}
		if _, err = l.Store.Commit(ctx, c); err == nil {
			l.leaseMoved(*d.v, nodes, c.Events)
			return *d.v, nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return *d.v, err
		}
	}
}

// leaseMoved tells what a commit has changed of a lease.
func (l *Loop) leaseMoved(x fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, events []fleet.Event) {
	for _, e := range events {
		l.Log.Info("lease moved", fleet.LogLease, x.ID, fleet.LogNodes, memberNames(x, nodes), "type", e.Type, "text", e.Text)
		for _, m := range x.Members {
			if l.Timeline != nil {
				l.Timeline.AppendTimeline(m.Node, fleet.TimelineEntry{At: e.At, Source: "lease", Text: e.Text})
			}
		}
	}
	l.bells.ringLeases()
}

// passName frees the name of a lease that is over now, and takes it again for one that comes back. Where it has another owner by then, the lease
// comes back without a name: its tenant's data matter more than what it is called.
func passName(c *fleet.Change, x *fleet.Lease, name doc[string]) {
	switch {
	case x.Name == "":
	case x.State.Over() && name.v != nil && *name.v == string(x.ID):
		c.If = append(c.If, fleet.Precondition{Key: name.key, Revision: name.rev})
		c.Writes = append(c.Writes, fleet.Write{Key: name.key})
	case !x.State.Over() && name.v == nil:
		c.If = append(c.If, fleet.Precondition{Key: name.key})
		c.Writes = append(c.Writes, fleet.Write{Key: name.key, Value: string(x.ID)})
	case !x.State.Over() && *name.v != string(x.ID):
		x.Name = ""
	}
}

func membersOf(s fleet.Snapshot, x *fleet.Lease, into map[fleet.NodeID]*fleet.Node) error {
	for _, m := range x.Members {
		n, err := maybe[fleet.Node](s, fleet.KeyOf(fleet.KindNode, m.Node))
		if err != nil {
			return err
		}
		if n.v != nil {
			into[m.Node] = n.v
		}
	}
	return nil
}

// memberNames are the names of a lease's nodes for the log: ten at most, as a lease may have hundreds.
func memberNames(x fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) string {
	var names []string
	for _, m := range x.Members {
		switch n := nodes[m.Node]; {
		case len(names) == 10:
			return strings.Join(names, ",") + fmt.Sprintf(" and %d more", len(x.Members)-10)
		case n != nil:
			names = append(names, n.Name)
		default:
			names = append(names, string(m.Node))
		}
	}
	return strings.Join(names, ",")
}

// ReleaseLease gives all nodes of a lease back. It is legal everywhere and idempotent.
func (l *Loop) ReleaseLease(ctx context.Context, id fleet.LeaseID, by string) (fleet.Lease, error) {
	out, err := l.updateLeaseBraked(ctx, id, fleet.HarmRelease, func(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, b *brakes, now time.Time) ([]fleet.Event, error) {
		if x.State == fleet.LeaseReleasing || x.State.Over() {
			return nil, nil
		}
		if x.Protected {
			return nil, fleet.Errorf(fleet.Refused, "MC-LEASE-PROTECTED", "lease %s is protected against release", firstOf(x.Name, string(id))).
				WithHint("metalctl lease unprotect %s", firstOf(x.Name, string(id)))
		}
		if n, f := b.frozen(x, nodes); f != nil {
			return nil, f.Refuse(*n, "release")
		}
		for _, n := range nodes {
			if n.Protected && n.Lease == id {
				return nil, fleet.Errorf(fleet.Refused, "MC-NODE-PROTECTED", "%s is protected against release", n.Name).WithHint("metalctl node unprotect %s", n.Name)
			}
		}
		if err := b.end(x, nodes, by); err != nil {
			return nil, err
		}
		return moveLease(x, "release", now, "released by "+by)
	})
	return out, l.fenced(ctx, err)
}

// ProtectLease makes the lease refuse its release, verb api.VerbProtect, or ends that, api.VerbUnprotect. Both are idempotent.
func (l *Loop) ProtectLease(ctx context.Context, id fleet.LeaseID, verb, by string) (fleet.Lease, error) {
	return l.updateLease(ctx, id, func(x *fleet.Lease, _ map[fleet.NodeID]*fleet.Node, now time.Time) ([]fleet.Event, error) {
		want := verb == api.VerbProtect
		if x.Protected == want {
			return nil, nil
		}
		if want && (x.State.Over() || x.State == fleet.LeaseReleasing) {
			return nil, fleet.Errorf(fleet.Conflict, "MC-LEASE-VERB", "a lease that is %s cannot be protected", x.State)
		}
		x.Protected = want
		return []fleet.Event{leaseEvent(x, now, "lease.protect", "%s by %s", verb, by)}, nil
	})
}

func moveLease(x *fleet.Lease, verb string, now time.Time, why string) ([]fleet.Event, error) {
	to, err := fleet.MoveLease(x.State, verb)
	if err != nil {
		return nil, err
	}
	from := x.State
	if from != to {
		x.State, x.Since, x.Overdue = to, now, ""
	}
	return []fleet.Event{leaseEvent(x, now, "lease.state", "%s to %s: %s", from, to, why)}, nil
}

// ExtendLease sets a later end. A lease that is over comes back while all its nodes are still in grace.
func (l *Loop) ExtendLease(ctx context.Context, id fleet.LeaseID, r api.LeaseExtend, by string) (fleet.Lease, error) {
	out, err := l.updateLease(ctx, id, func(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, now time.Time) ([]fleet.Event, error) {
		if !r.Until.IsZero() && !r.Until.After(now) {
			e := fleet.Errorf(fleet.Invalid, "MC-LEASE-UNTIL", "a lease cannot end in the past")
			e.Fields = []fleet.FieldError{{Field: "until", Message: r.Until.UTC().Format(time.RFC3339) + " is over already"}}
			return nil, e
		}
		if !r.Until.IsZero() && !x.Request.Until.IsZero() && r.Until.Before(x.Request.Until) && !x.State.Over() {
			return nil, fleet.Errorf(fleet.Conflict, "MC-LEASE-SHORTER", "the lease runs until %s already", x.Request.Until.UTC().Format(time.RFC3339)).
				WithHint("to end it sooner: metalctl lease release %s", id)
		}
		switch x.State {
		case fleet.LeaseFailed, fleet.LeaseReleasing:
			return nil, fleet.Errorf(fleet.Conflict, "MC-LEASE-VERB", "a lease that is %s cannot be extended", x.State)
		case fleet.LeaseReleased:
			for _, m := range x.Members {
				n := nodes[m.Node]
				if m.Out() {
					continue
				}
				if n == nil || n.State != fleet.Grace || n.Lease != id || !x.GraceOver.IsZero() || !l.sure().Before(x.GraceEnds) {
					return nil, fleet.Errorf(fleet.Conflict, "MC-LEASE-GRACE", "the lease is over: %s is not waiting in grace any more", m.Name)
				}
			}
			x.Request.Until, x.WarnedAt, x.Fault, x.Overdue = r.Until, time.Time{}, "", ""
			for i := range x.Members {
				if m := &x.Members[i]; !m.Out() {
					m.State, m.Since = fleet.MemberReserved, now
				}
			}
			return moveLease(x, "extend", now, "extended in its grace time by "+by)
		}
		x.Request.Until, x.WarnedAt, x.Overdue = r.Until, time.Time{}, ""
		until := "without end"
		if !r.Until.IsZero() {
			until = "until " + r.Until.UTC().Format(time.RFC3339)
		}
		return []fleet.Event{leaseEvent(x, now, "lease.extended", "extended %s by %s", until, by)}, nil
	})
	if err == nil {
		for _, m := range out.Members {
			l.Bell(m.Node)
		}
	}
	return out, err
}
