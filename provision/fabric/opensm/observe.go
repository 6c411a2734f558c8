package opensm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
)

// Codes of findings. All but silence stop hand-overs.
const (
	findFile   = "MC-FABRIC-FILE"   // the partition file is missing, not ours, or one that OpenSM does not understand
	findDaemon = "MC-FABRIC-DAEMON" // OpenSM does not run, or reads another file
	findSM     = "MC-FABRIC-SM"     // another subnet manager is the master, or none is
	findOpen   = "MC-FABRIC-OPEN"   // ports are full members of the default partition
	findDrift  = "MC-FABRIC-DRIFT"  // tables are not what the file says
	findTwice  = "MC-FABRIC-TWICE"  // two ports have one GUID
	findSilent = "MC-FABRIC-SILENT" // a link is up and nothing answers
)

// look is all that was seen at one time.
type look struct {
	view       fleet.WireView
	live       string // the partition file, "" where it is missing
	good, next string
	process    Process
	drift      []string // ports whose tables are not what the file gives them
	file       *File    // live as OpenSM understands it, nil where it does not
	sweep      *fabric.Sweep
	// want are the tables that the file gives each port that was seen.
	want map[fleet.GUID]fleet.Carries
}

// Observe reads the file, the daemon and every port of the fabric. What a person should know is among the view's findings; an error says that it could not
// be read.
func (d *Driver) Observe(ctx context.Context) (fleet.WireView, error) {
	l, err := d.look(ctx)
	if err != nil {
		return fleet.WireView{}, err
	}
	return l.view, nil
}

func (d *Driver) look(ctx context.Context) (*look, error) {
	l := &look{view: fleet.WireView{Device: d.fabric.Name, At: d.now()}}
	var err error
	for path, into := range map[string]*string{d.shelf.path: &l.live, d.shelf.good(): &l.good, d.shelf.next(): &l.next} {
		if *into, err = d.shelf.read(path); err != nil {
			return nil, err
		}
	}
	l.checkFile()
	l.checkDaemon(d)
	sweep, err := d.sweeper.Sweep(ctx)
	if err != nil {
		return nil, err
	}
	l.sweep = sweep
	master := l.checkSM(d, sweep)
	l.view.Mark = mark(l.live + "\x00" + string(master))
	l.readPorts(d, sweep)
	l.checkTables(d, sweep, master)
	return l, nil
}

func (l *look) find(code, format string, args ...any) {
	l.view.Findings = append(l.view.Findings, fleet.WireFinding{Code: code, Text: fmt.Sprintf(format, args...), Stops: code != findSilent})
}

func (l *look) has(code string) bool {
	return slices.ContainsFunc(l.view.Findings, func(f fleet.WireFinding) bool { return f.Code == code })
}

func (l *look) checkFile() {
	switch f, err := Parse(l.live); {
	case l.good == "" && l.next == "":
		l.find(findFile, "the partition file was never taken over")
	case l.live == "":
		l.find(findFile, "the partition file is missing or empty: at its next sweep OpenSM lets all ports speak to each other")
	case err != nil:
		l.find(findFile, "OpenSM does not understand the partition file, and at its next sweep lets all ports speak to each other: %v", err)
	case l.live != l.good && l.live != l.next:
		l.find(findFile, "somebody else wrote the partition file")
	default:
		l.file = f
	}
}

func (l *look) checkDaemon(d *Driver) {
	p, err := d.daemon.Find()
	if err != nil {
		l.find(findDaemon, "%v", err)
		return
	}
	l.process = p
	if !p.Reads(d.shelf.path) {
		l.find(findDaemon, "OpenSM (process %d) reads %s and not %s", p.PID, p.Partitions, d.shelf.path)
	}
}

