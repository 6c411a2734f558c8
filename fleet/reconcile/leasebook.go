package reconcile

import (
	"slices"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// leasebook knows the leases that are not over, and which nodes they hold. Those that are over gather for ever, so that none is looked at twice: where the
// store tells what changed, only that is read, and else what was over at a revision is so until the record changes.
type leasebook struct {
	mu   sync.Mutex
	at   fleet.Revision                 // guarded by mu: everything up to here is known
	open map[fleet.LeaseID]openLease    // guarded by mu
	over map[fleet.Key]fleet.Revision   // guarded by mu
	held map[fleet.NodeID]fleet.LeaseID // guarded by mu: by the leases' own lists
}

type openLease struct {
	rev   fleet.Revision
	holds []fleet.NodeID
}

// readLocked brings the book up to a snapshot. It may know of later commits already: whoever claims nodes by it has the epoch to be refused by.
func (b *leasebook) readLocked(s fleet.Snapshot) error {
	now := s.Revision()
	if b.open != nil && b.at >= now {
		return nil
	}
	if feed, ok := s.(fleet.Feed); ok && b.open != nil {
		if keys, ok := feed.Since(fleet.KindLease, b.at); ok {
			for _, k := range keys {
				if err := b.takeLocked(s, k); err != nil {
					return err
				}
			}
			b.at = now
			return nil
		}
	}
	open, over := b.open, b.over
	b.open, b.over, b.held = map[fleet.LeaseID]openLease{}, map[fleet.Key]fleet.Revision{}, map[fleet.NodeID]fleet.LeaseID{}
	var look []fleet.Key
	err := s.Revisions(fleet.KindLease, func(k fleet.Key, rev fleet.Revision) bool {
		id := leaseID(k)
		if at, ok := over[k]; ok && at == rev {
			b.over[k] = rev
		} else if x, ok := open[id]; ok && x.rev == rev {
			b.putLocked(id, x)
		} else {
			look = append(look, k)
		}
		return true
	})
	for i := 0; err == nil && i < len(look); i++ {
		err = b.takeLocked(s, look[i])
	}
	if err != nil {
		b.open = nil // the next one begins anew
		return err
	}
	b.at = now
	return nil
}

func leaseID(k fleet.Key) fleet.LeaseID { return fleet.LeaseID(k[len(fleet.KindLease)+1:]) }

// takeLocked takes over a lease as it is in the snapshot.
func (b *leasebook) takeLocked(s fleet.Snapshot, k fleet.Key) error {
	id := leaseID(k)
	for _, n := range b.open[id].holds {
		if b.held[n] == id {
			delete(b.held, n)
		}
	}
	delete(b.open, id)
	delete(b.over, k)
	d, err := maybe[fleet.Lease](s, k)
	if err != nil || d.v == nil {
		return err
	}
	if d.v.State.Over() {
		b.over[k] = d.rev
		return nil
	}
	x := openLease{rev: d.rev}
	for _, m := range d.v.Members {
		if m.State != fleet.MemberReplaced && m.State != fleet.MemberReleased {
			x.holds = append(x.holds, m.Node)
		}
	}
	b.putLocked(id, x)
	return nil
}

func (b *leasebook) putLocked(id fleet.LeaseID, x openLease) {
	b.open[id] = x
	for _, n := range x.holds {
		b.held[n] = id
	}
}

// all lists the leases that are not over, in the order of their ids.
func (b *leasebook) all(s fleet.Snapshot) ([]fleet.LeaseID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.readLocked(s); err != nil {
		return nil, err
	}
	out := make([]fleet.LeaseID, 0, len(b.open))
	for id := range b.open {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, nil
}

// stirred lists those of them that may have something to do since rev: they, or nodes that they hold, were changed. False where nobody knows: it may be any.
func (b *leasebook) stirred(s fleet.Snapshot, rev fleet.Revision) ([]fleet.LeaseID, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.readLocked(s); err != nil {
		return nil, false, err
	}
	feed, ok := s.(fleet.Feed)
	if !ok {
		return nil, false, nil
	}
	for _, kind := range []string{fleet.KindFreeze, fleet.KindApproval, fleet.KindSite} { // what holds an end back
		if keys, ok := feed.Since(kind, rev); !ok || len(keys) > 0 {
			return nil, false, nil
		}
	}
	leases, ok := feed.Since(fleet.KindLease, rev)
	if !ok {
		return nil, false, nil
	}
	nodes, ok := feed.Since(fleet.KindNode, rev)
	if !ok {
		return nil, false, nil
	}
	some := map[fleet.LeaseID]bool{}
	for _, k := range leases {
		if _, open := b.open[leaseID(k)]; open {
			some[leaseID(k)] = true
		}
	}
	for _, k := range nodes {
		if id := b.held[fleet.NodeID(k[len(fleet.KindNode)+1:])]; id != "" {
			some[id] = true
		}
	}
	var out []fleet.LeaseID
	for id := range some {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, true, nil
}

// holder says which lease holds a node, or "".
func (b *leasebook) holder(s fleet.Snapshot, id fleet.NodeID) (fleet.LeaseID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.readLocked(s)
	return b.held[id], err
}
