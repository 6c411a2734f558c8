package ethernet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Options of a driver.
type Options struct {
	Switch fleet.Switch
	Device Device
	// Unprotected is what is said to who wants a port kept from others of its network; "" where the switch can do that.
	Unprotected string
	// Settle is how long the switch may take to show what was written; 0 is 30 s. It must be well under the time after which a device takes back by itself.
	Settle time.Duration
	Now    func() time.Time
}

// Driver moves the ports of one switch between networks. It may be used by several goroutines and beside other processes.
type Driver struct {
	fleet.WireReader
	sw          fleet.Switch
	device      Device
	unprotected string
	settle      time.Duration
	now         func() time.Time
}

// New makes a driver; it reads and writes nothing. A switch that is not valid is refused with all that is wrong.
func New(o Options) (*Driver, error) {
	if f := o.Switch.Validate(); len(f) > 0 {
		return nil, &fleet.Error{Kind: fleet.Invalid, Code: "MC-NET-INVALID", Msg: "the switch " + o.Switch.Name + " is not valid", Fields: f}
	}
	d := &Driver{sw: o.Switch, device: o.Device, unprotected: o.Unprotected, settle: o.Settle, now: o.Now}
	if d.settle <= 0 {
		d.settle = 30 * time.Second
	}
	if d.now == nil {
		d.now = time.Now
	}
	d.WireReader = fleet.WireReader{Read: d.Observe, Keepable: d.sw.Keepable}
	return d, nil
}

// Observe reads the switch. A change that is not settled stops hand-overs, as the switch may take it back by itself.
func (d *Driver) Observe(ctx context.Context) (fleet.WireView, error) {
	r, err := d.device.Read(ctx)
	if err != nil {
		return fleet.WireView{}, err
	}
	return d.view(r), nil
}

func (d *Driver) view(r Reading) fleet.WireView {
	v := fleet.WireView{Device: d.sw.Name, At: d.now()}
	for _, name := range d.sw.Named() {
		p := fleet.PortView{Port: name, Doubt: "is nothing that the switch shows"}
		if i := slices.IndexFunc(r.Ports, func(x fleet.PortView) bool { return x.Port == name }); i >= 0 {
			p = r.Ports[i]
		}
		v.Ports = append(v.Ports, p)
	}
	slices.SortFunc(v.Ports, func(a, b fleet.PortView) int { return strings.Compare(a.Port, b.Port) })
	mark, err := d.sw.MarkOf(v.Ports)
	if err != nil {
		panic("ethernet: " + err.Error()) // numbers and strings always encode
	}
	v.Mark = mark
	if r.Open != "" {
		v.Findings = []fleet.WireFinding{{Code: "MC-SWITCH-PENDING", Stops: true, Text: "a change of " + d.sw.Name + " was written and is neither kept nor taken back"}}
	}
	return v
}

// Plan says which ports change so that each of want carries exactly that. It reads nothing. A port in doubt is moved nowhere but into quarantine.
func (d *Driver) Plan(view fleet.WireView, want map[string]fleet.Carries) (fleet.WirePlan, error) {
	plan, err := d.sw.Plan(view, want)
	if err != nil {
		return fleet.WirePlan{}, err
	}
	if err := d.able(plan.Changes); err != nil {
		return fleet.WirePlan{}, err
	}
	if s := view.Stops(); s != nil {
		return fleet.WirePlan{}, s.Stopped()
	}
	var write, replaces strings.Builder
	for _, c := range plan.Changes {
		fmt.Fprintf(&write, "%s: %s\n", c.Port, c.To)
		fmt.Fprintf(&replaces, "%s: %s\n", c.Port, c.From)
	}
	plan.Write, plan.Replaces = write.String(), replaces.String()
	return plan, nil
}

// able is an error where the switch may not be given what a plan gives, or cannot do it. Plans come from elsewhere, too.
func (d *Driver) able(changes []fleet.WireChange) error {
	var faults []fleet.FieldError
	for _, c := range changes {
		if !slices.Contains(d.sw.Managed, c.Port) {
			faults = append(faults, fleet.FieldError{Field: c.Port, Message: "is not among the managed ports of " + d.sw.Name})
			continue
		}
		faults = append(faults, d.sw.May(c.To, c.Port)...)
		if c.To.Protected && d.unprotected != "" {
			faults = append(faults, fleet.FieldError{Field: c.Port + ".protected", Message: d.unprotected})
		}
	}
	if len(faults) > 0 {
		return &fleet.Error{Kind: fleet.Refused, Code: "MC-NET-INVALID", Msg: "the change of " + d.sw.Name + " is refused", Fields: faults}
	}
	return nil
}

