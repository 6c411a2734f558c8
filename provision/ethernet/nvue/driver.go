// Package nvue moves the ports of Ethernet switches that speak NVIDIA's NVUE REST API between VLANs: revisions that are compared before they are applied, and
// that go back by themselves unless what came of them was read back.
package nvue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Options of a driver.
type Options struct {
	Switch fleet.Switch
	Access Access
	// Bridge is the vlan-aware bridge whose ports are moved; "" is br_default.
	Bridge string
	// Settle is how long the switch may take to apply a change, and then to show it; 0 is 30 s.
	Settle time.Duration
	// Confirm is after how long a change goes back by itself that was not proven; 0 is Settle and 45 s more. It counts in whole seconds.
	Confirm time.Duration
	Now     func() time.Time
}

// Driver moves the ports of one switch. It keeps nothing between calls, so that several processes may take turns, each with the plans of another.
type Driver struct {
	fleet.WireReader
	sw      fleet.Switch
	bridge  string
	client  *Client
	settle  time.Duration
	confirm time.Duration
	now     func() time.Time
}

// New makes a driver; it reads and writes nothing.
func New(o Options) (*Driver, error) {
	if f := o.Switch.Validate(); len(f) > 0 {
		return nil, &fleet.Error{Kind: fleet.Invalid, Code: "MC-NET-INVALID", Msg: "the switch " + o.Switch.Name + " is not valid", Fields: f}
	}
	client, err := NewClient(o.Access)
	if err != nil {
		return nil, err
	}
	d := &Driver{sw: o.Switch, bridge: cmp.Or(o.Bridge, "br_default"), client: client, settle: cmp.Or(o.Settle, 30*time.Second), confirm: o.Confirm, now: o.Now}
	if d.confirm == 0 {
		d.confirm = d.settle + 45*time.Second
	}
	if d.now == nil {
		d.now = time.Now
	}
	d.WireReader = fleet.WireReader{Read: d.Observe, Keepable: d.sw.Keepable}
	return d, nil
}

// Close ends the connections.
func (d *Driver) Close() error {
	d.client.http.CloseIdleConnections()
	return nil
}

// Plan says which commands would be given. It reads nothing.
func (d *Driver) Plan(view fleet.WireView, want map[string]fleet.Carries) (fleet.WirePlan, error) {
	for _, f := range view.Findings {
		if f.Code == findPending {
			return fleet.WirePlan{}, fleet.WireConflict("%s", f.Text)
		}
	}
	plan, err := d.sw.Plan(view, want)
	if err != nil {
		return fleet.WirePlan{}, err
	}
	if err := d.permit(plan); err != nil {
		return fleet.WirePlan{}, err
	}
	var write, replaces strings.Builder
	for _, c := range plan.Changes {
		d.commands(&write, c.Port, c.To)
		d.commands(&replaces, c.Port, c.From)
	}
	plan.Write, plan.Replaces = write.String(), replaces.String()
	return plan, nil
}

// commands are what a person would type at the switch to have a port carry that.
func (d *Driver) commands(b *strings.Builder, port string, c fleet.Carries) {
	at := "nv set interface " + port
	fmt.Fprintf(b, "%s link state %s\n", at, state(c))
	at += " bridge domain " + d.bridge
	if len(c.Tagged) == 0 {
		fmt.Fprintf(b, "%s access %d\n", at, c.Untagged)
		return
	}
	untagged := "none"
	if c.Untagged != 0 {
		untagged = fmt.Sprint(c.Untagged)
	}
	fmt.Fprintf(b, "%s untagged %s\n%s vlan %s\n", at, untagged, at, strings.Trim(strings.ReplaceAll(fmt.Sprint(c.Tagged), " ", ","), "[]"))
}

// permit refuses what is not ours to give, whoever made the plan.
func (d *Driver) permit(plan fleet.WirePlan) error {
	var f []fleet.FieldError
	if plan.Device != d.sw.Name {
		f = append(f, fleet.FieldError{Field: "device", Message: fmt.Sprintf("%q is another one than %s", plan.Device, d.sw.Name)})
	}
	for _, c := range plan.Changes {
		if !slices.Contains(d.sw.Managed, c.Port) {
			f = append(f, fleet.FieldError{Field: c.Port, Message: "is not among the managed ports of " + d.sw.Name})
		}
		f = append(f, d.sw.May(c.To, c.Port)...)
		if c.To.Protected {
			f = append(f, fleet.FieldError{Field: c.Port + ".protected", Message: "NVUE has no ports that are kept from each other: give each node a network of its own"})
		}
	}
	if len(f) > 0 {
		return &fleet.Error{Kind: fleet.Refused, Code: "MC-NET-INVALID", Msg: "the change of " + d.sw.Name + " is refused", Fields: f}
	}
	return nil
}

