package opensm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
)

// Sweeper reads the fabric, and writes the table of one port where a subnet manager does not.
type Sweeper interface {
	Sweep(ctx context.Context) (*fabric.Sweep, error)
	SetTable(ctx context.Context, e fabric.End, table []uint16) error
}

// Daemon is the subnet manager beside us.
type Daemon interface {
	Find() (Process, error)
	Reload(Process) error
}

// Options of a driver.
type Options struct {
	Fabric fleet.Fabric
	// Path is the partition file that the daemon reads; its folder is the driver's alone.
	Path    string
	Sweeper Sweeper
	Daemon  Daemon
	// Settle is how long devices may take to show what was written; 0 is 30 s.
	Settle time.Duration
	Now    func() time.Time
}

// Driver moves the ports of one fabric between partitions. It may be used by several goroutines, and by several processes on one machine.
type Driver struct {
	fabric  fleet.Fabric
	shelf   shelf
	sweeper Sweeper
	daemon  Daemon
	settle  time.Duration
	now     func() time.Time

	mu sync.Mutex // guards told
	// told is the drift that the daemon was last made to read its file for: it is told once.
	told string
}

// New makes a driver; it reads and writes nothing. A fabric that is not valid is refused with all that is wrong.
func New(o Options) (*Driver, error) {
	if f := o.Fabric.Validate(); len(f) > 0 {
		return nil, &fleet.Error{Kind: fleet.Invalid, Code: "MC-NET-INVALID", Msg: "the fabric " + o.Fabric.Name + " is not valid", Fields: f}
	}
	d := &Driver{fabric: o.Fabric, shelf: shelf{o.Path}, sweeper: o.Sweeper, daemon: o.Daemon, settle: o.Settle, now: o.Now}
	if d.settle <= 0 {
		d.settle = 30 * time.Second
	}
	if d.now == nil {
		d.now = time.Now
	}
	return d, nil
}

// Plan says what has to be written so that each port of want carries exactly that. Ports that want does not name stay as they are. It is made from a view
// without findings that stop, and reads nothing but the partition file. A plan that only takes away is made whatever other ports show.
func (d *Driver) Plan(view fleet.WireView, want map[string]fleet.Carries) (fleet.WirePlan, error) {
	live, err := d.shelf.read(d.shelf.path)
	if err != nil {
		return fleet.WirePlan{}, err
	}
	f, err := Parse(live)
	if err != nil {
		return fleet.WirePlan{}, fleet.Errorf(fleet.Conflict, findFile, "read the partition file: %w", err)
	}
	all := d.managed(f)
	plan := fleet.WirePlan{Device: d.fabric.Name, Expect: view.Mark, Replaces: live, Takes: len(want) > 0}
	for n, c := range want {
		plan.Takes = plan.Takes && c.Within(all[fleet.GUID(n)])
	}
	if s := stops(view, plan.Takes); s != nil {
		return fleet.WirePlan{}, stopped(s)
	}
	var faults []fleet.FieldError
	names := make([]string, 0, len(want))
	for n := range want {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		c := want[n]
		faults = append(faults, d.checkWant(view, n, c, plan.Takes)...)
		all[fleet.GUID(n)] = c
		if p := view.Port(n); p != nil && !p.Carries.Equal(c) {
			plan.Changes = append(plan.Changes, fleet.WireChange{Port: n, From: p.Carries, To: c})
		}
	}
	if len(faults) > 0 {
		return fleet.WirePlan{}, &fleet.Error{Kind: fleet.Refused, Code: "MC-NET-INVALID", Msg: "the change of " + d.fabric.Name + " is refused", Fields: faults}
	}
	if plan.Write, err = generate(d.fabric, all); err != nil {
		return fleet.WirePlan{}, err
	}
	return plan, nil
}

// stops is the first finding that a change must not be made under. What only takes away is stopped by nothing that is wrong with other ports.
func stops(view fleet.WireView, takes bool) *fleet.WireFinding {
	if !takes {
		return view.Stops()
	}
	view.Findings = slices.DeleteFunc(slices.Clone(view.Findings), func(f fleet.WireFinding) bool {
		return slices.Contains([]string{findDrift, findOpen, findTwice}, f.Code)
	})
	return view.Stops()
}

func stopped(s *fleet.WireFinding) error {
	return s.Stopped()
}

// managed is what the file gives each managed port.
func (d *Driver) managed(f *File) map[fleet.GUID]fleet.Carries {
	ports := make([]Port, 0, len(d.fabric.Managed))
	for _, g := range d.fabric.Managed {
		ports = append(ports, Port{GUID: g, Type: fabric.CA})
	}
	return f.Tables(ports, "")
}