// name is what a plan is written under.
func name(plan fleet.WirePlan) string { return strings.TrimPrefix(plan.Digest(), "sha256:")[:16] }

// Apply writes the plan, as one. It is a Conflict, and nothing is written, where any managed port is not as it was when the plan was made. Until Verify the
// switch keeps what was there; a plan that only takes away is kept at once, as nothing may give it back.
func (d *Driver) Apply(ctx context.Context, plan fleet.WirePlan) error {
	if plan.Device != d.sw.Name {
		return fleet.WireConflict("the plan is for %s and not for %s", plan.Device, d.sw.Name)
	}
	if err := d.able(plan.Changes); err != nil {
		return err
	}
	if len(plan.Changes) == 0 {
		return nil
	}
	w := Write{Name: name(plan), Changes: plan.Changes, Keep: plan.Takes}
	return d.device.Write(ctx, w, func(r Reading) error { return d.may(r, plan, w.Name) })
}

// may is an error where the plan must not be written on what is read. What only takes away is, whatever else is there, as long as it does only that.
func (d *Driver) may(r Reading, plan fleet.WirePlan, own string) error {
	v := d.view(r)
	switch {
	case r.Open != "" && r.Open != own:
		return fleet.WireConflict("another change of %s was begun and is not settled", d.sw.Name)
	case plan.Takes:
		for _, c := range plan.Changes {
			if p := v.Port(c.Port); !c.To.Equal(d.sw.InQuarantine()) && !c.To.Within(p.Carries) {
				return fleet.WireConflict("port %s of %s carries less by now", c.Port, d.sw.Name)
			}
		}
		return nil
	case r.Open == own: // somebody was interrupted in this very plan, so that its ports may be as neither before nor after it
		_, err := d.sw.Back(v, plan)
		return err
	case v.Mark != plan.Expect:
		return fleet.WireConflict("a port of %s is not as it was when the plan was made", d.sw.Name)
	}
	return nil
}

// Verify waits until the switch shows every port of the plan as meant, twice in a row, then has it keep that, and looks again. What is not shown in time
// is an error of kind Timeout that names a port; then Rollback.
func (d *Driver) Verify(ctx context.Context, plan fleet.WirePlan) (fleet.WireView, error) {
	ctx, cancel := context.WithTimeout(ctx, d.settle)
	defer cancel()
	if err := d.await(ctx, func(r Reading) string { return plan.Unshown(d.view(r)) }); err != nil {
		return fleet.WireView{}, err
	}
	if err := d.device.Settle(ctx, name(plan)); err != nil {
		return fleet.WireView{}, err
	}
	var view fleet.WireView
	err := d.await(ctx, func(r Reading) string {
		view = d.view(r)
		if r.Open != "" {
			return "a change is open"
		}
		return plan.Unshown(view)
	})
	return view, err
}

// await reads until missing says nothing twice in a row.
func (d *Driver) await(ctx context.Context, missing func(Reading) string) error {
	pause, agreed, why := 10*time.Millisecond, 0, "it could not be read"
	for {
		r, err := d.device.Read(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil:
			if why = missing(r); why == "" {
				agreed++
			} else {
				agreed = 0
			}
		}
		if agreed == 2 {
			return nil
		}
		select {
		case <-ctx.Done():
			if why == "" {
				why = "two readings in a row did not agree"
			}
			return fleet.WireUnproven(d.sw.Name, why)
		case <-time.After(pause):
			pause = min(2*pause, 500*time.Millisecond)
		}
	}
}

// Rollback takes back what Apply wrote and Verify did not keep, and waits until the switch shows it. Where that was never written it does nothing; where
// others have written since it is a Conflict.
func (d *Driver) Rollback(ctx context.Context, plan fleet.WirePlan) error {
	if len(plan.Changes) == 0 {
		return nil
	}
	back := Write{Name: name(plan)}
	for _, c := range plan.Changes {
		back.Changes = append(back.Changes, fleet.WireChange{Port: c.Port, From: c.To, To: c.From})
	}
	undone, err := d.device.Undo(ctx, back)
	if err != nil {
		return err
	}
	if !undone {
		r, err := d.device.Read(ctx)
		if err != nil {
			return err
		}
		if d.view(r).Mark != plan.Expect || r.Open != "" {
			return fleet.WireConflict("%s has gone on since the plan: what it replaced is not there to go back to", d.sw.Name)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.settle)
	defer cancel()
	return d.await(ctx, func(r Reading) string {
		switch {
		case r.Open != "":
			return "the change is still open"
		case d.view(r).Mark != plan.Expect:
			return "ports are not as they were before the plan"
		}
		return ""
	})
}
