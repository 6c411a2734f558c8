// Package netconf moves the ports of switches that speak NETCONF with the models of OpenConfig.
package netconf

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
	Switch fleet.Switch
	Host   ssh.Host
	// Patience is how long one call may take; 0 is 20 s.
	Patience time.Duration
	// Settle is how long the switch may take to show a change; 0 is 30 s.
	Settle time.Duration
	Now    func() time.Time
}

// New makes a driver; it reads and writes nothing.
func New(o Options) (*ethernet.Driver, error) {
	if err := o.Host.Check(); err != nil {
		return nil, err
	}
	d := &device{sw: o.Switch, host: o.Host, patience: o.Patience}
	if d.patience <= 0 {
		d.patience = 20 * time.Second
	}
	return ethernet.New(ethernet.Options{Switch: o.Switch, Device: d, Settle: o.Settle, Now: o.Now, Unprotected: "is nothing that OpenConfig's models can say"})
}

type device struct {
	sw       fleet.Switch
	host     ssh.Host
	patience time.Duration
}

const (
	// confirmWithin is after how many seconds a switch takes back what nobody confirmed.
	confirmWithin = 300
	lockPause     = 50 * time.Millisecond
	// A lock is tried for again as long as a session that reads, or whose connection was lost, may keep it. Who settles what was written waits longest: the
	// others give up then.
	lockTries, lockTriesToSettle = 10, 200
)

func (d *device) with(ctx context.Context, do func(*client) error) error {
	return ssh.Again(ctx, func(ctx context.Context) error {
		c, err := connect(ctx, d.host, d.patience)
		if err != nil {
			return err
		}
		if err = do(c); !ssh.IsLost(err) {
			err = errors.Join(err, c.unlock())
		}
		return errors.Join(err, c.close())
	})
}

// read reads configuration and state of the ports.
func (d *device) read(c *client) (ethernet.Reading, error) {
	return d.views(c, "<get>"+filter(d.sw.Named())+"</get>", true)
}

func (d *device) views(c *client, operation string, live bool) (r ethernet.Reading, err error) {
	got, err := c.call(operation)
	if err != nil {
		return r, err
	}
	if got == nil {
		return r, c.strange(name(operation), errors.New("there is no data"))
	}
	for _, x := range got.Interfaces {
		if slices.ContainsFunc(r.Ports, func(p fleet.PortView) bool { return p.Port == x.Name }) {
			return r, c.strange(name(operation), fmt.Errorf("the port %s is there twice", quoted(x.Name)))
		}
		r.Ports = append(r.Ports, x.view(live))
	}
	return r, nil
}

// Read reads the ports. While somebody's commit waits for being confirmed, running cannot be locked (RFC 6241, 7.5).
func (d *device) Read(ctx context.Context) (r ethernet.Reading, err error) {
	err = d.with(ctx, func(c *client) error {
		ours, err := locked(ctx, c, "running", lockTries)
		if err != nil {
			return err
		}
		if r, err = d.read(c); !ours {
			r.Open = ethernet.OpenUnknown
		}
		return err
	})
	return r, err
}

// locked locks a datastore; it reports false where another session keeps it.
func locked(ctx context.Context, c *client, store string, tries int) (bool, error) {
	for range tries {
		err := c.lock(store)
		if !refusedAs(err, "lock-denied") {
			return err == nil, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(lockPause):
		}
	}
	return false, nil
}

// clean locks the candidate and empties it: a commit takes all that is in it.
func (d *device) clean(ctx context.Context, c *client, tries int) error {
	ours, err := locked(ctx, c, "candidate", tries)
	if err == nil && !ours {
		err = fleet.WireConflict("somebody else has the candidate of %s locked", d.sw.Name)
	}
	if err == nil {
		_, err = c.call("<discard-changes/>")
	}
	return err
}

// waiting is a commit that goes back by itself. With the name of one that waits it goes on waiting, with all of the candidate.
func waiting(name string, on bool) string {
	more := ""
	if on {
		more = "<persist-id>" + name + "</persist-id>"
	}
	return fmt.Sprintf("<commit><confirmed/><confirm-timeout>%d</confirm-timeout><persist>%s</persist>%s</commit>", confirmWithin, name, more)
}

