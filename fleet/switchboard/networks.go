package switchboard

import (
	"context"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// networkOf is the network that the lease's nodes are put into, made in c where it is the lease's own; nil where the node has no Ethernet port for tenants.
func (b *Board) networkOf(s fleet.Snapshot, c *fleet.Change, l fleet.Lease, moved []fleet.Wire) (*fleet.Network, error) {
	domain := ""
	for _, x := range moved {
		if x.Fabric || !x.Tenant {
			continue
		}
		sw, _, err := maybe[fleet.Switch](s, switchKey(x.Device))
		switch {
		case err != nil:
			return nil, err
		case sw == nil:
			return nil, unknownSwitch(x.Device)
		case domain != "" && domain != sw.Segment():
			return nil, fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "the node's ports for tenants are in two domains, %s and %s, and a network is in one", domain, sw.Segment()).
				WithHint("metalctl switch list")
		}
		domain = sw.Segment()
	}
	if domain == "" {
		return nil, nil
	}
	name, own := l.Request.Network, false
	if name == "" {
		name, own = fleet.LeasePartition(l.ID), true
	}
	n, rev, err := maybe[fleet.Network](s, networkKey(name))
	if err != nil {
		return nil, err
	}
	switch {
	case n == nil && own:
		made := fleet.Network{Name: name, Role: fleet.RoleTenant, Domain: domain, Lease: l.ID, CreatedBy: l.CreatedBy, CreatedAt: b.Now().UTC()}
		if err := b.tagged(s, c, &made); err != nil {
			return nil, err
		}
		put(c, networkKey(name), 0, made)
		return &made, nil
	case n == nil:
		return nil, fleet.Errorf(fleet.NotFound, "MC-NET-NETWORK", "there is no network %q", name).WithHint("metalctl network list")
	case n.Role != fleet.RoleTenant:
		return nil, fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "the network %s is for %s, and not for tenants", name, n.Role).WithHint("metalctl network list")
	case n.Domain != domain:
		return nil, fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "the network %s is in the domain %s, and the node's ports for tenants are in %s", name, n.Domain, domain).WithHint("metalctl network list")
	}
	// It must not be removed before the node is noted as being in it.
	c.If = append(c.If, fleet.Precondition{Key: networkKey(name), Revision: rev})
	return n, nil
}

// tagged gives the network a VLAN of its domain's pool, that which it asks for where it asks for one.
func (b *Board) tagged(s fleet.Snapshot, c *fleet.Change, n *fleet.Network) error {
	pool, rev, err := maybe[fleet.TagPool](s, vlansKey(n.Domain))
	if err != nil {
		return err
	}
	if pool == nil {
		return fleet.Errorf(fleet.NotFound, "MC-SWITCH-UNKNOWN", "no switch is in the domain %q", n.Domain).WithHint("metalctl switch list")
	}
	tag, owner := uint16(n.VLAN), "network/"+n.Name
	if tag == 0 {
		tag, err = pool.Take(owner, b.Now())
	} else {
		err = pool.Claim(tag, owner, b.Now())
	}
	if err != nil {
		return err
	}
	n.VLAN = fleet.VLAN(tag)
	put(c, vlansKey(n.Domain), rev, *pool)
	return nil
}

// untagged removes a network: its VLAN rests until every switch of its domain was read without it.
func (b *Board) untagged(s fleet.Snapshot, c *fleet.Change, name string) error {
	n, rev, err := maybe[fleet.Network](s, networkKey(name))
	if err != nil || n == nil {
		return err
	}
	c.If = append(c.If, fleet.Precondition{Key: networkKey(name), Revision: rev})
	c.Writes = append(c.Writes, fleet.Write{Key: networkKey(name)})
	pool, poolRev, err := maybe[fleet.TagPool](s, vlansKey(n.Domain))
	if err != nil || pool == nil {
		return err
	}
	in, err := inDomain(s, n.Domain)
	if err != nil {
		return err
	}
	var devices []string
	for _, x := range in {
		devices = append(devices, x.Name)
	}
	pool.Free(uint16(n.VLAN), devices, b.Now().UTC())
	put(c, vlansKey(n.Domain), poolRev, *pool)
	return nil
}

// orphanedNetwork drops a lease's own network that the node was the last one in.
func (b *Board) orphanedNetwork(s fleet.Snapshot, c *fleet.Change, name string, node fleet.NodeID) error {
	n, _, err := maybe[fleet.Network](s, networkKey(name))
	if name == "" || err != nil || n == nil || n.Lease == "" {
		return err
	}
	in, err := users(s, func(w fleet.NodeWires) bool { return w.Network == name })
	if err != nil || slices.ContainsFunc(in, func(id fleet.NodeID) bool { return id != node }) {
		return err
	}
	return b.untagged(s, c, name)
}

