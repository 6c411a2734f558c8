// Package switchboard moves the ports of switches and fabrics, one change of a device at a time, and watches what they carry.
package switchboard

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// A driver is these: it looks, it says what it would do, it does it, and it keeps what was done.
type (
	// Observer reads a device.
	Observer interface {
		Observe(ctx context.Context) (fleet.WireView, error)
	}
	// Planner says what would be written; it writes nothing.
	Planner interface {
		Plan(view fleet.WireView, want map[string]fleet.Carries) (fleet.WirePlan, error)
	}
	// Changer writes a plan, waits until the device shows it, or takes it back.
	Changer interface {
		Apply(ctx context.Context, plan fleet.WirePlan) error
		Verify(ctx context.Context, plan fleet.WirePlan) (fleet.WireView, error)
		Rollback(ctx context.Context, plan fleet.WirePlan) error
	}
	// Keeper takes a device over, and brings back what others undid.
	Keeper interface {
		Adopt(ctx context.Context) (fleet.WireView, error)
		Guard(ctx context.Context) (view fleet.WireView, mended bool, err error)
	}
	// Driver speaks to one device.
	Driver interface {
		Observer
		Planner
		Changer
		Keeper
	}
)

// Board is all devices of this server. Its exported fields are set before it is used and not changed afterwards.
type Board struct {
	Store fleet.Store
	// Drive makes the driver of a fabric: of kind Refused where this server has none for it.
	Drive func(fleet.Fabric) (Driver, error)
	// DriveSwitch is that for an Ethernet switch.
	DriveSwitch func(fleet.Switch) (Driver, error)
	Now         func() time.Time
	Log         *slog.Logger
	// May is an error where this process has lost the right to act: then it only reads. nil: it always may.
	May func() error
	// Canary shows by packets where ports are; nil: nobody does.
	Canary Canary
	// Every is how often each device is read.
	Every time.Duration

	mu      sync.Mutex // guards devices and meet
	devices map[string]*device
	// meet says who can exchange a packet and must not, as of the newest readings.
	meet []string
}

// device is one fabric or switch.
type device struct {
	name string
	// turn has room for one: who reads for the books, or writes.
	turn chan struct{}

	mu     sync.Mutex // guards all below
	driver Driver
	rev    fleet.Revision
	// ethernet is the switch that it is, nil for a fabric.
	ethernet *fleet.Switch
	waiting  []*request
	// seen is the newest reading that is believed, odd one that differs from it too much to be, until the next reading says the same.
	seen, odd *fleet.WireView
	// alarm says why nothing is handed out although the newest reading finds nothing.
	alarm string
	// silent is the error of the newest reading.
	silent error
	told   map[string]bool // the findings that an event told of
}

// device returns the fabric or switch of that name with its driver, made anew where its record has changed.
func (b *Board) device(ctx context.Context, name string) (*device, error) {
	r, err := b.record(ctx, name)
	if err != nil {
		return nil, err
	}
	d := b.entry(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.driver != nil && d.rev == r.rev {
		return d, nil
	}
	var driver Driver
	if d.ethernet = r.ethernet; r.fabric != nil {
		driver, err = b.Drive(*r.fabric)
	} else {
		driver, err = b.DriveSwitch(*r.ethernet)
	}
	if err != nil {
		d.driver, d.silent = nil, err
		return nil, err
	}
	d.driver, d.rev = driver, r.rev
	return d, nil
}

// record is what is declared under a device's name, of which there is one fabric or one switch.
type record struct {
	fabric   *fleet.Fabric
	ethernet *fleet.Switch
	rev      fleet.Revision
}

func (b *Board) entry(name string) *device {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.devices == nil {
		b.devices = map[string]*device{}
	}
	d := b.devices[name]
	if d == nil {
		d = &device{name: name, turn: make(chan struct{}, 1), told: map[string]bool{}}
		b.devices[name] = d
	}
	return d
}

func (b *Board) record(ctx context.Context, name string) (r record, err error) {
	err = b.Store.View(ctx, func(s fleet.Snapshot) (err error) {
		if r.fabric, r.rev, err = maybe[fleet.Fabric](s, fleet.KeyOf(fleet.KindFabric, name)); err != nil || r.fabric != nil {
			return err
		}
		r.ethernet, r.rev, err = maybe[fleet.Switch](s, switchKey(name))
		return err
	})
	if err == nil && r.fabric == nil && r.ethernet == nil {
		err = fleet.Errorf(fleet.NotFound, "MC-FABRIC-UNKNOWN", "there is no fabric and no switch %q", name).WithHint("metalctl fabric list; metalctl switch list")
	}
	return r, err
}

// take waits for the device's turn and returns what gives it back.
func (d *device) take(ctx context.Context) (func(), error) {
	select {
	case d.turn <- struct{}{}:
		return func() { <-d.turn }, nil
	case <-ctx.Done():
		return nil, fleet.Errorf(fleet.Unavailable, "MC-NET-BUSY", "another change of %s goes on", d.name).WithHint("try again when it has ended")
	}
}

// bound is the device's driver.
func (d *device) bound() Driver {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.driver
}

// what is the kind of the device.
func (d *device) what() string {
	if d.asSwitch() != nil {
		return fleet.KindSwitch
	}
	return fleet.KindFabric
}

// asSwitch is the switch that the device is, nil for a fabric.
func (d *device) asSwitch() *fleet.Switch {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ethernet
}

// believe makes a view the newest reading. Who calls has the turn.
func (d *device) believe(v fleet.WireView) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen, d.odd, d.alarm, d.silent = &v, nil, "", nil
}
