// Package cli moves the ports of switches that have no better interface than their command line, reached by SSH.
package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet"
	"github.com/metalctl/metalctl/provision/ethernet/ssh"
)

// Options of a driver.
type Options struct {
	Switch   fleet.Switch
	Platform *Platform
	Host     ssh.Host
	// Patience is how long one command may take; 0 is 20 s.
	Patience time.Duration
	// Settle is how long the switch may take to show a change; 0 is 30 s.
	Settle time.Duration
	Now    func() time.Time
}

// New makes a driver; it reads and writes nothing.
func New(o Options) (*ethernet.Driver, error) {
	d := &device{sw: o.Switch, platform: o.Platform, host: o.Host, patience: o.Patience, now: o.Now}
	if d.patience <= 0 {
		d.patience = 20 * time.Second
	}
	if d.now == nil {
		d.now = time.Now
	}
	if err := o.Host.Check(); err != nil {
		return nil, err
	}
	return ethernet.New(ethernet.Options{Switch: o.Switch, Device: d, Settle: o.Settle, Now: d.now,
		Unprotected: "is nothing that the driver can have " + o.Platform.Title + " do"})
}

// device is a switch with a command line.
type device struct {
	sw       fleet.Switch
	platform *Platform
	host     ssh.Host
	patience time.Duration
	now      func() time.Time
}

// way is how a platform makes several commands one change, and tells others about it.
type way interface {
	// open is the name of a change that is neither settled nor taken back.
	open(d *device, t *terminal) (string, error)
	write(d *device, t *terminal, w ethernet.Write, may func(ethernet.Reading) error) error
	settle(d *device, t *terminal, name string) error
	undo(d *device, t *terminal, w ethernet.Write) (bool, error)
}

// with runs do at a terminal of the switch, again where the connection was lost. do must bear being interrupted anywhere and begun again.
func (d *device) with(ctx context.Context, do func(*terminal) error) error {
	return ssh.Again(ctx, func(ctx context.Context) error {
		t, err := sit(ctx, d.host, d.platform, d.patience)
		if err != nil {
			return err
		}
		return errors.Join(do(t), t.leave())
	})
}

// Read reads the ports of the switch.
func (d *device) Read(ctx context.Context) (r ethernet.Reading, err error) {
	err = d.with(ctx, func(t *terminal) error {
		if r, _, err = d.read(t); err != nil {
			return err
		}
		r.Open, err = d.platform.way.open(d, t)
		return err
	})
	return r, err
}

// Write changes ports.
func (d *device) Write(ctx context.Context, w ethernet.Write, may func(ethernet.Reading) error) error {
	return d.with(ctx, func(t *terminal) error { return d.platform.way.write(d, t, w, may) })
}

// Settle keeps a change.
func (d *device) Settle(ctx context.Context, name string) error {
	return d.with(ctx, func(t *terminal) error { return d.platform.way.settle(d, t, name) })
}

// Undo takes a change back.
func (d *device) Undo(ctx context.Context, w ethernet.Write) (undone bool, err error) {
	err = d.with(ctx, func(t *terminal) error {
		undone, err = d.platform.way.undo(d, t, w)
		return err
	})
	return undone, err
}

// read reads what the configuration says and what the switch makes of it. Where those differ a port is in doubt.
func (d *device) read(t *terminal) (ethernet.Reading, *state, error) {
	var r ethernet.Reading
	text, err := t.ask(d.platform.Running)
	if err != nil {
		return r, nil, err
	}
	st, err := d.platform.readIndented(text)
	if err != nil {
		return r, nil, d.strange(d.platform.Running, err)
	}
	answer, err := t.ask(d.platform.Switching)
	if err != nil {
		return r, nil, err
	}
	does, err := d.platform.switching(answer)
	if err != nil {
		return r, nil, d.strange(d.platform.Switching, err)
	}
	for _, name := range d.sw.Named() {
		x := st.ports[name]
		if x == nil {
			continue
		}
		p := fleet.PortView{Port: name, Carries: x.carries, Doubt: x.doubt}
		if o, shown := does[name]; p.Doubt == "" {
			p.Doubt = x.unlike(o, shown)
		}
		r.Ports = append(r.Ports, p)
	}
	return r, st, nil
}

// unlike says in what a port does something else than its configuration says, "" where it does not.
func (x *port) unlike(o operation, shown bool) string {
	switch {
	case !shown:
		return "is not among the ports that the switch switches"
	case o.doubt != "":
		return o.doubt
	case o.mode != "" && o.mode != x.mode && !x.carries.Down:
		return fmt.Sprintf("is configured as %s and works as %q", x.mode, last(o.mode))
	case x.mode == "access" && o.access != x.access:
		return fmt.Sprintf("is configured for VLAN %d and works in %d", x.access, o.access)
	case x.mode == "trunk" && (o.native != x.native || !slices.Equal(o.allowed, x.allowed)):
		return fmt.Sprintf("is configured as a trunk of %s with native VLAN %d and works as one of %s with %d", list(x.allowed), x.native, list(o.allowed), o.native)
	}
	return ""
}

func (d *device) strange(command string, err error) error {
	return fleet.Errorf(fleet.Broken, "MC-SWITCH-ANSWER", "%s answers what is not understood to %q: %w", d.sw.Name, command, err).WithHint("type the command by hand; is the platform in the server's configuration the right one?")
}