// PutNetwork creates a network, or changes what of one is no wire's: its VLAN, role, domain and protection stay as they are.
func (b *Board) PutNetwork(ctx context.Context, n fleet.Network, by string) error {
	n.Lease, n.CreatedBy, n.CreatedAt = "", by, b.Now().UTC()
	faults := n.Validate()
	if strings.HasPrefix(n.Name, fleet.LeasePartition("")) {
		faults = append(faults, fleet.FieldError{Field: "name", Message: "begins with " + fleet.LeasePartition("") + ": such are made for leases"})
	}
	if len(faults) > 0 {
		return invalid("the network "+n.Name, faults)
	}
	key := networkKey(n.Name)
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		next := n
		old, rev, err := maybe[fleet.Network](s, key)
		if err != nil {
			return c, err
		}
		if next.Role == fleet.RoleProvisioning {
			all, err := fleet.List[fleet.Network](s, fleet.KindNetwork)
			if err != nil {
				return c, err
			}
			if i := slices.IndexFunc(all, func(x fleet.Network) bool {
				return x.Role == next.Role && x.Domain == next.Domain && x.Name != next.Name
			}); i >= 0 {
				return c, fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "%s is the provisioning network of the domain %s already", all[i].Name, next.Domain).WithHint("metalctl network show %s", all[i].Name)
			}
		}
		if old != nil {
			if next.Role != old.Role || next.Domain != old.Domain || next.VLAN != 0 && next.VLAN != old.VLAN || next.Protected != old.Protected {
				return c, fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "role, domain, VLAN and protection of the network %s stay as they are", n.Name).WithHint("metalctl network remove %s", n.Name)
			}
			if err := keepsGiven(s, &c, next); err != nil {
				return c, err
			}
			next.VLAN, next.CreatedBy, next.CreatedAt = old.VLAN, old.CreatedBy, old.CreatedAt
		} else if err := b.tagged(s, &c, &next); err != nil {
			return c, err
		}
		put(&c, key, rev, next)
		c.Events = b.event("network.changed", key, "network %s, VLAN %d of %s, changed by %s", next.Name, next.VLAN, next.Domain, by)
		return c, nil
	})
}

// keepsGiven is an error where a member of a lease has an address that would be of no subnet of the network any more.
func keepsGiven(s fleet.Snapshot, c *fleet.Change, next fleet.Network) error {
	_, epoch, err := maybe[int64](s, fleet.AllocationEpoch)
	if err != nil {
		return err
	}
	leases, err := fleet.List[fleet.Lease](s, fleet.KindLease)
	if err != nil {
		return err
	}
	for _, g := range fleet.Given(leases, next.Name) {
		if next.Of(g.Address) == nil {
			return fleet.Errorf(fleet.Conflict, "MC-NET-ADDRESS", "%s of lease %s has the address %s, which would be of no subnet of the network %s any more", g.Node, g.Lease, g.Address, next.Name).
				WithHint("metalctl network show %s", next.Name)
		}
	}
	c.If = append(c.If, fleet.Precondition{Key: fleet.AllocationEpoch, Revision: epoch}) // no other was given meanwhile
	return nil
}

// RemoveNetwork drops a network that no node is in and no lease names. Its VLAN rests before it is used again.
func (b *Board) RemoveNetwork(ctx context.Context, name, by string) error {
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		n, _, err := maybe[fleet.Network](s, networkKey(name))
		if err != nil {
			return c, err
		}
		if n == nil {
			return c, fleet.Errorf(fleet.NotFound, "MC-NET-NETWORK", "there is no network %q", name).WithHint("metalctl network list")
		}
		in, err := users(s, func(w fleet.NodeWires) bool {
			return w.Network == name || slices.ContainsFunc(w.Ports, func(p fleet.WireProof) bool { return p.Switch != "" && (p.Where == name || p.Was == name) })
		})
		if err != nil {
			return c, err
		}
		if len(in) > 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "%d nodes are in the network %s", len(in), name).WithHint("metalctl network show %s", name)
		}
		leases, err := fleet.List[fleet.Lease](s, fleet.KindLease)
		if err != nil {
			return c, err
		}
		if i := slices.IndexFunc(leases, func(l fleet.Lease) bool { return !l.State.Over() && (l.Request.Network == name || l.ID == n.Lease) }); i >= 0 {
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "the lease %s is for the network %s", leases[i].ID, name).WithHint("metalctl lease show %s", leases[i].ID)
		}
		if err := b.untagged(s, &c, name); err != nil {
			return c, err
		}
		c.Events = b.event("network.removed", networkKey(name), "network %s removed by %s", name, by)
		return c, nil
	})
}
