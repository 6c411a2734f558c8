package fabric

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// End is one port with an address of its own: each of a host's, and a switch's own.
type End struct {
	GUID fleet.GUID
	Type NodeType
	// Leaf and LeafPort are where its cable ends; "" for a switch.
	Leaf     fleet.GUID
	LeafPort int
	LID      int
	// SM is set where a subnet manager runs that answers.
	SM *SM
	// Keys are the entries of its table that are not empty, in their order; First is the entry at the first place, 0 where that is empty.
	Keys  []uint16
	First uint16
	// Table is all of it, empty places included.
	Table []uint16
	// Err says why its table could not be read.
	Err error
	// Route leads to it from the port where the sweep began.
	Route Route

	cap int
}

// SM is a subnet manager that was seen.
type SM struct {
	State    SMState
	Priority int
}

// Sweep is what was found by walking the whole fabric.
type Sweep struct {
	// Ends are in order of their GUIDs. A GUID that was found at two places is there twice.
	Ends []End
	// Silent are routes where a link is up and nothing answers.
	Silent []string
	// Switches is how many were found, Asked how many questions it took.
	Switches, Asked int
}

// Twice returns GUIDs that more than one port has.
func (s *Sweep) Twice() []fleet.GUID {
	var out []fleet.GUID
	for i := 1; i < len(s.Ends); i++ {
		if s.Ends[i].GUID == s.Ends[i-1].GUID && !slices.Contains(out, s.Ends[i].GUID) {
			out = append(out, s.Ends[i].GUID)
		}
	}
	return out
}

type place struct {
	node uint64
	port byte
}

type walk struct {
	st    *Station
	sweep *Sweep
	// seen are the switches, linked the far ends of cables that were walked, by switch and port.
	seen   map[uint64]bool
	linked map[place]bool
	// own is the place in Ends of the port where we are, -1 where that is a switch's.
	own int
}

// step is one cable to walk: from is its near end, the zero place for our own port.
type step struct {
	route Route
	from  place
}

// Sweep walks the fabric by directed routes, which need neither a subnet manager nor a common partition, and reads every table of partition keys.
func (s *Station) Sweep(ctx context.Context) (*Sweep, error) {
	w := walk{st: s, sweep: &Sweep{}, seen: map[uint64]bool{}, linked: map[place]bool{}, own: -1}
	steps := []step{{}}
	for len(steps) > 0 {
		next, err := w.wave(ctx, steps)
		if err != nil {
			return nil, err
		}
		steps = next
	}
	if err := w.describe(ctx); err != nil {
		return nil, err
	}
	if err := s.readKeys(ctx, w.sweep); err != nil {
		return nil, err
	}
	slices.SortStableFunc(w.sweep.Ends, func(a, b End) int { return cmp.Compare(a.GUID, b.GUID) })
	return w.sweep, nil
}

func (w *walk) ask(ctx context.Context, qs []question) ([]answer, error) {
	w.sweep.Asked += len(qs)
	return w.st.ask(ctx, qs)
}

