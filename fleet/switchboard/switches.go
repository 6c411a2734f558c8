package switchboard

import (
	"context"
	"fmt"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

func unknownSwitch(name string) error {
	return fleet.Errorf(fleet.NotFound, "MC-SWITCH-UNKNOWN", "there is no switch %q", name).WithHint("metalctl switch list")
}

func inDomain(s fleet.Snapshot, domain string) ([]fleet.Switch, error) {
	all, err := fleet.List[fleet.Switch](s, fleet.KindSwitch)
	return slices.DeleteFunc(all, func(x fleet.Switch) bool { return x.Segment() != domain }), err
}

// DeclareSwitch creates or replaces a switch. Switches of one domain agree on their VLANs, and a port stays managed while it is not in quarantine.
func (b *Board) DeclareSwitch(ctx context.Context, x fleet.Switch, by string) error {
	if faults := x.Validate(); len(faults) > 0 {
		return invalid("the switch "+x.Name, faults)
	}
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		if err := unlike(s, fleet.KeyOf(fleet.KindFabric, x.Name), "fabric"); err != nil {
			return c, err
		}
		if err := keptPorts(s, x.Name, func(port string) bool { return slices.Contains(x.Managed, port) }); err != nil {
			return c, err
		}
		old, rev, err := maybe[fleet.Switch](s, switchKey(x.Name))
		if err != nil {
			return c, err
		}
		if old != nil && old.Segment() != x.Segment() {
			return c, fleet.Errorf(fleet.Conflict, "MC-SWITCH-USED", "the switch %s is in the domain %s, and stays there", x.Name, old.Segment()).WithHint("metalctl switch remove %s", x.Name)
		}
		others, err := inDomain(s, x.Segment())
		if err != nil {
			return c, err
		}
		for _, o := range others {
			if o.Name != x.Name && (o.First != x.First || o.Last != x.Last || o.Quarantine != x.Quarantine) {
				return c, fleet.Errorf(fleet.Conflict, "MC-SWITCH-DOMAIN", "%s and %s are both in the domain %s: VLANs %d to %d with quarantine %d, and %d to %d with quarantine %d",
					x.Name, o.Name, x.Segment(), x.First, x.Last, x.Quarantine, o.First, o.Last, o.Quarantine).WithHint("metalctl switch show %s", o.Name)
			}
		}
		pool, poolRev, err := maybe[fleet.TagPool](s, vlansKey(x.Segment()))
		if err != nil {
			return c, err
		}
		if pool == nil {
			pool = fleet.NewVLANs(x)
		}
		pool.First, pool.Last = uint16(x.First), uint16(x.Last)
		if faults := pool.Check(); len(faults) > 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-SWITCH-USED", "VLANs of %s are in use, or rest, outside of that range: %s %s", x.Segment(), faults[0].Field, faults[0].Message).WithHint("metalctl network list")
		}
		put(&c, switchKey(x.Name), rev, x)
		put(&c, vlansKey(x.Segment()), poolRev, *pool)
		c.Events = b.event("switch.changed", switchKey(x.Name), "switch %s changed by %s", x.Name, by)
		return c, nil
	})
}

// DropSwitch removes a switch that no node is at. It is not touched. The pool of its domain goes with the last switch there.
func (b *Board) DropSwitch(ctx context.Context, name, by string) error {
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		x, rev, err := maybe[fleet.Switch](s, switchKey(name))
		if err != nil {
			return c, err
		}
		if x == nil {
			return c, unknownSwitch(name)
		}
		nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
		if err != nil {
			return c, err
		}
		if i := slices.IndexFunc(nodes, func(n fleet.Node) bool {
			return slices.ContainsFunc(n.Wires(), func(w fleet.Wire) bool { return !w.Fabric && w.Device == name })
		}); i >= 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-SWITCH-USED", "%s has ports at the switch %s", nodes[i].Name, name).WithHint("metalctl node list")
		}
		rest, err := inDomain(s, x.Segment())
		if err != nil {
			return c, err
		}
		pool, poolRev, err := maybe[fleet.TagPool](s, vlansKey(x.Segment()))
		if err != nil {
			return c, err
		}
		c.If = append(c.If, fleet.Precondition{Key: switchKey(name), Revision: rev})
		c.Writes = append(c.Writes, fleet.Write{Key: switchKey(name)})
		if pool != nil && len(rest) == 1 {
			if len(pool.Used) > 0 {
				return c, fleet.Errorf(fleet.Conflict, "MC-SWITCH-USED", "%d networks have a VLAN of the domain %s, whose last switch this is", len(pool.Used), x.Segment()).WithHint("metalctl network list")
			}
			c.If = append(c.If, fleet.Precondition{Key: vlansKey(x.Segment()), Revision: poolRev})
			c.Writes = append(c.Writes, fleet.Write{Key: vlansKey(x.Segment())})
		} else if pool != nil {
			before := fmt.Sprint(pool.Resting)
			if pool.Forget(name, b.Now().UTC()); fmt.Sprint(pool.Resting) != before {
				put(&c, vlansKey(x.Segment()), poolRev, *pool)
			}
		}
		c.Events = b.event("switch.removed", switchKey(name), "switch %s removed by %s", name, by)
		return c, nil
	})
}
