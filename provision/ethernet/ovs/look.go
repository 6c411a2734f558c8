package ovs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Codes of findings. All stop hand-overs.
const (
	findFlows    = "MC-SWITCH-FLOWS"    // something else than the ports' VLANs says where frames go
	findStranger = "MC-SWITCH-STRANGER" // a port that nobody named passes every VLAN
	findMirror   = "MC-SWITCH-MIRROR"   // frames are copied to somewhere
	findBehind   = "MC-SWITCH-BEHIND"   // the switch has not taken its configuration
)

// change is the key of the bridge's external_ids under which a change that is on its way has its name.
const change = "metalctl-change"

// port is a port of the bridge with its links, more than one where it is a bond.
type port struct {
	portRow
	links []link
	// off is set where all links are switched off; doubt says what of the port our model cannot say, or why it cannot be read.
	off   bool
	doubt string
}

type link struct {
	ofPort
	ours string // the interface's name
}

type bridgeRow struct {
	Ports    set[uuid] `json:"ports"`
	Mirrors  set[uuid] `json:"mirrors"`
	External dict      `json:"external_ids"`
}

type switchRow struct {
	Current int `json:"cur_cfg"`
	Next    int `json:"next_cfg"`
}

// look is all that was seen at one time.
type look struct {
	view   fleet.WireView
	bridge bridgeRow
	taken  switchRow
	ports  map[string]*port
}

// behind reports whether the switch has not done yet what its database says.
func (l *look) behind() bool { return l.taken.Current < l.taken.Next }

// Observe reads the bridge. The view's ports are the managed ones, and those that are neither managed nor an uplink.
func (d *Driver) Observe(ctx context.Context) (view fleet.WireView, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Settle)
	defer cancel()
	err = d.converse(ctx, func(s *session) error {
		l, err := s.look(ctx)
		if err == nil {
			view = l.view
		}
		return err
	})
	return view, err
}

// look reads the bridge once, by one transaction, and how its ports and flows are.
func (s *session) look(ctx context.Context) (*look, error) {
	read := func(table string, where []any, columns ...string) operation {
		return operation{"op": "select", "table": table, "where": where, "columns": columns}
	}
	all := []any{}
	rows, err := s.db.transact(ctx,
		read("Open_vSwitch", all, "cur_cfg", "next_cfg"),
		read("Bridge", []any{[]any{"name", "==", s.d.o.Bridge}}, "ports", "mirrors", "external_ids"),
		read("Port", all, "_uuid", "name", "interfaces", "vlan_mode", "tag", "trunks", "cvlans", "protected", "fake_bridge", "other_config"),
		read("Interface", all, "_uuid", "name", "type", "ofport", "error"))
	if err != nil {
		return nil, err
	}
	l := &look{view: fleet.WireView{Device: s.d.o.Switch.Name, At: s.d.o.Now()}, ports: map[string]*port{}}
	switches, err := decode[switchRow](rows[0])
	bridges, bridgeErr := decode[bridgeRow](rows[1])
	ports, portErr := decode[portRow](rows[2])
	interfaces, linkErr := decode[interfaceRow](rows[3])
	if err := errors.Join(err, bridgeErr, portErr, linkErr); err != nil {
		return nil, err
	}
	if len(bridges) != 1 || len(switches) != 1 {
		return nil, fleet.Errorf(fleet.NotFound, "MC-SWITCH-BRIDGE", "the switch has no bridge %s", s.d.o.Bridge).WithHint("ovs-vsctl list-br, on the switch")
	}
	l.taken, l.bridge = switches[0], bridges[0]
	numbers, err := s.flow.ports(ctx)
	if err != nil {
		return nil, err
	}
	l.join(ports, interfaces, numbers)
	flows, err := s.flow.normal(ctx)
	if err != nil {
		return nil, err
	}
	return l, l.judge(s.d, flows)
}

func decode[T any](r result) ([]T, error) {
	out := make([]T, len(r.Rows))
	for i, raw := range r.Rows {
		if err := json.Unmarshal(raw, &out[i]); err != nil {
			return nil, garbled("a row: %v", err)
		}
	}
	return out, nil
}

