package switchboard

import (
	"context"
	"errors"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// tries is how often a commit is made anew where somebody else was first.
const tries = 20

// errNothing ends commit without one.
var errNothing = errors.New("nothing to write")

// commit lets make read a snapshot and say what to write, and writes it; again from the start where somebody else was first.
func (b *Board) commit(ctx context.Context, make func(fleet.Snapshot) (fleet.Change, error)) error {
	for try := 1; ; try++ {
		var c fleet.Change
		err := b.Store.View(ctx, func(s fleet.Snapshot) (err error) {
			c, err = make(s)
			return err
		})
		if errors.Is(err, errNothing) {
			return nil
		}
		if err == nil {
			_, err = b.Store.Commit(ctx, c)
		}
		if err == nil || fleet.CodeOf(err) != "MC-STORE-STALE" || try == tries {
			return err
		}
	}
}

// maybe reads a record; nil and revision 0 where there is none.
func maybe[T any](s fleet.Snapshot, key fleet.Key) (*T, fleet.Revision, error) {
	v, rev, err := fleet.Get[T](s, key)
	if fleet.KindOf(err) == fleet.NotFound {
		return nil, 0, nil
	}
	return &v, rev, err
}

// put adds a record to a change, under the revision that it was read at.
func put(c *fleet.Change, key fleet.Key, rev fleet.Revision, v any) {
	c.If = append(c.If, fleet.Precondition{Key: key, Revision: rev})
	c.Writes = append(c.Writes, fleet.Write{Key: key, Value: v})
}

func wiresKey(id fleet.NodeID) fleet.Key { return fleet.KeyOf(fleet.KindWires, id) }

func partitionKey(name string) fleet.Key { return fleet.KeyOf(fleet.KindPartition, name) }

func switchKey(name string) fleet.Key { return fleet.KeyOf(fleet.KindSwitch, name) }

func networkKey(name string) fleet.Key { return fleet.KeyOf(fleet.KindNetwork, name) }

func vlansKey(domain string) fleet.Key { return fleet.KeyOf(fleet.KindVLANs, domain) }

func poolKey(fabric string) fleet.Key { return fleet.KeyOf(fleet.KindPKeys, fabric) }

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

// users are the nodes whose ports are in something, or may still be.
func users(s fleet.Snapshot, in func(fleet.NodeWires) bool) ([]fleet.NodeID, error) {
	all, err := fleet.List[fleet.NodeWires](s, fleet.KindWires)
	var out []fleet.NodeID
	for _, w := range all {
		if in(w) {
			out = append(out, w.Node)
		}
	}
	slices.Sort(out)
	return out, err
}
