package switchboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// proven notes what readings say of a node's ports and returns it. Ports of fabrics that were not read stay as they were. Where the node was leaving its
// partition and all of its ports are proven, it has left.
func (b *Board) proven(ctx context.Context, n fleet.Node, views map[string]fleet.WireView) (out fleet.NodeWires, err error) {
	err = b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		n, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, n.ID))
		if err != nil {
			return c, err
		}
		w, rev, err := maybe[fleet.NodeWires](s, wiresKey(n.ID))
		if err != nil {
			return c, err
		}
		if out, err = b.judge(s, n, w, views); err != nil {
			return c, err
		}
		if out.Leaving && out.Proven() {
			left := out
			out.Partition, out.Network, out.Lease, out.Leaving = "", "", "", false
			if err := errors.Join(b.orphaned(s, &c, left.Partition, n.ID), b.orphanedNetwork(s, &c, left.Network, n.ID)); err != nil {
				return c, err
			}
		}
		same, err := sameRecord(w, out)
		if err != nil {
			return c, err
		}
		if same {
			return c, errNothing
		}
		put(&c, wiresKey(n.ID), rev, out)
		return c, nil
	})
	return out, err
}

func sameRecord(w *fleet.NodeWires, out fleet.NodeWires) (bool, error) {
	if w == nil {
		return false, nil
	}
	before, err := json.Marshal(*w)
	if err != nil {
		return false, fmt.Errorf("encode wires: %w", err)
	}
	after, err := json.Marshal(out)
	if err != nil {
		return false, fmt.Errorf("encode wires: %w", err)
	}
	return bytes.Equal(before, after), nil
}

// judge is what is known of the node's ports after the readings: w, or a record of its own, with a port for each that the node has now.
func (b *Board) judge(s fleet.Snapshot, n fleet.Node, w *fleet.NodeWires, views map[string]fleet.WireView) (fleet.NodeWires, error) {
	out := fleet.NodeWires{Node: n.ID, Since: b.Now().UTC()}
	if w != nil {
		out = *w
	}
	r, err := rulesOf(s, out)
	if err != nil {
		return out, err
	}
	if out.Lease != "" && !out.Leaving && (out.Partition != "" && r.Partition == nil || out.Network != "" && r.Network == nil) {
		return out, fleet.Errorf(fleet.Broken, "MC-NET-PARTITION", "%s is in the partition %q and the network %q, one of which does not exist", n.Name, out.Partition, out.Network).WithHint("metalctl node release %s", n.Name)
	}
	required, err := ethernetRequired(s)
	if err != nil {
		return out, err
	}
	old := out.Ports
	out.Ports = nil
	for _, x := range n.Wires() {
		proof := proofOf(x, "it was not read yet")
		if i := slices.IndexFunc(old, func(o fleet.WireProof) bool { return o.Device() == x.Device && o.Port == x.Port }); i >= 0 {
			proof = old[i]
			proof.Rail = x.Rail
		}
		want, where, err := out.Shall(x, r)
		switch v, read := views[x.Device]; {
		case err != nil && !required && fleet.CodeOf(err) == "MC-SWITCH-UNKNOWN":
			continue // somebody else keeps it apart
		case err != nil:
			proof.Since, proof.Doubt = time.Time{}, err.Error()
		case read:
			shown(&proof, v, want, where == "")
		}
		if proof.Where = where; !proof.Since.IsZero() {
			proof.Was = ""
		}
		out.Ports = append(out.Ports, proof)
	}
	if why := n.Unwired(); required && why != "" {
		out.Ports = append(out.Ports, fleet.WireProof{Port: "ethernet", Doubt: why + ", so that nothing is proven of it"})
	}
	return out, nil
}

// proofOf is what is known of a port that was not read.
func proofOf(x fleet.Wire, why string) fleet.WireProof {
	if x.Fabric {
		return fleet.WireProof{Fabric: x.Device, Port: x.Port, Rail: x.Rail, Doubt: why}
	}
	return fleet.WireProof{Switch: x.Device, Port: x.Port, Doubt: why}
}

// shown notes what a view says of a port that shall carry want.
func shown(p *fleet.WireProof, v fleet.WireView, want fleet.Carries, quarantine bool) {
	seen := v.Port(p.Port)
	if seen == nil {
		seen = &fleet.PortView{Port: p.Port, Doubt: "is not among the ports that were read"}
	}
	p.Carries, p.Absent, p.Doubt = seen.Carries, seen.Absent, seen.Doubt
	if seen.Peer != "" {
		p.Peer = seen.Peer
	}
	switch {
	case quarantine && seen.Absent:
		p.Doubt = ""
	case seen.Doubt == "" && !seen.Carries.Equal(want):
		p.Doubt = fmt.Sprintf("carries %s, and %s was meant", seen.Carries, want)
	}
	if p.Doubt != "" {
		p.Since, p.Packets = time.Time{}, nil
	} else if p.Since.IsZero() {
		p.Since = v.At.UTC()
	}
}

// atRest are the states in which no tenant is on a node's wires: isolation is what the newest reading says.
var atRest = []fleet.State{fleet.Enrolled, fleet.Inspecting, fleet.Managed, fleet.Cleaning, fleet.Burning, fleet.Available, fleet.Allocated, fleet.Grace, fleet.Retired}

// settleNodes notes what a reading of a fabric says of all nodes there, and which of those at rest are isolated.
func (b *Board) settleNodes(ctx context.Context, name string, v fleet.WireView) error {
	var nodes []fleet.Node
	err := b.Store.View(ctx, func(s fleet.Snapshot) error {
		all, err := fleet.List[fleet.Node](s, fleet.KindNode)
		nodes = slices.DeleteFunc(all, func(n fleet.Node) bool { return !slices.Contains(n.Devices(), name) })
		return err
	})
	var errs []error
	for _, n := range nodes {
		w, err := b.proven(ctx, n, map[string]fleet.WireView{name: v})
		if err == nil {
			err = b.isolated(ctx, n.ID, w)
		}
		if fleet.KindOf(err) != fleet.NotFound { // it was forgotten meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, err)...)
}

func (b *Board) isolated(ctx context.Context, id fleet.NodeID, w fleet.NodeWires) error {
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		key := fleet.KeyOf(fleet.KindNode, id)
		n, rev, err := fleet.Get[fleet.Node](s, key)
		if err != nil {
			return c, err
		}
		now := w.Isolated()
		if n.Isolated == now || now && !slices.Contains(atRest, n.State) {
			return c, errNothing
		}
		n.Isolated = now
		text := n.Name + ": its ports are read back, and no tenant's"
		if !now {
			text = n.Name + ": its ports are not proven to be no tenant's any more: " + doubts(w)
		}
		put(&c, key, rev, n)
		c.Events = []fleet.Event{{Type: "node.isolated", At: b.Now().UTC(), Subject: key, Node: n.ID, Lease: n.Lease, Text: text}}
		return c, nil
	})
}

func doubts(w fleet.NodeWires) string {
	for _, p := range w.Ports {
		if p.Doubt != "" {
			return strings.TrimSpace(p.Port+" of "+p.Device()) + " " + p.Doubt
		}
	}
	return "they are those of the lease " + string(w.Lease)
}