// Write edits the candidate and commits it for a time. Both datastores are locked from before the reading until after the commit.
func (d *device) Write(ctx context.Context, w ethernet.Write, may func(ethernet.Reading) error) error {
	return d.with(ctx, func(c *client) error {
		if err := d.clean(ctx, c, lockTries); err != nil {
			return err
		}
		open, err := d.openFor(ctx, c, w.Name)
		if err != nil {
			return err
		}
		r, err := d.read(c)
		if err != nil {
			return err
		}
		r.Open = open
		if err := may(r); err != nil || open != "" {
			return err // where it is open, it is ours and written
		}
		if err := d.fillIn(c, w, r); err != nil {
			_, discard := c.call("<discard-changes/>")
			return errors.Join(err, discard)
		}
		if !w.Keep {
			_, err = c.call(waiting(w.Name, false))
			return err
		}
		if _, err := c.call("<commit/>"); err != nil {
			return err
		}
		return d.save(c)
	})
}

// openFor locks running and says what is open. The name is told only to who knows it, by letting it wait longer.
func (d *device) openFor(ctx context.Context, c *client, name string) (string, error) {
	if _, err := c.call(waiting(name, true)); err == nil {
		return name, nil
	} else if !refusedAs(err, "invalid-value") && !refusedAs(err, "in-use") {
		return "", err
	}
	ours, err := locked(ctx, c, "running", lockTries)
	if err == nil && !ours {
		return ethernet.OpenUnknown, nil
	}
	return "", err
}

// fillIn edits the candidate, has it validated and reads it: nothing but the plan's ports may differ from what was read.
func (d *device) fillIn(c *client, w ethernet.Write, before ethernet.Reading) error {
	if _, err := c.call("<edit-config><target><candidate/></target><default-operation>merge</default-operation>" + edit(w.Changes) + "</edit-config>"); err != nil {
		return err
	}
	if _, err := c.call("<validate><source><candidate/></source></validate>"); err != nil {
		return err
	}
	after, err := d.views(c, "<get-config><source><candidate/></source>"+filter(d.sw.Named())+"</get-config>", false)
	if err != nil {
		return err
	}
	for _, p := range after.Ports {
		want := p
		if i := slices.IndexFunc(before.Ports, func(x fleet.PortView) bool { return x.Port == p.Port }); i >= 0 {
			want = before.Ports[i]
		}
		i := slices.IndexFunc(w.Changes, func(x fleet.WireChange) bool { return x.Port == p.Port })
		if i >= 0 {
			want.Carries = w.Changes[i].To
		}
		if want.Doubt == "" && (p.Doubt != "" || !p.Carries.Equal(want.Carries)) {
			return fleet.WireConflict("in the candidate of %s port %s would carry %s (%s), and %s was meant", d.sw.Name, p.Port, p.Carries, p.Doubt, want.Carries)
		}
	}
	return nil
}

// save keeps what is running over a restart, where that is something of its own.
func (d *device) save(c *client) error {
	if !c.startup {
		return nil
	}
	if _, err := c.call("<copy-config><target><startup/></target><source><running/></source></copy-config>"); err != nil {
		return fmt.Errorf("keep the change over a restart: %w", err)
	}
	return nil
}

// Settle confirms a commit. One that is not known waits no more: it was confirmed, or is gone. What is running for good is saved in either case, as who
// confirmed may have been interrupted before.
func (d *device) Settle(ctx context.Context, name string) error {
	return d.with(ctx, func(c *client) error {
		if err := d.clean(ctx, c, lockTriesToSettle); err != nil {
			return err
		}
		_, err := c.call("<commit><persist-id>" + name + "</persist-id></commit>")
		if err != nil && !refusedAs(err, "invalid-value") {
			return err
		}
		ours, err := locked(ctx, c, "running", lockTries)
		if err != nil || !ours {
			return err // what is running may be another one's, for a time only
		}
		return d.save(c)
	})
}

// Undo takes a commit back.
func (d *device) Undo(ctx context.Context, w ethernet.Write) (undone bool, err error) {
	err = d.with(ctx, func(c *client) error {
		_, err := c.call("<cancel-commit><persist-id>" + w.Name + "</persist-id></cancel-commit>")
		if refusedAs(err, "invalid-value") || refusedAs(err, "operation-failed") {
			return nil
		}
		undone = err == nil
		return err
	})
	return undone, err
}
