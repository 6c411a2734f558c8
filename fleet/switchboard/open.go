package switchboard

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// Open puts a node's ports for provisioning into the provisioning network, and its other Ethernet ports into quarantine, and reads them back.
func (b *Board) Open(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error) {
	return b.turned(ctx, node, true)
}

// Close takes a node's ports for provisioning out of the provisioning network again: into quarantine, or, where the wire is shared and a tenant has the node,
// into the tenant's network.
func (b *Board) Close(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error) {
	return b.turned(ctx, node, false)
}

func (b *Board) turned(ctx context.Context, node fleet.NodeID, open bool) (fleet.NodeWires, error) {
	var n fleet.Node
	var moved []fleet.Wire
	err := b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		if n, moved, err = movable(s, node); err != nil {
			return c, err
		}
		moved = slices.DeleteFunc(moved, func(x fleet.Wire) bool { return x.Fabric })
		w, rev, err := maybe[fleet.NodeWires](s, wiresKey(node))
		if err != nil {
			return c, err
		}
		next := fleet.NodeWires{Node: node, Since: b.Now().UTC()}
		if w != nil {
			next = *w
		}
		switch {
		case len(moved) == 0 || w != nil && w.Open == open:
			return c, errNothing
		case open && next.Leaving:
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-CONFLICT", "the ports of %s are not proven to be in quarantine yet", n.Name).WithHint("metalctl node show %s", n.Name)
		}
		if err := fleet.Alone(s, n); err != nil {
			return c, err
		}
		next.Open = open
		r, err := rulesOf(s, next)
		if err != nil {
			return c, err
		}
		next.Ports = slices.DeleteFunc(slices.Clone(next.Ports), func(p fleet.WireProof) bool { return p.Fabric == "" })
		next.Ports = append(next.Ports, moving(r, w, next, moved, "it is being moved")...)
		put(&c, wiresKey(node), rev, next)
		return c, nil
	})
	if err != nil || len(moved) == 0 {
		return fleet.NodeWires{}, err
	}
	views, err := b.moveAll(ctx, node, moved, true)
	if err != nil {
		return fleet.NodeWires{}, err
	}
	return b.proven(ctx, n, views)
}
