package switchboard

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Attach puts a node's fabric ports into the partition of its lease, then its Ethernet ports for tenants into the lease's network, and reads them back. A lease
// that names none gets one of its own. Where one port is not proven, all of them go back into quarantine, and the error says why. A node without ports that
// anybody moves is left alone, with no wires.
func (b *Board) Attach(ctx context.Context, node fleet.NodeID, lease fleet.LeaseID) (fleet.NodeWires, error) {
	var n fleet.Node
	var moved []fleet.Wire
	err := b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		if n, moved, err = movable(s, node); err != nil {
			return c, err
		}
		l, leaseRev, err := fleet.Get[fleet.Lease](s, fleet.KeyOf(fleet.KindLease, lease))
		if err != nil {
			return c, err
		}
		if len(moved) == 0 {
			return c, errNothing
		}
		if err := fleet.Alone(s, n); err != nil {
			return c, err
		}
		next := fleet.NodeWires{Node: node, Lease: lease, Since: b.Now().UTC()}
		if next.Partition, err = b.partitionOf(s, &c, l, n); err != nil {
			return c, err
		}
		net, err := b.networkOf(s, &c, l, moved)
		if err != nil {
			return c, err
		}
		if net != nil {
			next.Network = net.Name
		}
		// A lease that is over by now gets no wires.
		c.If = append(c.If, fleet.Precondition{Key: fleet.KeyOf(fleet.KindLease, lease), Revision: leaseRev})
		w, rev, err := maybe[fleet.NodeWires](s, wiresKey(node))
		if err != nil {
			return c, err
		}
		if w != nil && w.Partition == next.Partition && w.Network == next.Network && !w.Leaving && w.Lease == lease {
			if len(c.Writes) == 0 {
				return c, errNothing // taken up again
			}
			return c, nil
		}
		if w != nil && (w.Partition != "" && w.Partition != next.Partition || w.Network != "" && w.Network != next.Network) {
			return c, fleet.Errorf(fleet.Conflict, "MC-NET-CONFLICT", "%s is still in %s", n.Name, strings.Join(slices.DeleteFunc([]string{w.Partition, w.Network}, func(x string) bool { return x == "" }), " and ")).
				WithHint("metalctl node show %s", n.Name)
		}
		next.Open = w != nil && w.Open && !w.Leaving
		r, err := rulesOf(s, next)
		if err != nil {
			return c, err
		}
		r.Network = net // it may be made only now
		next.Ports = moving(r, w, next, moved, "it is being moved")
		put(&c, wiresKey(node), rev, next)
		return c, nil
	})
	if err != nil || len(moved) == 0 {
		return fleet.NodeWires{}, err
	}
	views, err := b.moveAll(ctx, node, moved, true)
	if err != nil {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), goBack)
		defer cancel()
		_, backErr := b.Quarantine(back, node)
		return fleet.NodeWires{}, errors.Join(err, backErr)
	}
	return b.proven(ctx, n, views)
}

// Quarantine takes a node's Ethernet ports out of every network, then its fabric ports out of every partition, and reads them back. All devices are tried,
// whatever one of them answers. The partition and the network that were made for its lease go when the last node has left them. A port that another node names,
// too, is left as it is where that one has it or this one never had: it is then not proven, and the error names both.
func (b *Board) Quarantine(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error) {
	var n fleet.Node
	var moved []fleet.Wire
	var others error
	err := b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		if n, moved, err = movable(s, node); err != nil {
			return c, err
		}
		w, rev, err := maybe[fleet.NodeWires](s, wiresKey(node))
		if err != nil {
			return c, err
		}
		all := moved
		if moved, others, err = ownPorts(s, n, w, moved); err != nil {
			return c, err
		}
		if w != nil && w.Leaving || w == nil && len(all) == 0 {
			return c, errNothing
		}
		next := fleet.NodeWires{Node: node, Since: b.Now().UTC()}
		if w != nil {
			next.Partition, next.Network, next.Lease, next.Leaving = w.Partition, w.Network, w.Lease, true
		}
		r, err := rulesOf(s, next)
		if err != nil {
			return c, err
		}
		next.Ports = moving(r, w, next, all, "it is being put into quarantine")
		put(&c, wiresKey(node), rev, next)
		return c, nil
	})
	if err != nil || len(moved) == 0 {
		return fleet.NodeWires{}, errors.Join(err, others)
	}
	slices.Reverse(moved) // Ethernet first
	views, err := b.moveAll(ctx, node, moved, false)
	w, proveErr := b.proven(ctx, n, views)
	return w, errors.Join(err, others, proveErr)
}

