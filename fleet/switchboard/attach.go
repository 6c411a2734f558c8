package switchboard

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// Attach puts a node's fabric ports into the partition of its lease, and reads them back. A lease that names none gets one of its own. Where one port of one
// fabric is not proven, all of them go back into quarantine, and the error says why. A node without such ports is left alone, with no wires.
func (b *Board) Attach(ctx context.Context, node fleet.NodeID, lease fleet.LeaseID) (fleet.NodeWires, error) {
	var n fleet.Node
	var p fleet.TenantPartition
	err := b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		if n, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, node)); err != nil {
			return c, err
		}
		l, leaseRev, err := fleet.Get[fleet.Lease](s, fleet.KeyOf(fleet.KindLease, lease))
		if err != nil {
			return c, err
		}
		if len(n.FabricPorts()) == 0 {
			return c, errNothing
		}
		if p, err = b.partitionOf(s, &c, l, n); err != nil {
			return c, err
		}
		// A lease that is over by now gets no wires.
		c.If = append(c.If, fleet.Precondition{Key: fleet.KeyOf(fleet.KindLease, lease), Revision: leaseRev})
		w, rev, err := maybe[fleet.NodeWires](s, wiresKey(node))
		if err != nil {
			return c, err
		}
		if w != nil && w.Partition == p.Name && !w.Leaving && w.Lease == lease {
			if len(c.Writes) == 0 {
				return c, errNothing // taken up again
			}
			return c, nil
		}
		if w != nil && w.Partition != "" && w.Partition != p.Name {
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-CONFLICT", "%s is still in the partition %s", n.Name, w.Partition).WithHint("metalctl node show %s", n.Name)
		}
		put(&c, wiresKey(node), rev, fleet.NodeWires{Node: node, Partition: p.Name, Lease: lease, Since: b.Now().UTC(), Ports: unproven(n, "it is being moved")})
		return c, nil
	})
	if err != nil || len(n.FabricPorts()) == 0 {
		return fleet.NodeWires{}, err
	}
	views, err := b.moveAll(ctx, n, &p)
	if err != nil {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), goBack)
		defer cancel()
		_, backErr := b.Quarantine(back, node)
		return fleet.NodeWires{}, errors.Join(err, backErr)
	}
	return b.proven(ctx, n, views)
}

// Quarantine takes a node's fabric ports out of every partition and reads them back. All fabrics are tried, whatever one of them answers. The partition that was
// made for its lease goes when the last node has left it.
func (b *Board) Quarantine(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error) {
	var n fleet.Node
	err := b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		if n, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, node)); err != nil {
			return c, err
		}
		w, rev, err := maybe[fleet.NodeWires](s, wiresKey(node))
		if err != nil {
			return c, err
		}
		if w != nil && w.Leaving || w == nil && len(n.FabricPorts()) == 0 {
			return c, errNothing
		}
		next := fleet.NodeWires{Node: node, Since: b.Now().UTC(), Ports: unproven(n, "it is being put into quarantine")}
		if w != nil {
			next.Partition, next.Lease, next.Leaving = w.Partition, w.Lease, true
		}
		put(&c, wiresKey(node), rev, next)
		return c, nil
	})
	if err != nil || len(n.FabricPorts()) == 0 {
		return fleet.NodeWires{}, err
	}
	views, err := b.moveAll(ctx, n, nil)
	w, proveErr := b.proven(ctx, n, views)
	return w, errors.Join(err, proveErr)
}

// moveAll moves the node's ports in all of its fabrics and returns the readings of those that were proven.
func (b *Board) moveAll(ctx context.Context, n fleet.Node, p *fleet.TenantPartition) (map[string]fleet.WireView, error) {
	views := map[string]fleet.WireView{}
	var errs []error
	ports := n.FabricPorts()
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		want := map[string]fleet.Carries{}
		for _, port := range ports[name] {
			want[string(port.GUID)] = fleet.Want(p, name)
		}
		v, err := b.Move(ctx, name, want)
		if err != nil {
			errs = append(errs, err)
			if p != nil {
				break
			}
			continue
		}
		views[name] = v
	}
	return views, errors.Join(errs...)
}

// partitionOf is the partition that the lease's nodes are put into, made or given more keys in c where it needs them.
func (b *Board) partitionOf(s fleet.Snapshot, c *fleet.Change, l fleet.Lease, n fleet.Node) (fleet.TenantPartition, error) {
	name, own := l.Request.Partition, false
	if name == "" {
		name, own = fleet.LeasePartition(l.ID), true
	}
	p, rev, err := maybe[fleet.TenantPartition](s, partitionKey(name))
	if err != nil {
		return fleet.TenantPartition{}, err
	}
	if p == nil && !own {
		return fleet.TenantPartition{}, fleet.Errorf(fleet.NotFound, "MC-NET-PARTITION", "there is no partition %q", name).WithHint("metalctl partition list")
	}
	if p == nil {
		p = &fleet.TenantPartition{Name: name, Lease: l.ID, CreatedBy: l.CreatedBy, CreatedAt: b.Now().UTC()}
	}
	changed := false
	for _, f := range slices.Sorted(maps.Keys(n.FabricPorts())) {
		if p.Key(f) != 0 {
			continue
		}
		if !own {
			return *p, fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "the partition %s has no key in the fabric %s, where %s has ports", name, f, n.Name).
				WithHint("metalctl partition show %s", name)
		}
		if err := b.taken(s, c, p, f, 0); err != nil {
			return *p, err
		}
		changed = true
	}
	if changed {
		put(c, partitionKey(name), rev, *p)
	} else {
		// It must not be removed before the node is noted as being in it.
		c.If = append(c.If, fleet.Precondition{Key: partitionKey(name), Revision: rev})
	}
	return *p, nil
}

// unproven is what is known of ports that are about to be moved.
func unproven(n fleet.Node, why string) []fleet.WireProof {
	var out []fleet.WireProof
	for _, p := range n.Ports {
		if p.Role == fleet.PortFabric {
			out = append(out, fleet.WireProof{Fabric: p.Fabric, Port: string(p.GUID), Rail: p.Rail, Doubt: why})
		}
	}
	return out
}
