// Package ovs moves the ports of an Open vSwitch between VLANs: by OVSDB (RFC 7047), and by OpenFlow 1.3 for what a database cannot do.
package ovs

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Dial opens a connection to one of the switch's two services.
type Dial func(ctx context.Context) (net.Conn, error)

// Options of a driver.
type Options struct {
	Switch fleet.Switch
	// Bridge is the bridge whose ports are the switch's.
	Bridge string
	// Database leads to the OVSDB server, OpenFlow to the bridge itself: its management socket, or where its controller column has it listen.
	Database, OpenFlow Dial
	// Settle is how long the switch may take to show what was written (30 s), Patience how long one answer may (5 s).
	Settle, Patience time.Duration
	Now              func() time.Time
}

// Driver moves the ports of one switch. It may be used by several goroutines and several processes; it keeps nothing.
type Driver struct {
	fleet.WireReader
	o Options
}

// New makes a driver; it reads and writes nothing. A switch that is not valid is refused with all that is wrong.
func New(o Options) (*Driver, error) {
	f := o.Switch.Validate()
	if o.Bridge == "" {
		f = append(f, fleet.FieldError{Field: "bridge", Message: "is missing: which of the switch's bridges"})
	}
	if len(f) > 0 {
		return nil, &fleet.Error{Kind: fleet.Invalid, Code: "MC-NET-INVALID", Msg: "the switch " + o.Switch.Name + " is not valid", Fields: f}
	}
	if o.Settle <= 0 {
		o.Settle = 30 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Driver{o: o}
	d.WireReader = fleet.WireReader{Read: d.Observe, Keepable: o.Switch.Keepable}
	return d, nil
}

// session is a conversation with the switch.
type session struct {
	d    *Driver
	db   *database
	flow *openflow
}

func (d *Driver) open(ctx context.Context) (*session, error) {
	conn, err := d.o.Database(ctx)
	if err != nil {
		return nil, unreached(err)
	}
	s := &session{d: d, db: newDatabase(conn, d.o.Patience)}
	if conn, err = d.o.OpenFlow(ctx); err != nil {
		return nil, errors.Join(unreached(err), s.close())
	}
	if s.flow, err = newOpenflow(ctx, conn, d.o.Patience); err != nil {
		return nil, errors.Join(err, conn.Close(), s.close())
	}
	return s, nil
}

func unreached(err error) error {
	if fleet.CodeOf(err) != "" {
		return err
	}
	if fleet.Distrusts(err) {
		return fleet.Errorf(fleet.Denied, "MC-SWITCH-SILENT", "the switch is not the one that is trusted, and was told nothing: %w", err).WithHint("the server's configuration, under switches.NAME.tls")
	}
	return fleet.Errorf(fleet.Unavailable, "MC-SWITCH-SILENT", "reach the switch: %w", err).WithHint("is the switch up, and its address the right one?")
}

func (s *session) close() error {
	err := s.db.conn.Close()
	if s.flow != nil {
		err = errors.Join(err, s.flow.conn.Close())
	}
	return err
}

// converse does something with the switch, and does it again where an answer was lost, until ctx ends: do begins with a reading.
func (d *Driver) converse(ctx context.Context, do func(*session) error) error {
	for {
		s, err := d.open(ctx)
		if err == nil {
			err = do(s)
			s.close() //nolint:errcheck // all answers were read
		}
		var again lostError
		if !errors.As(err, &again) || ctx.Err() != nil {
			return err
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