// movable is a node with the ports that are moved. A port at a switch that nobody declared is left to whoever keeps it apart, where the site says that somebody does.
func movable(s fleet.Snapshot, id fleet.NodeID) (fleet.Node, []fleet.Wire, error) {
	n, _, err := fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
	if err != nil {
		return n, nil, err
	}
	required, err := ethernetRequired(s)
	if err != nil {
		return n, nil, err
	}
	var out []fleet.Wire
	for _, x := range n.Wires() {
		if !x.Fabric && !required {
			known, _, err := maybe[fleet.Switch](s, switchKey(x.Device))
			if err != nil {
				return n, nil, err
			}
			if known == nil {
				continue
			}
		}
		out = append(out, x)
	}
	return n, out, nil
}

func ethernetRequired(s fleet.Snapshot) (bool, error) {
	site, _, err := maybe[fleet.Site](s, fleet.SiteKey)
	return site == nil || !site.EthernetWaived(), err
}

// moveAll moves ports of a node to where its record says, device after device in their order, and returns the readings of those that were proven. Where first is
// set it ends with the first device that fails.
func (b *Board) moveAll(ctx context.Context, node fleet.NodeID, moved []fleet.Wire, first bool) (map[string]fleet.WireView, error) {
	views, wants := map[string]fleet.WireView{}, map[string]map[string]fleet.Carries{}
	var devices []string
	var errs []error
	err := b.Store.View(ctx, func(s fleet.Snapshot) error {
		devices, errs = nil, nil
		clear(wants)
		w, _, err := fleet.Get[fleet.NodeWires](s, wiresKey(node))
		if err != nil {
			return err
		}
		r, err := rulesOf(s, w)
		if err != nil {
			return err
		}
		for _, x := range moved {
			c, _, err := w.Shall(x, r)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if wants[x.Device] == nil {
				wants[x.Device] = map[string]fleet.Carries{}
				devices = append(devices, x.Device)
			}
			wants[x.Device][x.Port] = c
		}
		return nil
	})
	if err != nil || first && len(errs) > 0 {
		return views, errors.Join(append(errs, err)...)
	}
	for _, name := range devices {
		v, err := b.Move(ctx, name, wants[name])
		if err != nil {
			errs = append(errs, err)
			if first {
				break
			}
			continue
		}
		views[name] = v
	}
	return views, errors.Join(errs...)
}

// rulesOf reads what decides where a node's ports belong.
func rulesOf(s fleet.Snapshot, w fleet.NodeWires) (r fleet.WireRules, err error) {
	r.Provisioning, r.Switches = map[string]fleet.Network{}, map[string]fleet.Switch{}
	switches, err := fleet.List[fleet.Switch](s, fleet.KindSwitch)
	if err != nil {
		return r, err
	}
	for _, x := range switches {
		r.Switches[x.Name] = x
	}
	networks, err := fleet.List[fleet.Network](s, fleet.KindNetwork)
	if err != nil {
		return r, err
	}
	for _, n := range networks {
		if n.Role == fleet.RoleProvisioning {
			r.Provisioning[n.Domain] = n
		}
		if n.Name == w.Network && !w.Leaving {
			r.Network = &n
		}
	}
	if w.Partition != "" && !w.Leaving {
		r.Partition, _, err = maybe[fleet.TenantPartition](s, partitionKey(w.Partition))
	}
	return r, err
}

// moving is what is known of ports that are about to be moved to where next has them. Until that is proven they may still be where they were.
func moving(r fleet.WireRules, old *fleet.NodeWires, next fleet.NodeWires, moved []fleet.Wire, why string) []fleet.WireProof {
	var out []fleet.WireProof
	for _, x := range moved {
		p := proofOf(x, why)
		if _, where, err := next.Shall(x, r); err == nil {
			p.Where = where
		}
		if old != nil {
			if i := slices.IndexFunc(old.Ports, func(o fleet.WireProof) bool { return o.Device() == x.Device && o.Port == x.Port }); i >= 0 {
				p.Was = cmp.Or(old.Ports[i].Was, old.Ports[i].Where)
				if p.Where == old.Ports[i].Where {
					p.Packets = old.Ports[i].Packets // it stays where they showed it
				}
			}
		}
		out = append(out, p)
	}
	return out
}