// Verify waits until the hardware shows the plan, keeps it, and has the switch save it. What is not shown in time is an error of kind Timeout that names a port;
// the switch then goes back by itself, unless the plan only takes away.
func (d *Driver) Verify(ctx context.Context, plan fleet.WirePlan) (fleet.WireView, error) {
	ctx, cancel := context.WithTimeout(ctx, d.settle)
	defer cancel()
	l, err := d.shown(ctx, plan)
	if err != nil {
		return fleet.WireView{}, err
	}
	if w := l.waits(); w != nil {
		if len(plan.Changes) == 0 {
			return fleet.WireView{}, fleet.WireConflict("revision %s of %s, which is not ours, waits for its confirmation", clip(w.ID), d.sw.Name)
		}
		// It is the plan's: it gives the plan's ports what the plan says, and the others what they had.
		if _, err := d.sw.Back(l.set, plan); err != nil {
			return fleet.WireView{}, err
		}
		if err := d.client.confirm(ctx, *w); err != nil {
			return fleet.WireView{}, err
		}
		if _, err := d.client.await(ctx, w.ID, done, goOn); err != nil {
			return fleet.WireView{}, err
		}
	}
	if err := d.save(ctx, l); err != nil {
		return fleet.WireView{}, err
	}
	l, err = d.shown(ctx, plan)
	if err != nil {
		return fleet.WireView{}, err
	}
	return l.view, nil
}

func goOn(Revision) error { return nil }

// shown waits until two readings in a row show the plan.
func (d *Driver) shown(ctx context.Context, plan fleet.WirePlan) (*look, error) {
	why, pause := "the switch could not be read", 20*time.Millisecond
	for agreed := 0; ; {
		l, err := d.look(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return nil, err
		case err == nil:
			if other := plan.Unshown(l.set); other != "" {
				return l, fleet.WireConflict("the configuration of %s is not the plan's any more: %s", d.sw.Name, other)
			}
			if other := plan.Unshown(l.view); other != "" {
				why, agreed = other, 0
			} else if agreed++; agreed == 2 {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fleet.WireUnproven("the switch "+d.sw.Name, why)
		case <-time.After(pause):
			pause = min(2*pause, 250*time.Millisecond)
		}
	}
}

// save has the switch start with what it has now. Releases from 5.9 on do that by themselves.
func (d *Driver) save(ctx context.Context, l *look) error {
	pause := 20 * time.Millisecond
	for asked := false; ; {
		unsaved, err := d.unsaved(ctx, l)
		if err != nil || len(unsaved) == 0 {
			return err
		}
		if !asked {
			if err := d.client.save(ctx); err != nil {
				return err
			}
			asked = true
		}
		select {
		case <-ctx.Done():
			return fleet.Errorf(fleet.Timeout, findUnsaved, "the switch %s does not save what %s carry", d.sw.Name, some(unsaved)).WithHint("nv config save, on the switch")
		case <-time.After(pause):
			pause = min(2*pause, 250*time.Millisecond)
		}
	}
}

// Rollback brings back what the plan replaced, and waits until the hardware shows it. Where the plan was never written it does nothing; where others came after
// it, it is a Conflict.
func (d *Driver) Rollback(ctx context.Context, plan fleet.WirePlan) error {
	l, err := d.quiet(ctx)
	if err != nil {
		return err
	}
	changes, err := d.sw.Back(l.set, plan)
	if err != nil {
		return err
	}
	inverse := fleet.WirePlan{Device: plan.Device, Expect: l.set.Mark, Changes: changes, Takes: true}
	for _, c := range changes {
		inverse.Takes = inverse.Takes && c.To.Equal(d.sw.InQuarantine())
	}
	if w := l.waits(); w != nil && plan.Unshown(l.set) == "" {
		err = d.goBack(ctx, *w)
		inverse.Changes = nil
		for _, c := range plan.Changes { // the switch brings back what was there, whatever that is
			inverse.Changes = append(inverse.Changes, fleet.WireChange{Port: c.Port, From: c.To, To: c.From})
		}
	} else {
		err = d.Apply(ctx, inverse)
	}
	if err != nil {
		return err
	}
	_, err = d.Verify(ctx, inverse)
	return err
}

// quiet looks until the switch is not at work on a revision, for as long as that may take.
func (d *Driver) quiet(ctx context.Context) (*look, error) {
	ctx, cancel := context.WithTimeout(ctx, d.settle)
	defer cancel()
	for {
		l, err := d.look(ctx)
		if err != nil || l.flight == nil || l.waits() != nil {
			return l, err
		}
		select {
		case <-ctx.Done():
			return l, nil // who goes on is told that somebody is at work
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// goBack has a revision that waits for its confirmation go back, or waits until it does so by itself.
func (d *Driver) goBack(ctx context.Context, w Revision) error {
	rejected := d.client.reject(ctx, w)
	ctx, cancel := context.WithTimeout(ctx, d.confirm+d.settle)
	defer cancel()
	if _, err := d.client.await(ctx, w.ID, idle, goOn); err != nil {
		return errors.Join(rejected, err)
	}
	return nil
}