// checkWant lists what is wrong with a wish: a port that is not ours to move or that is in doubt, keys that are not ours to give.
func (d *Driver) checkWant(view fleet.WireView, port string, c fleet.Carries, takes bool) []fleet.FieldError {
	var f []fleet.FieldError
	add := func(format string, args ...any) {
		f = append(f, fleet.FieldError{Field: port, Message: fmt.Sprintf(format, args...)})
	}
	if !slices.Contains(d.fabric.Managed, fleet.GUID(port)) {
		add("is not among the managed ports of %s", d.fabric.Name)
		return f
	}
	if p := view.Port(port); !takes && (p == nil || p.Doubt != "") {
		doubt := "was not seen"
		if p != nil {
			doubt = p.Doubt
		}
		add("cannot be moved: %s", doubt)
	}
	f = append(f, d.fabric.May(c, port)...)
	return f
}

// Apply writes the plan's file and has the daemon read it, once. It is a Conflict, and nothing is written, where file, subnet manager or one of the ports are
// not as the plan expects. What Apply left half-done is brought to its end by Verify or Rollback, also by another process.
func (d *Driver) Apply(ctx context.Context, plan fleet.WirePlan) error {
	unlock, err := d.shelf.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := d.look(ctx)
	if err != nil {
		return err
	}
	if l.next == plan.Write && l.live == plan.Write {
		return d.reload(l) // somebody was interrupted right here
	}
	if s := stops(l.view, plan.Takes); s != nil {
		return stopped(s)
	}
	if l.next != "" && l.next != plan.Write {
		return conflict("another change was begun and is not settled")
	}
	if l.view.Mark != plan.Expect || l.live != plan.Replaces {
		return conflict("the partition file or the subnet manager is another than it was when the plan was made")
	}
	for _, c := range plan.Changes {
		if p := l.view.Port(c.Port); !plan.Takes && (p == nil || p.Doubt != "" || !p.Carries.Equal(c.From)) {
			return conflict("port %s is not as it was when the plan was made", c.Port)
		}
	}
	if plan.Write == l.live {
		return nil // what ports show beside it is put back by Verify
	}
	return d.bring(l, plan.Write)
}

// bring writes a file that becomes the good one when the devices show it.
func (d *Driver) bring(l *look, text string) error {
	if err := d.shelf.write(d.shelf.next(), text); err != nil {
		return err
	}
	if err := d.shelf.write(d.shelf.path, text); err != nil {
		return err
	}
	return d.reload(l)
}

func (d *Driver) reload(l *look) error {
	if l.process.PID == 0 {
		return fleet.Errorf(fleet.Unavailable, findDaemon, "OpenSM does not run, so that nothing reads the partition file").WithHint("systemctl start opensm")
	}
	return d.daemon.Reload(l.process)
}

func conflict(format string, args ...any) error {
	return fleet.WireConflict(format, args...)
}

// Verify waits until every device of the fabric shows the plan's file, and keeps that as the good one. What is not shown in time is an error of kind Timeout
// that names the ports; then Rollback.
func (d *Driver) Verify(ctx context.Context, plan fleet.WirePlan) (fleet.WireView, error) {
	unlock, err := d.shelf.lock(ctx)
	if err != nil {
		return fleet.WireView{}, err
	}
	defer unlock()
	return d.await(ctx, plan)
}

// putBackAfter is how long the subnet manager has to show a change; then the tables of the change's ports are written without it, as it does not look
// whether a device still has what it once gave it.
const putBackAfter = 3 * time.Second

// await waits until the live file is the plan's and all tables are what it says, and settles it; of a plan that only takes away, the tables of its own ports.
// Two readings in a row must agree, as a daemon that is still at work on an older change may undo the newer one.
func (d *Driver) await(ctx context.Context, plan fleet.WirePlan) (fleet.WireView, error) {
	ctx, cancel := context.WithTimeout(ctx, d.settle)
	defer cancel()
	var last *look
	var refused error
	pause, agreed, due := 25*time.Millisecond, 0, time.Now().Add(putBackAfter)
	for {
		l, err := d.look(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return fleet.WireView{}, err
		case err == nil:
			last = l
			if l.live != plan.Write {
				return l.view, conflict("the partition file is not the plan's")
			}
			if l.shows(plan) == "" {
				agreed++
			} else {
				agreed = 0
			}
			if agreed == 0 && time.Now().After(due) {
				due = time.Now().Add(putBackAfter)
				err := d.putBack(ctx, l, portsOf(plan))
				if err != nil && ctx.Err() == nil && !plan.Takes {
					return l.view, err
				}
				if err != nil {
					refused = err
				}
			}
			if agreed == 2 {
				return l.view, d.settled(l)
			}
		}
		select {
		case <-ctx.Done():
			err := errors.Join(unproven(last, plan), refused)
			if plan.Takes && last != nil && last.live == plan.Write {
				err = errors.Join(err, d.settled(last)) // what was taken away is not given back because a device does not answer
			}
			return fleet.WireView{}, err
		case <-time.After(pause):
			pause = min(2*pause, 200*time.Millisecond)
		}
	}
}

