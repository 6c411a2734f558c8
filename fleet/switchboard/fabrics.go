package switchboard

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// Declare creates or replaces a fabric. Keys that are used stay within its range.
func (b *Board) Declare(ctx context.Context, f fleet.Fabric, by string) error {
	if faults := f.Validate(); len(faults) > 0 {
		return invalid("the fabric "+f.Name, faults)
	}
	key := fleet.KeyOf(fleet.KindFabric, f.Name)
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		if err := unlike(s, switchKey(f.Name), "switch"); err != nil {
			return c, err
		}
		if err := keptPorts(s, f.Name, func(port string) bool { return slices.Contains(f.Managed, fleet.GUID(port)) }); err != nil {
			return c, err
		}
		_, rev, err := maybe[fleet.Fabric](s, key)
		if err != nil {
			return c, err
		}
		pool, poolRev, err := maybe[fleet.TagPool](s, poolKey(f.Name))
		if err != nil {
			return c, err
		}
		if pool == nil {
			pool = fleet.NewPKeys(f)
		}
		pool.First, pool.Last = uint16(f.First), uint16(f.Last)
		if faults := pool.Check(); len(faults) > 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-FABRIC-USED", "keys of %s are in use, or rest, outside of that range: %s %s", f.Name, faults[0].Field, faults[0].Message).
				WithHint("metalctl partition list")
		}
		put(&c, key, rev, f)
		put(&c, poolKey(f.Name), poolRev, *pool)
		c.Events = b.event("fabric.changed", key, "fabric %s changed by %s", f.Name, by)
		return c, nil
	})
}

// Drop removes a fabric that no partition and no node is in. Its devices are not touched.
func (b *Board) Drop(ctx context.Context, name, by string) error {
	key := fleet.KeyOf(fleet.KindFabric, name)
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		_, rev, err := fleet.Get[fleet.Fabric](s, key)
		if fleet.KindOf(err) == fleet.NotFound {
			return c, fleet.Errorf(fleet.NotFound, "MC-FABRIC-UNKNOWN", "there is no fabric %q", name).WithHint("metalctl fabric list")
		}
		if err != nil {
			return c, err
		}
		pool, poolRev, err := maybe[fleet.TagPool](s, poolKey(name))
		if err != nil {
			return c, err
		}
		if pool != nil && len(pool.Used) > 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-FABRIC-USED", "%d partitions have a key of the fabric %s", len(pool.Used), name).WithHint("metalctl partition list")
		}
		nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
		if err != nil {
			return c, err
		}
		if i := slices.IndexFunc(nodes, func(n fleet.Node) bool { return len(n.FabricPorts()[name]) > 0 }); i >= 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-FABRIC-USED", "%s has ports in the fabric %s", nodes[i].Name, name).WithHint("metalctl node list")
		}
		c.If = append(c.If, fleet.Precondition{Key: key, Revision: rev})
		c.Writes = append(c.Writes, fleet.Write{Key: key})
		if pool != nil {
			c.If = append(c.If, fleet.Precondition{Key: poolKey(name), Revision: poolRev})
			c.Writes = append(c.Writes, fleet.Write{Key: poolKey(name)})
		}
		c.Events = b.event("fabric.removed", key, "fabric %s removed by %s", name, by)
		return c, nil
	})
}