// checkSM returns the port of the master, "" where there is none or more than one.
func (l *look) checkSM(d *Driver, s *fabric.Sweep) fleet.GUID {
	var masters []fleet.GUID
	for _, e := range s.Ends {
		if e.SM == nil {
			continue
		}
		if e.SM.State == fabric.SMMaster {
			masters = append(masters, e.GUID)
		}
		if !slices.Contains(d.fabric.SMs, e.GUID) {
			l.find(findSM, "a subnet manager runs at %s (leaf %s port %d, %s), where none may", e.GUID, e.Leaf, e.LeafPort, e.SM.State)
		}
	}
	switch len(masters) {
	case 0:
		l.find(findSM, "no subnet manager is the master")
		return ""
	case 1:
		return masters[0]
	}
	l.find(findSM, "%d subnet managers call themselves master", len(masters))
	return ""
}

// readPorts notes what each host's port carries. Switches are not a tenant's.
func (l *look) readPorts(d *Driver, s *fabric.Sweep) {
	twice := s.Twice()
	for _, e := range s.Ends {
		if e.Type == fabric.Switch {
			continue
		}
		if n := len(l.view.Ports); n > 0 && l.view.Ports[n-1].Port == string(e.GUID) {
			continue
		}
		p := fleet.PortView{Port: string(e.GUID), Carries: Carries(e)}
		if e.Leaf != "" {
			p.Peer = fmt.Sprintf("%s/%d", e.Leaf, e.LeafPort)
		}
		switch {
		case slices.Contains(twice, e.GUID):
			p.Doubt = "two ports have this GUID"
		case e.Err != nil:
			p.Doubt = e.Err.Error()
		}
		l.view.Ports = append(l.view.Ports, p)
	}
	for _, g := range d.fabric.Managed {
		if l.view.Port(string(g)) == nil {
			at, _ := slices.BinarySearchFunc(l.view.Ports, string(g), func(p fleet.PortView, n string) int { return strings.Compare(p.Port, n) })
			l.view.Ports = slices.Insert(l.view.Ports, at, fleet.PortView{Port: string(g), Doubt: "is not in the fabric", Absent: len(s.Silent) == 0})
		}
	}
	for _, g := range twice {
		l.find(findTwice, "two ports have the GUID %s", g)
	}
	for _, r := range s.Silent {
		l.find(findSilent, "%s", r)
	}
}

// Carries is what a port of a sweep carries.
func Carries(e fabric.End) fleet.Carries {
	c := fleet.Carries{Index0: fleet.MembershipOf(e.First).PKey}
	for _, k := range e.Keys {
		c.Partitions = append(c.Partitions, fleet.MembershipOf(k))
	}
	slices.SortFunc(c.Partitions, func(a, b fleet.Membership) int { return int(a.Raw()) - int(b.Raw()) })
	slices.SortStableFunc(c.Partitions, func(a, b fleet.Membership) int { return int(a.PKey) - int(b.PKey) })
	return c
}

// checkTables compares every port that answered, switches' own included, with what the file gives it.
func (l *look) checkTables(d *Driver, s *fabric.Sweep, master fleet.GUID) {
	var open []string
	ports := make([]Port, 0, len(s.Ends))
	for _, e := range s.Ends {
		ports = append(ports, Port{GUID: e.GUID, Type: e.Type})
		if e.Err == nil && !slices.Contains(d.fabric.SMs, e.GUID) && slices.Contains(Carries(e).Partitions, fleet.Membership{PKey: fleet.DefaultPKey, Full: true}) {
			open = append(open, string(e.GUID))
		}
	}
	if len(open) > 0 {
		l.find(findOpen, "%d ports are full members of the default partition and can speak to all: %s", len(open), some(open))
	}
	if l.file == nil {
		return
	}
	l.want = l.file.Tables(ports, master)
	for _, e := range s.Ends {
		if e.Err == nil && !Carries(e).Equal(l.want[e.GUID]) {
			l.drift = append(l.drift, string(e.GUID))
		}
	}
	if len(l.drift) > 0 {
		l.find(findDrift, "the tables of %d ports are not what the partition file gives them: %s", len(l.drift), some(l.drift))
	}
}

// some names the first of many.
func some(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}
