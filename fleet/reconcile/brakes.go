package reconcile

import (
	"github.com/metalctl/metalctl/fleet"
)

// brakes are what may hold back what a lease or a person asks for, as of the snapshot that the decision is made on.
type brakes struct {
	freezes []fleet.Freeze
}

func (l *Loop) readBrakes(s fleet.Snapshot) (*brakes, error) {
	freezes, err := fleet.Freezes(s)
	if err != nil {
		return nil, err
	}
	return &brakes{freezes: freezes}, nil
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
