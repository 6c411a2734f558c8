package switchboard

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Create makes a partition that leases can name. A key that is 0 is taken from its fabric's pool.
func (b *Board) Create(ctx context.Context, p fleet.TenantPartition, by string) error {
	if faults := p.Validate(); len(faults) > 0 {
		return invalid("the partition "+p.Name, faults)
	}
	if strings.HasPrefix(p.Name, fleet.LeasePartition("")) {
		return invalid("the partition "+p.Name, []fleet.FieldError{{Field: "name", Message: "begins with " + fleet.LeasePartition("") + ": such are made for leases"}})
	}
	key := partitionKey(p.Name)
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		old, _, err := maybe[fleet.TenantPartition](s, key)
		if err != nil {
			return c, err
		}
		if old != nil {
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "there is a partition %s already", p.Name).WithHint("metalctl partition show %s", p.Name)
		}
		made := fleet.TenantPartition{Name: p.Name, CreatedBy: by, CreatedAt: b.Now().UTC()}
		for _, k := range p.Keys {
			if err := b.taken(s, &c, &made, k.Fabric, k.PKey); err != nil {
				return c, err
			}
		}
		put(&c, key, 0, made)
		c.Events = b.event("partition.created", key, "partition %s created by %s", p.Name, by)
		return c, nil
	})
}

// Remove drops a partition that no node is in and no lease names. Its keys rest before they are used again.
func (b *Board) Remove(ctx context.Context, name, by string) error {
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		p, _, err := maybe[fleet.TenantPartition](s, partitionKey(name))
		if err != nil {
			return c, err
		}
		if p == nil {
			return c, fleet.Errorf(fleet.NotFound, "MC-NET-PARTITION", "there is no partition %q", name).WithHint("metalctl partition list")
		}
		in, err := users(s, func(w fleet.NodeWires) bool { return w.Partition == name })
		if err != nil {
			return c, err
		}
		if len(in) > 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "%d nodes are in the partition %s", len(in), name).WithHint("metalctl partition show %s", name)
		}
		leases, err := fleet.List[fleet.Lease](s, fleet.KindLease)
		if err != nil {
			return c, err
		}
		if i := slices.IndexFunc(leases, func(l fleet.Lease) bool { return !l.State.Over() && (l.Request.Partition == name || l.ID == p.Lease) }); i >= 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "the lease %s is for the partition %s", leases[i].ID, name).WithHint("metalctl lease show %s", leases[i].ID)
		}
		if err := b.dropped(s, &c, name); err != nil {
			return c, err
		}
		c.Events = b.event("partition.removed", partitionKey(name), "partition %s removed by %s", name, by)
		return c, nil
	})
}

// partitionOf names the partition that the lease's nodes are put into, made or given more keys in c where it needs them; "" where the node has no fabric ports.
func (b *Board) partitionOf(s fleet.Snapshot, c *fleet.Change, l fleet.Lease, n fleet.Node) (string, error) {
	if len(n.FabricPorts()) == 0 {
		return "", nil
	}
	name, own := l.Request.Partition, false
	if name == "" {
		name, own = fleet.LeasePartition(l.ID), true
	}
	p, rev, err := maybe[fleet.TenantPartition](s, partitionKey(name))
	if err != nil {
		return "", err
	}
	if p == nil && !own {
		return "", fleet.Errorf(fleet.NotFound, "MC-NET-PARTITION", "there is no partition %q", name).WithHint("metalctl partition list")
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
			return "", fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "the partition %s has no key in the fabric %s, where %s has ports", name, f, n.Name).
				WithHint("metalctl partition show %s", name)
		}
		if err := b.taken(s, c, p, f, 0); err != nil {
			return "", err
		}
		changed = true
	}
	if changed {
		put(c, partitionKey(name), rev, *p)
	} else {
		// It must not be removed before the node is noted as being in it.
		c.If = append(c.If, fleet.Precondition{Key: partitionKey(name), Revision: rev})
	}
	return name, nil
}

// taken gives the partition a key in the fabric and notes that in the fabric's pool. A key that is asked for is given where it is free.
func (b *Board) taken(s fleet.Snapshot, c *fleet.Change, p *fleet.TenantPartition, fabric string, ask fleet.PKey) error {
	pool, rev, err := fleet.Get[fleet.TagPool](s, poolKey(fabric))
	if fleet.KindOf(err) == fleet.NotFound {
		return fleet.Errorf(fleet.NotFound, "MC-FABRIC-UNKNOWN", "there is no fabric %q", fabric).WithHint("metalctl fabric list")
	}
	if err != nil {
		return err
	}
	key := uint16(ask)
	if ask == 0 {
		key, err = pool.Take("partition/"+p.Name, b.Now())
	} else {
		err = pool.Claim(key, "partition/"+p.Name, b.Now())
	}
	if err != nil {
		return err
	}
	p.Keys = append(p.Keys, fleet.FabricKey{Fabric: fabric, PKey: fleet.PKey(key)})
	put(c, poolKey(fabric), rev, pool)
	return nil
}

// dropped removes a partition: its keys rest until their fabrics were read without them.
func (b *Board) dropped(s fleet.Snapshot, c *fleet.Change, name string) error {
	p, rev, err := maybe[fleet.TenantPartition](s, partitionKey(name))
	if err != nil || p == nil {
		return err
	}
	c.If = append(c.If, fleet.Precondition{Key: partitionKey(name), Revision: rev})
	c.Writes = append(c.Writes, fleet.Write{Key: partitionKey(name)})
	for _, k := range p.Keys {
		pool, rev, err := maybe[fleet.TagPool](s, poolKey(k.Fabric))
		if err != nil {
			return err
		}
		if pool != nil {
			pool.Free(uint16(k.PKey), []string{k.Fabric}, b.Now().UTC())
			put(c, poolKey(k.Fabric), rev, pool)
		}
	}
	return nil
}

// orphaned drops a lease's own partition that the node was the last one in.
func (b *Board) orphaned(s fleet.Snapshot, c *fleet.Change, name string, node fleet.NodeID) error {
	p, _, err := maybe[fleet.TenantPartition](s, partitionKey(name))
	if err != nil || p == nil || p.Lease == "" {
		return err
	}
	in, err := users(s, func(w fleet.NodeWires) bool { return w.Partition == name })
	if err != nil || slices.ContainsFunc(in, func(id fleet.NodeID) bool { return id != node }) {
		return err
	}
	return b.dropped(s, c, name)
}
