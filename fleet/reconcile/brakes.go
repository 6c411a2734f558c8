package reconcile

import (
	"github.com/metalctl/metalctl/fleet"
)

// brakes are what may hold back what a lease or a person asks for, as of the snapshot that the decision is made on.
type brakes struct {
	freezes []fleet.Freeze
	book    *book // the fence's, where it was asked for
}

func (l *Loop) readBrakes(s fleet.Snapshot, h fleet.Harm) (*brakes, error) {
	freezes, err := fleet.Freezes(s)
	b := &brakes{freezes: freezes}
	if err == nil && h != "" {
		b.book, err = l.readBook(s, h)
	}
	return b, err
}

// put adds what the fence entered to a change.
func (b *brakes) put(c *fleet.Change) error {
	if b.book == nil {
		return nil
	}
	return b.book.put(c)
}

// end enters the end of a lease for those of its nodes that are in use, or returns *overFence.
func (b *brakes) end(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node, by string) error {
	var held []*fleet.Node
	for _, m := range x.Members {
		if n := nodes[m.Node]; n != nil && n.Lease == x.ID {
			held = append(held, n)
		}
	}
	return b.book.take(deed{harm: fleet.HarmRelease, act: "lease release " + firstOf(x.Name, string(x.ID)), lease: x.ID, by: by}, held)
}

// frozen returns a node that the lease holds and that is frozen, with its freeze; nil where there is none.
func (b *brakes) frozen(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) (*fleet.Node, *fleet.Freeze) {
	for _, m := range x.Members {
		n := nodes[m.Node]
		if n == nil || n.Lease != x.ID && m.State != fleet.MemberReserved {
			continue
		}
		if f := fleet.FrozenBy(*n, b.freezes); f != nil {
			return n, f
		}
	}
	return nil, nil
}

// holdEnd says why a lease is not ended by time alone, or "".
func (b *brakes) holdEnd(x *fleet.Lease, nodes map[fleet.NodeID]*fleet.Node) string {
	if n, f := b.frozen(x, nodes); f != nil {
		return n.Name + " is " + f.Why(*n)
	}
	return ""
}
