package reconcile

import (
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// bells remember who was rung for; a node has at most one worker, and a ring while it works makes it look once more.
type bells struct {
	ringing chan struct{}
	leases  chan struct{}

	mu      sync.Mutex
	pending wakes                 // guarded by mu
	working map[fleet.NodeID]bool // guarded by mu: value true means rung meanwhile
}

type wakes struct {
	all   bool
	nodes map[fleet.NodeID]bool
}

func (b *bells) init() {
	b.ringing = make(chan struct{}, 1)
	b.leases = make(chan struct{}, 1)
	b.pending.nodes = map[fleet.NodeID]bool{}
	b.working = map[fleet.NodeID]bool{}
}

func (b *bells) ring(ids ...fleet.NodeID) {
	b.mu.Lock()
	if len(ids) == 0 {
		b.pending.all = true
	}
	for _, id := range ids {
		b.pending.nodes[id] = true
	}
	b.mu.Unlock()
	select {
	case b.ringing <- struct{}{}:
	default:
	}
}

func (b *bells) take() wakes {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.pending
	b.pending = wakes{nodes: map[fleet.NodeID]bool{}}
	return w
}

// begin reports whether a worker may start for the node; where one works already, it is told to look again.
func (b *bells) begin(id fleet.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, busy := b.working[id]; busy {
		b.working[id] = true
		return false
	}
	b.working[id] = false
	return true
}

// end reports whether the worker may go; it may not where the bell was rung while it worked.
func (b *bells) end(id fleet.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.working[id] {
		b.working[id] = false
		return false
	}
	delete(b.working, id)
	return true
}

// busy reports whether somebody works on the node.
func (b *bells) busy(id fleet.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, busy := b.working[id]
	return busy
}

// ringLeases wakes the lease loop.
func (b *bells) ringLeases() {
	select {
	case b.leases <- struct{}{}:
	default:
	}
}
