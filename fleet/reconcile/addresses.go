package reconcile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// subnetted is the network whose addresses members of the lease get, and where its record was read: nil where they get none.
func subnetted(s fleet.Snapshot, r fleet.LeaseRequest) (doc[fleet.Network], error) {
	if r.Network == "" || len(r.NetworkData) > 0 {
		return doc[fleet.Network]{}, nil
	}
	d, err := maybe[fleet.Network](s, fleet.KeyOf(fleet.KindNetwork, r.Network))
	if err != nil || d.v == nil || len(d.v.Subnets) == 0 {
		return doc[fleet.Network]{}, err
	}
	return d, nil
}

// address gives members that have no addresses yet some of the network that nobody has. Whoever commits that must have seen the newest allocation epoch, and the
// network as it was.
func (l *Loop) address(s fleet.Snapshot, network fleet.Network, members []*fleet.Member) error {
	open, err := l.leasebook.all(s)
	if err != nil {
		return err
	}
	var leases []fleet.Lease
	for _, id := range open {
		x, err := seen[fleet.Lease](s, leaseKey(id))
		if err != nil {
			return err
		}
		if x != nil {
			leases = append(leases, *x)
		}
	}
	taken := map[netip.Addr]bool{}
	for _, g := range fleet.Given(leases, network.Name) {
		p, err := netip.ParsePrefix(g.Address)
		if err != nil {
			return fmt.Errorf("address of %s: %w", g.Node, err)
		}
		taken[p.Addr()] = true
	}
	for _, m := range members {
		if len(m.Addresses) > 0 {
			continue
		}
		if m.Addresses, err = network.Give(taken); err != nil {
			return err
		}
	}
	return nil
}

// addressDraft gives the members of a lease that is being made their addresses.
func (l *Loop) addressDraft(s fleet.Snapshot, d *draft) error {
	var err error
	d.netData = d.lease.Request.NetworkData
	if d.network, err = subnetted(s, d.lease.Request); err != nil || d.network.v == nil {
		return err
	}
	var members []*fleet.Member
	for i := range d.lease.Members {
		members = append(members, &d.lease.Members[i])
	}
	if err := l.address(s, *d.network.v, members); err != nil {
		return err
	}
	for i, n := range d.nodes {
		data, err := step.NetworkData(*d.network.v, *n.v, d.lease.Members[i].Addresses)
		if err != nil {
			return err
		}
		if i == 0 {
			d.netData = data
		}
	}
	return nil
}

// addressOf reads the network that the node's member has addresses of, nil where it has none.
func (v *view) addressOf(s fleet.Snapshot) error {
	m := v.member()
	if m == nil || len(m.Addresses) == 0 {
		return nil
	}
	var err error
	v.network, err = seen[fleet.Network](s, fleet.KeyOf(fleet.KindNetwork, v.lease.v.Request.Network))
	return err
}

// addressedAs gives the member that takes another's place its addresses, or some of its own.
func (l *Loop) addressedAs(s fleet.Snapshot, w *swap) error {
	var err error
	if w.network, err = subnetted(s, w.lease.v.Request); err != nil || w.network.v == nil {
		return err
	}
	m := fleet.Member{Name: w.in.v.Name}
	if w.KeepIdentity {
		m.Addresses = slices.Clone(w.old.Addresses)
	}
	if err := l.address(s, *w.network.v, []*fleet.Member{&m}); err != nil {
		return err
	}
	w.addresses = m.Addresses
	_, err = step.NetworkData(*w.network.v, *w.in.v, w.addresses)
	return err
}