// wave asks who is at the far end of each cable and returns the cables that go on from there.
func (w *walk) wave(ctx context.Context, steps []step) ([]step, error) {
	qs := make([]question, len(steps))
	for i, s := range steps {
		qs[i] = question{route: s.route, attr: attrNodeInfo}
	}
	answers, err := w.ask(ctx, qs)
	if err != nil {
		return nil, err
	}
	type switchAt struct {
		info nodeInfo
		step step
	}
	var found []switchAt
	var next []step
	for i, a := range answers {
		s := steps[i]
		if a.err != nil {
			w.sweep.Silent = append(w.sweep.Silent, a.err.Error())
			continue
		}
		n := decodeNodeInfo(a.data)
		w.linked[place{n.nodeGUID, n.localPort}] = true
		if w.own >= 0 && len(s.route) == 1 { // the far end of our own cable
			w.sweep.Ends[w.own].Leaf, w.sweep.Ends[w.own].LeafPort = fleet.GUIDOf(n.nodeGUID), int(n.localPort)
		}
		if n.kind != Switch {
			w.sweep.Ends = append(w.sweep.Ends, End{GUID: fleet.GUIDOf(n.portGUID), Type: n.kind, Leaf: guidOrNone(s.from), LeafPort: int(s.from.port), Route: s.route, cap: int(n.partitionCap)})
			if len(s.route) == 0 {
				w.own = 0
				next = append(next, step{route: s.route.to(n.localPort)})
			}
			continue
		}
		if !w.seen[n.nodeGUID] {
			w.seen[n.nodeGUID] = true
			w.sweep.Switches++
			w.sweep.Ends = append(w.sweep.Ends, End{GUID: fleet.GUIDOf(n.portGUID), Type: Switch, Route: s.route, cap: int(n.partitionCap)})
			found = append(found, switchAt{n, s})
		}
	}
	// Which of the ports of the new switches have a cable?
	qs = qs[:0]
	var near []place
	for _, f := range found {
		for p := 1; p <= int(f.info.ports) && len(f.step.route) < MaxHops; p++ {
			at := place{f.info.nodeGUID, byte(p)}
			if w.linked[at] {
				continue
			}
			qs = append(qs, question{route: f.step.route, attr: attrPortInfo, mod: uint32(p)})
			near = append(near, at)
		}
	}
	answers, err = w.ask(ctx, qs)
	if err != nil {
		return nil, err
	}
	for i, a := range answers {
		if a.err != nil {
			w.sweep.Silent = append(w.sweep.Silent, a.err.Error())
			continue
		}
		if decodePortInfo(a.data).linkUp {
			next = append(next, step{route: qs[i].route.to(near[i].port), from: near[i]})
		}
	}
	return next, nil
}

func guidOrNone(p place) fleet.GUID {
	if p.node == 0 {
		return ""
	}
	return fleet.GUIDOf(p.node)
}

// describe asks each end for its port's attributes, and each that says it has a subnet manager for that one. A device's own description is not asked for:
// its owner sets it, so that nothing may depend on it.
func (w *walk) describe(ctx context.Context) error {
	ends := w.sweep.Ends
	qs := make([]question, len(ends))
	for i, e := range ends {
		qs[i] = question{route: e.Route, attr: attrPortInfo}
	}
	answers, err := w.ask(ctx, qs)
	if err != nil {
		return err
	}
	var sms []question
	var at []int
	for i, a := range answers {
		if ends[i].Err = a.err; a.err != nil {
			continue
		}
		p := decodePortInfo(a.data)
		ends[i].LID = int(p.lid)
		if p.isSM {
			sms, at = append(sms, question{route: ends[i].Route, attr: attrSMInfo}), append(at, i)
		}
	}
	answers, err = w.ask(ctx, sms)
	if err != nil {
		return err
	}
	for i, a := range answers {
		if a.err == nil {
			m := decodeSMInfo(a.data)
			ends[at[i]].SM = &SM{State: m.state, Priority: int(m.priority)}
		}
	}
	return nil
}

// readKeys reads the table of each end that answered.
func (s *Station) readKeys(ctx context.Context, sweep *Sweep) error {
	var qs []question
	var at []int
	for i, e := range sweep.Ends {
		if e.Err != nil {
			continue
		}
		sweep.Ends[i].Keys, sweep.Ends[i].First, sweep.Ends[i].Table = nil, 0, make([]uint16, e.cap)
		for b := 0; b*blockKeys < e.cap; b++ {
			qs, at = append(qs, question{route: e.Route, attr: attrPKeyTable, mod: uint32(b)}), append(at, i)
		}
	}
	sweep.Asked += len(qs)
	answers, err := s.ask(ctx, qs)
	if err != nil {
		return err
	}
	for i, a := range answers {
		e := &sweep.Ends[at[i]]
		if a.err != nil {
			e.Err = fmt.Errorf("read its partition keys: %w", a.err)
			continue
		}
		block := int(qs[i].mod)
		for j, k := range decodeKeys(a.data, e.cap-block*blockKeys) {
			e.Table[block*blockKeys+j] = k
			if block == 0 && j == 0 {
				e.First = k
			}
			if k&0x7fff != 0 {
				e.Keys = append(e.Keys, k)
			}
		}
	}
	return nil
}
