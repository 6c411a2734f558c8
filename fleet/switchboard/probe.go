package switchboard

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// Canary speaks and listens in every VLAN of the domains that it is in.
type Canary interface {
	Has(domain string) bool
	// Begin begins a round and returns the agent's half of it; End judges it with what the agent reports.
	Begin(fleet.ProbePlan) (fleet.ProbeTask, error)
	End(fleet.ProbeReport) fleet.Probe
}

// fallback is what switches put ports into that are in nothing.
const fallback fleet.VLAN = 1

// Probes reports whether packets can show where ports of the node are.
func (b *Board) Probes(s fleet.Snapshot, n fleet.Node) (bool, error) {
	if b.Canary == nil {
		return false, nil
	}
	for _, x := range n.Wires() {
		if x.Fabric {
			continue
		}
		sw, _, err := maybe[fleet.Switch](s, switchKey(x.Device))
		if err != nil || sw != nil && b.Canary.Has(sw.Segment()) {
			return err == nil, err
		}
	}
	return false, nil
}

// BeginProbe begins a round of packets about the node's Ethernet ports, as they shall be now.
func (b *Board) BeginProbe(ctx context.Context, node fleet.NodeID) (fleet.ProbeTask, error) {
	if b.Canary == nil {
		return fleet.ProbeTask{}, fleet.Errorf(fleet.Refused, "MC-PROBE-CANARY", "this server has no canary any more").WithHint("metalctl node retry NODE")
	}
	var p fleet.ProbePlan
	err := b.Store.View(ctx, func(s fleet.Snapshot) (err error) {
		p, err = b.planned(s, node)
		return err
	})
	if err != nil {
		return fleet.ProbeTask{}, err
	}
	return b.Canary.Begin(p)
}

// planned says where each of the node's ports shall be that a canary can hear, and in which VLANs it is looked for: those of all networks of its domain, the
// quarantines and VLAN 1.
func (b *Board) planned(s fleet.Snapshot, node fleet.NodeID) (p fleet.ProbePlan, err error) {
	n, _, err := fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, node))
	if err != nil {
		return p, err
	}
	w, _, err := maybe[fleet.NodeWires](s, wiresKey(node))
	if err != nil {
		return p, err
	}
	if w == nil {
		w = &fleet.NodeWires{Node: node}
	}
	r, err := rulesOf(s, *w)
	if err != nil {
		return p, err
	}
	p.VLANs = map[string][]fleet.VLAN{}
	for _, x := range n.Wires() {
		sw, known := r.Switches[x.Device]
		if x.Fabric || !known || !b.Canary.Has(sw.Segment()) {
			continue
		}
		c, where, err := w.Shall(x, r)
		if err != nil {
			return p, err
		}
		at := fleet.PlannedPort{Domain: sw.Segment(), Switch: sw.Name, Port: x.Port, Network: where}
		if where != "" {
			at.VLAN = c.Untagged
		}
		for _, port := range n.Ports {
			if port.Switch == x.Device && port.Port == x.Port && port.MAC != "" && !slices.Contains(at.MACs, port.MAC) {
				at.MACs = append(at.MACs, port.MAC)
			}
		}
		p.Ports = append(p.Ports, at)
		p.VLANs[at.Domain] = []fleet.VLAN{fallback}
	}
	return p, b.inUse(s, r, p.VLANs)
}

// inUse adds to each domain the VLANs that may have somebody in them.
func (b *Board) inUse(s fleet.Snapshot, r fleet.WireRules, domains map[string][]fleet.VLAN) error {
	networks, err := fleet.List[fleet.Network](s, fleet.KindNetwork)
	if err != nil {
		return err
	}
	for d, all := range domains {
		for _, sw := range r.Switches {
			if sw.Segment() == d {
				all = append(all, sw.Quarantine)
			}
		}
		for _, n := range networks {
			if n.Domain == d && n.VLAN != 0 {
				all = append(all, n.VLAN)
			}
		}
		slices.Sort(all)
		domains[d] = slices.Compact(all)
	}
	return nil
}

// EndProbe judges a round and notes what it showed of the node's ports, as far as they are still where they were then. Where the record says something else by now
// nothing is shown.
func (b *Board) EndProbe(ctx context.Context, node fleet.NodeID, report fleet.ProbeReport) (fleet.Probe, error) {
	if b.Canary == nil {
		return fleet.Probe{Round: report.Round, At: b.Now().UTC(), Outcome: fleet.ProbeUntold}, nil
	}
	out := b.Canary.End(report)
	moved := false
	err := b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		w, rev, err := maybe[fleet.NodeWires](s, wiresKey(node))
		if err != nil || w == nil {
			return c, cmpErr(err)
		}
		moved = false
		next := *w
		next.Ports = slices.Clone(w.Ports)
		for _, p := range out.Ports {
			i := slices.IndexFunc(next.Ports, func(x fleet.WireProof) bool { return x.Switch == p.Switch && x.Port == p.Port })
			if i < 0 || next.Ports[i].Where != p.Network {
				moved = true
				continue
			}
			next.Ports[i].Packets = nil
			if p.Outcome == fleet.ProbePass || p.Outcome == fleet.ProbeSilent {
				next.Ports[i].Packets = &fleet.WirePackets{At: out.At, Outcome: p.Outcome, Apart: apart(p)}
			}
		}
		same, err := sameRecord(w, next)
		if err != nil || same {
			return c, cmpErr(err)
		}
		put(&c, wiresKey(node), rev, next)
		return c, nil
	})
	if moved && out.Outcome != fleet.ProbeLeak {
		out.Outcome = fleet.ProbeUntold
	}
	return out, err
}

// cmpErr is err, or that there is nothing to write.
func cmpErr(err error) error {
	if err != nil {
		return err
	}
	return errNothing
}

// apart counts the VLANs that a port was shown not to be in.
func apart(p fleet.ProbedPort) (n int) {
	for _, c := range p.Checks {
		if !c.Own {
			n++
		}
	}
	return n
}
