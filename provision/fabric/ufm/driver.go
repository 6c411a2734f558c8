// Package ufm moves the ports of an InfiniBand fabric between partitions through NVIDIA's UFM, which owns the fabric's subnet manager.
package ufm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
)

// Options of a driver.
type Options struct {
	Fabric fleet.Fabric
	API    API
	// Lock is a file that keeps two changes of one machine's processes apart: UFM takes what comes last.
	Lock string
	// Settle is how long UFM may take to show what was written; 0 is 60 s.
	Settle time.Duration
	Now    func() time.Time
}

// Driver moves the ports of one fabric. What it shows is UFM's word: devices are not asked. It may be used by several goroutines.
type Driver struct {
	fleet.WireReader
	o Options
}

// New makes a driver; it reads and writes nothing. A fabric that is not valid is refused with all that is wrong.
func New(o Options) (*Driver, error) {
	if f := o.Fabric.Validate(); len(f) > 0 {
		return nil, &fleet.Error{Kind: fleet.Invalid, Code: "MC-NET-INVALID", Msg: "the fabric " + o.Fabric.Name + " is not valid", Fields: f}
	}
	if o.Settle <= 0 {
		o.Settle = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Driver{o: o}
	d.WireReader = fleet.WireReader{Read: d.Observe, Keepable: d.keepable}
	return d, nil
}

// Plan says what would be written; it asks nobody.
func (d *Driver) Plan(view fleet.WireView, want map[string]fleet.Carries) (fleet.WirePlan, error) {
	p, err := d.o.Fabric.Plan(view, want)
	if err != nil {
		return p, err
	}
	if s := stops(view, p.Takes); s != nil {
		return fleet.WirePlan{}, s.Stopped()
	}
	there, back := map[string]string{}, map[string]string{}
	for _, c := range p.Changes {
		there[c.Port], back[c.Port] = c.To.String(), c.From.String()
	}
	for into, from := range map[*string]map[string]string{&p.Write: there, &p.Replaces: back} {
		b, err := json.Marshal(from)
		if err != nil {
			return fleet.WirePlan{}, fmt.Errorf("encode the plan: %w", err)
		}
		*into = string(b)
	}
	return p, nil
}

// stops is the first finding that a change must not be made under. What only takes away is stopped by nothing that is wrong with other ports.
func stops(v fleet.WireView, takes bool) *fleet.WireFinding {
	if takes {
		return nil
	}
	return v.Stops()
}

// Apply writes the plan, what it takes away first. It is a Conflict, and nothing is written, where a port is neither as it was when the plan was made nor on the
// way to what the plan gives it.
func (d *Driver) Apply(ctx context.Context, plan fleet.WirePlan) error {
	unlock, err := fabric.Lock(ctx, d.o.Lock)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	if s := stops(v, plan.Takes); s != nil {
		return s.Stopped()
	}
	if !plan.Takes {
		if _, err := d.o.Fabric.Back(v, plan); err != nil {
			return err
		}
	}
	for _, c := range plan.Changes {
		if p := v.Port(c.Port); p == nil || !plan.Takes && !between(p.Carries, c) {
			return fleet.WireConflict("port %s is not as it was when the plan was made", c.Port)
		}
	}
	return d.write(ctx, v, plan.Changes)
}

// between reports whether a port holds only what it had before a change, or has after it.
func between(now fleet.Carries, c fleet.WireChange) bool {
	return !slices.ContainsFunc(now.Partitions, func(m fleet.Membership) bool {
		return !slices.Contains(c.From.Partitions, m) && !slices.Contains(c.To.Partitions, m)
	})
}

// change is the body of a write that adds members to a partition.
type change struct {
	PKey        string   `json:"pkey"`
	GUIDs       []string `json:"guids"`
	Memberships []string `json:"memberships"`
	Index0      bool     `json:"index0"`
	IPoIB       bool     `json:"ip_over_ib"`
}

// write brings the changes' ports from what v shows to where they go: partition by partition, as UFM knows no change of several.
func (d *Driver) write(ctx context.Context, v fleet.WireView, changes []fleet.WireChange) error {
	takes, gives := map[fleet.PKey][]string{}, map[fleet.PKey]*change{}
	for _, c := range changes {
		now := v.Port(c.Port).Carries.Partitions
		for _, m := range now {
			if !slices.ContainsFunc(c.To.Partitions, func(x fleet.Membership) bool { return x.PKey == m.PKey }) && m.PKey != fleet.DefaultPKey {
				takes[m.PKey] = append(takes[m.PKey], bare(fleet.GUID(c.Port)))
			}
		}
		for _, m := range c.To.Partitions {
			if slices.Contains(now, m) || m.PKey == fleet.DefaultPKey {
				continue
			}
			if gives[m.PKey] == nil {
				gives[m.PKey] = &change{PKey: m.PKey.String(), IPoIB: d.o.Fabric.IPoIB}
			}
			g, as := gives[m.PKey], limited
			if m.Full {
				as = full
			}
			g.GUIDs, g.Memberships = append(g.GUIDs, bare(fleet.GUID(c.Port))), append(g.Memberships, as)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(takes)) {
		for some := range slices.Chunk(takes[k], mostInAddress) {
			if err := d.o.API.write(ctx, http.MethodDelete, "resources/pkeys/"+k.String()+"/guids/"+strings.Join(some, ","), nil); err != nil {
				return err
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(gives)) {
		if err := d.o.API.write(ctx, http.MethodPost, "resources/pkeys", gives[k]); err != nil {
			return err
		}
	}
	return nil
}

// mostInAddress is how many GUIDs one address holds: servers refuse lines of 8 KiB.
const mostInAddress = 200

// Verify waits until two readings in a row show the plan. What is not shown in time is an error of kind Timeout that names a port; then Rollback.
func (d *Driver) Verify(ctx context.Context, plan fleet.WirePlan) (fleet.WireView, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Settle)
	defer cancel()
	pause, agreed, why := 25*time.Millisecond, 0, "UFM could not be read"
	for {
		v, err := d.Observe(ctx)
		switch {
		case err != nil && ctx.Err() == nil && fleet.KindOf(err) != fleet.Unavailable:
			return fleet.WireView{}, err
		case err == nil:
			why = plan.Unshown(v)
			if s := stops(v, plan.Takes); s != nil {
				why = s.Text
			}
			if agreed++; why != "" {
				agreed = 0
			}
			if agreed == 2 {
				return v, nil
			}
		}
		select {
		case <-ctx.Done():
			if why == "" {
				why = "two readings in a row did not agree"
			}
			return fleet.WireView{}, fleet.WireUnproven("UFM", why)
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

// Rollback brings back what the plan replaced, and waits until UFM shows it. Where that was never written it does nothing.
func (d *Driver) Rollback(ctx context.Context, plan fleet.WirePlan) error {
	unlock, err := fabric.Lock(ctx, d.o.Lock)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	back, err := d.o.Fabric.Back(v, plan)
	if err != nil || len(back) == 0 {
		return err
	}
	if err := d.write(ctx, v, back); err != nil {
		return err
	}
	_, err = d.Verify(ctx, fleet.WirePlan{Changes: back, Takes: true})
	return err
}

// keepable is Refused where a managed port has what is not ours to give.
func (d *Driver) keepable(v fleet.WireView) error {
	if err := d.o.Fabric.Keepable(v); err != nil {
		return err
	}
	var faults []fleet.FieldError
	for _, g := range d.o.Fabric.Managed {
		faults = append(faults, d.o.Fabric.May(v.Port(string(g)).Carries, string(g))...)
	}
	if len(faults) > 0 {
		return &fleet.Error{Kind: fleet.Refused, Code: "MC-NET-INVALID", Msg: "ports of " + d.o.Fabric.Name + " have what could not be kept", Fields: faults}
	}
	return nil
}
