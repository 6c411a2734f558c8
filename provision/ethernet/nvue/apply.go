package nvue

import (
	"context"
	"errors"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// Apply writes the plan as one revision, once. It is a Conflict, and nothing is written, where ports are not as the plan expects, or somebody else is at work.
// Unless the plan only takes away, the switch goes back by itself when Verify does not come: what is given must be proven, what is taken stays taken.
func (d *Driver) Apply(ctx context.Context, plan fleet.WirePlan) error {
	if err := d.permit(plan); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*d.settle)
	defer cancel()
	l, err := d.look(ctx)
	if err != nil {
		return err
	}
	if len(plan.Changes) > 0 && plan.Unshown(l.set) == "" { // somebody was interrupted right here, or it was done before
		if plan.Takes {
			return nil
		}
		if _, err := d.sw.Back(l.set, plan); err != nil || l.waits() != nil {
			return err
		}
	}
	switch {
	case l.flight != nil:
		return fleet.WireConflict("revision %s of %s is %s", clip(l.flight.ID), d.sw.Name, l.flight.State)
	case l.set.Mark != plan.Expect:
		return fleet.WireConflict("ports of %s are not as they were when the plan was made", d.sw.Name)
	case len(plan.Changes) == 0:
		return nil
	}
	if other := plan.Unmet(l.set); other != "" {
		return fleet.WireConflict("%s is not as it was when the plan was made: %s", d.sw.Name, other)
	}
	rev, err := d.client.create(ctx)
	if err != nil {
		return err
	}
	if err := d.stage(ctx, l, plan, rev); err != nil {
		return d.dropped(ctx, rev, err)
	}
	return d.bring(ctx, l, plan, rev)
}

// dropped discards a revision that was not applied.
func (d *Driver) dropped(ctx context.Context, rev string, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	return errors.Join(why, d.client.discard(ctx, rev))
}

// stage writes the change into a revision, and makes sure that the revision differs from what is applied in nothing else.
func (d *Driver) stage(ctx context.Context, l *look, plan fleet.WirePlan, rev string) error {
	if err := d.client.patch(ctx, rev, l.config.change(plan.Changes)); err != nil {
		return err
	}
	a := allow(d.sw, d.bridge, plan.Changes)
	for _, way := range []struct {
		from, to string
		back     bool
	}{{"applied", rev, false}, {rev, "applied", true}} {
		diff, err := d.client.difference(ctx, way.from, way.to)
		if err != nil {
			return err
		}
		if err := a.check(diff, way.back); err != nil {
			return fleet.WireConflict("the change of %s would touch more than its plan does: %w", d.sw.Name, err)
		}
	}
	c, err := d.read(ctx, rev)
	if err != nil {
		return err
	}
	staged, err := d.settings(c)
	if err != nil {
		return err
	}
	if other := plan.Unshown(staged); other != "" {
		return fleet.Errorf(fleet.Refused, "MC-NET-INVALID", "the change of %s would not do: %s", d.sw.Name, other).WithHint("take away by hand what the port has beside its VLANs")
	}
	for i, p := range staged.Ports {
		was := l.set.Ports[i]
		if !slices.Contains(a.ports, p.Port) && (!p.Carries.Equal(was.Carries) || p.Doubt != was.Doubt) {
			return fleet.WireConflict("port %s of %s has gone on since the plan was made", p.Port, d.sw.Name)
		}
	}
	now, err := d.client.revisions(ctx)
	if err != nil {
		return err
	}
	return d.alone(l.revisions, now, rev, false)
}

// alone is a Conflict where a revision other than ours was applied, or began to be, between two readings. One that is queued is behind ours where ours has
// begun, and may be where both are queued: then it steps back, or ours is overtaken.
func (d *Driver) alone(before, now map[string]Revision, ours string, queued bool) error {
	for id, r := range now {
		was, known := before[id]
		switch {
		case id == ours || known && was.State == r.State:
		case queued && r.State == "apply":
		case slices.Contains(done, was.State): // ours or another one came after it
		case !slices.Contains(idle, r.State) || r.State == "inactive" || r.State == "previous":
			return fleet.WireConflict("somebody else applied revision %s of %s meanwhile, which is %s", clip(id), d.sw.Name, r.State)
		}
	}
	return nil
}

// bring has the switch take a revision, and returns when it does what the revision says.
func (d *Driver) bring(ctx context.Context, l *look, plan fleet.WirePlan, rev string) error {
	confirm := d.confirm
	if plan.Takes {
		confirm = 0
	}
	if err := d.client.apply(ctx, rev, confirm); err != nil {
		return err
	}
	overtaken := func(r Revision) error {
		if r.State != "apply" {
			return nil
		}
		now, err := d.client.revisions(ctx)
		if err != nil {
			return err
		}
		return d.alone(l.revisions, now, rev, true)
	}
	r, err := d.client.await(ctx, rev, inForce, overtaken)
	if fleet.KindOf(err) == fleet.Conflict {
		return d.withdraw(ctx, rev, err)
	}
	if err != nil || !slices.Contains(waiting, r.State) {
		return err
	}
	now, err := d.client.revisions(ctx)
	if err != nil {
		return err
	}
	if err := d.alone(l.revisions, now, rev, true); err != nil {
		return errors.Join(err, d.goBack(ctx, r))
	}
	return nil
}

// inForce are the states of a revision that the device does what it says of.
var inForce = append(slices.Clone(waiting), done...)

// withdraw discards a revision that is queued behind another one. Where it began all the same, it goes back.
func (d *Driver) withdraw(ctx context.Context, rev string, why error) error {
	if d.client.discard(ctx, rev) == nil {
		return why
	}
	r, err := d.client.await(ctx, rev, inForce, goOn)
	if err == nil && slices.Contains(waiting, r.State) {
		err = d.goBack(ctx, r)
	}
	return errors.Join(why, err)
}