// join finds the bridge's ports and their links.
func (l *look) join(ports []portRow, interfaces []interfaceRow, numbers map[uint32]ofPort) {
	by := map[uuid]interfaceRow{}
	for _, i := range interfaces {
		by[i.UUID] = i
	}
	for _, r := range ports {
		if _, ours := slices.BinarySearch(l.bridge.Ports, r.UUID); !ours {
			continue
		}
		p := &port{portRow: r, doubt: r.odd()}
		l.ports[r.Name] = p
		down := 0
		for _, id := range r.Interfaces {
			i := by[id]
			k, doubt := i.link(numbers)
			p.doubt = cmp.Or(p.doubt, doubt)
			p.links = append(p.links, k)
			if k.config&ofPortDown != 0 {
				down++
			}
		}
		slices.SortFunc(p.links, func(a, b link) int { return strings.Compare(a.ours, b.ours) })
		p.off = down == len(p.links) && down > 0
		if down > 0 && !p.off && p.doubt == "" {
			p.doubt = fmt.Sprintf("has %d of %d links switched off", down, len(p.links))
		}
	}
}

// link finds the interface in the bridge itself.
func (i interfaceRow) link(numbers map[uint32]ofPort) (link, string) {
	k := link{ours: i.Name}
	if len(i.Error) > 0 {
		return k, i.Name + " does not work: " + i.Error[0]
	}
	if !slices.Contains(links, i.Type) {
		return k, i.Name + " is of type " + i.Type
	}
	if len(i.Number) != 1 || i.Number[0] < 1 {
		return k, i.Name + " is not in the bridge"
	}
	n, there := numbers[uint32(i.Number[0])]
	if !there || n.name != i.Name[:min(len(i.Name), 15)] {
		return k, i.Name + " is not in the bridge"
	}
	k.ofPort = n
	if n.config&(ofNoReceive|ofNoForward) != 0 {
		return k, i.Name + " is told not to receive or not to forward"
	}
	return k, ""
}

// view is what the port shows.
func (p *port) view() fleet.PortView {
	c, doubt := p.carries()
	c.Down = p.off
	return fleet.PortView{Port: p.Name, Carries: c, Doubt: cmp.Or(p.doubt, doubt)}
}

// judge makes the view: its ports, its mark and its findings.
func (l *look) judge(d *Driver, flows string) error {
	sw := d.o.Switch
	for _, name := range sw.Managed {
		if p := l.ports[name]; p != nil {
			l.view.Ports = append(l.view.Ports, p.view())
		} else {
			l.view.Ports = append(l.view.Ports, fleet.PortView{Port: name, Doubt: "is not a port of the bridge " + d.o.Bridge})
		}
	}
	var open []string
	for name, p := range l.ports {
		if slices.Contains(sw.Managed, name) || slices.Contains(sw.Uplinks, name) || name == d.o.Bridge {
			continue // the port with the bridge's name is the switch itself
		}
		v := p.view()
		l.view.Ports = append(l.view.Ports, v)
		if v.Doubt != "" && !v.Carries.Down {
			open = append(open, name+" "+v.Doubt)
		}
	}
	slices.SortFunc(l.view.Ports, func(a, b fleet.PortView) int { return strings.Compare(a.Port, b.Port) })
	slices.Sort(open)
	mark, err := sw.MarkOf(l.view.Ports)
	if err != nil {
		return err
	}
	l.view.Mark = joinMark(mark, l.bridge.External[change])
	if len(open) > 0 {
		l.find(findStranger, "%s, and is neither managed nor an uplink", strings.Join(open[:min(len(open), 3)], "; "))
	}
	if flows != "" {
		l.find(findFlows, "the bridge %s does not forward by VLANs alone: %s", d.o.Bridge, flows)
	}
	if len(l.bridge.Mirrors) > 0 {
		l.find(findMirror, "the bridge %s copies frames to somewhere: it has %d mirrors", d.o.Bridge, len(l.bridge.Mirrors))
	}
	if l.behind() {
		l.find(findBehind, "the switch has not done yet what its database says: it is at %d of %d", l.taken.Current, l.taken.Next)
	}
	return nil
}

func (l *look) find(code, format string, args ...any) {
	l.view.Findings = append(l.view.Findings, fleet.WireFinding{Code: code, Text: fmt.Sprintf(format, args...), Stops: true})
}

// A mark is what ports have and, after a plus, the change that was on its way.
func joinMark(ports, change string) string {
	if change == "" {
		return ports
	}
	return ports + "+" + change
}

func splitMark(m string) (ports, change string) {
	ports, change, _ = strings.Cut(m, "+")
	return ports, change
}