func (d *Driver) settled(l *look) error {
	if l.next == "" {
		return nil
	}
	return d.shelf.settle()
}

// shows says what is not yet as it was meant, "" where all is.
func (l *look) shows(plan fleet.WirePlan) string {
	if s := stops(l.view, plan.Takes); s != nil {
		return s.Text
	}
	for _, c := range plan.Changes {
		p := l.view.Port(c.Port)
		if plan.Takes && p != nil && p.Absent {
			continue // it gets what the file says before it speaks
		}
		if p == nil || p.Doubt != "" || !p.Carries.Equal(c.To) {
			return "port " + c.Port + " does not show " + c.To.String()
		}
	}
	return ""
}

func portsOf(plan fleet.WirePlan) []string {
	var out []string
	for _, c := range plan.Changes {
		out = append(out, c.Port)
	}
	return out
}

func unproven(last *look, plan fleet.WirePlan) error {
	why := "the fabric could not be read"
	if last != nil {
		why = last.shows(plan)
		if why == "" {
			why = "two readings in a row did not agree"
		}
	}
	return fleet.Errorf(fleet.Timeout, "MC-NET-UNPROVEN", "the devices do not show what was written: %s", strings.TrimSpace(why)).WithHint("metalctl network plan shows what differs")
}

// Rollback brings back what the plan replaced, and waits until the devices show it. Where that was never written it does nothing.
func (d *Driver) Rollback(ctx context.Context, plan fleet.WirePlan) error {
	unlock, err := d.shelf.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	good, err := d.shelf.read(d.shelf.good())
	if err != nil {
		return err
	}
	next, err := d.shelf.read(d.shelf.next())
	if err != nil {
		return err
	}
	switch {
	case good != plan.Replaces:
		return conflict("the fabric has gone on since the plan: what it replaced is not the last good state any more")
	case next != "" && next != plan.Write:
		return conflict("another change was begun and is not settled")
	}
	return d.restore(ctx, good)
}

// restore writes the last good file and drops whatever was on its way.
func (d *Driver) restore(ctx context.Context, good string) error {
	if err := d.shelf.write(d.shelf.path, good); err != nil {
		return err
	}
	if err := d.shelf.forget(); err != nil {
		return err
	}
	p, err := d.daemon.Find()
	if err != nil {
		return err
	}
	if err := d.daemon.Reload(p); err != nil {
		return err
	}
	_, err = d.await(ctx, fleet.WirePlan{Write: good})
	return err
}

// Adopt takes over a fabric whose partition file is not ours yet. Each managed port keeps what it has; where it has keys that are not ours to give, nothing
// is written, and the error lists them. Ports that were full members of the default partition become limited ones.
func (d *Driver) Adopt(ctx context.Context) (fleet.WireView, error) {
	unlock, err := d.shelf.lock(ctx)
	if err != nil {
		return fleet.WireView{}, err
	}
	defer unlock()
	l, err := d.look(ctx)
	if err != nil {
		return fleet.WireView{}, err
	}
	if l.good != "" {
		return fleet.WireView{}, fleet.Errorf(fleet.Conflict, findFile, "the partition file of %s was taken over before", d.fabric.Name)
	}
	for _, f := range l.view.Findings {
		if f.Stops && !slices.Contains([]string{findFile, findOpen, findDrift}, f.Code) {
			return fleet.WireView{}, stopped(&f)
		}
	}
	want := map[fleet.GUID]fleet.Carries{}
	var faults []fleet.FieldError
	for _, g := range d.fabric.Managed {
		p := l.view.Port(string(g))
		c := fleet.InPartitions(slices.DeleteFunc(slices.Clone(p.Carries.Partitions), func(m fleet.Membership) bool { return m.PKey == fleet.DefaultPKey })...)
		if p.Doubt == "" {
			faults = append(faults, d.checkWant(l.view, string(g), c, false)...)
		}
		want[g] = c
	}
	if len(faults) > 0 {
		return fleet.WireView{}, &fleet.Error{Kind: fleet.Refused, Code: "MC-NET-INVALID", Msg: "ports of " + d.fabric.Name + " have what could not be kept", Fields: faults}
	}
	text, err := generate(d.fabric, want)
	if err != nil {
		return fleet.WireView{}, err
	}
	if err := d.bring(l, text); err != nil {
		return fleet.WireView{}, err
	}
	return d.await(ctx, fleet.WirePlan{Write: text})
}
