package server

import (
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// silentAfter is how long an agent may say nothing and still count as up; it polls every 25 s.
const silentAfter = time.Minute

// presence knows which agents are there. It is memory only: after a restart agents are heard of again within one poll.
type presence struct {
	now   func() time.Time
	mu    sync.Mutex // guards the rest
	seen  map[fleet.NodeID]sighting
	given map[fleet.NodeID]handed
	over  map[fleet.NodeID]int64         // the newest boot generation whose agent counts no longer, however long it still asks
	bells map[fleet.NodeID]chan struct{} // closed to wake the node's long poll
}

// sighting is when the agent of a boot generation was first and last heard of.
type sighting struct {
	generation  int64
	since, last time.Time
	remote      string
}

func newPresence(now func() time.Time) *presence {
	return &presence{now: now, seen: map[fleet.NodeID]sighting{}, given: map[fleet.NodeID]handed{}, over: map[fleet.NodeID]int64{}, bells: map[fleet.NodeID]chan struct{}{}}
}

// see notes that the agent was heard of and reports whether it had not been before.
func (p *presence) see(id fleet.NodeID, generation int64, remote string) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if over, ok := p.over[id]; ok && generation <= over {
		return false
	}
	now := p.now()
	old, ok := p.seen[id]
	if !ok || old.generation != generation {
		p.seen[id] = sighting{generation, now, now, remote}
		return true
	}
	old.last, old.remote = now, remote
	p.seen[id] = old
	return false
}

func (p *presence) get(id fleet.NodeID, generation int64) (sighting, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.seen[id]
	return s, ok && s.generation == generation && generation > 0
}

// bell returns the channel that wake closes next.
func (p *presence) bell(id fleet.NodeID) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.bells[id]
	if c == nil {
		c = make(chan struct{})
		p.bells[id] = c
	}
	return c
}

func (p *presence) wake(id fleet.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.bells[id]; c != nil {
		close(c)
		delete(p.bells, id)
	}
}

func (p *presence) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.bells {
		close(c)
	}
	clear(p.bells)
}

// revoke forgets the agent of a boot generation, for good: its requests that still wait do not bring it back.
func (p *presence) revoke(id fleet.NodeID, generation int64) {
	p.forget(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over[id] = generation
}

func (p *presence) forget(id fleet.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.seen, id)
	delete(p.given, id)
}

// Up reports whether the agent of that boot generation was heard of within the last minute, and since when it is there or was last heard of; zero
// where this process has not heard of it.
func (s *Server) Up(id fleet.NodeID, generation int64) (up bool, since time.Time) {
	seen, ok := s.presence.get(id, generation)
	switch {
	case !ok:
		return false, time.Time{}
	case s.Now().Sub(seen.last) > silentAfter:
		return false, seen.last
	}
	return true, seen.since
}

// Wake makes the node's waiting long poll ask for a task again.
func (s *Server) Wake(id fleet.NodeID) { s.presence.wake(id) }

// Seen returns when the agent of that boot generation was last heard of; zero where this process has not heard of it.
func (s *Server) Seen(id fleet.NodeID, generation int64) time.Time {
	seen, ok := s.presence.get(id, generation)
	if !ok {
		return time.Time{}
	}
	return seen.last
}

// agentWord is "up", "silent" or "none".
func (s *Server) agentWord(n *fleet.Node) (string, time.Time) {
	last := s.Seen(n.ID, n.Boot.Generation)
	switch {
	case n.Boot.AgentKey == "" || n.Boot.AgentKey == keyRevoked:
		return "none", time.Time{}
	case last.IsZero():
		return "silent", n.Boot.RegisteredAt
	case s.Now().Sub(last) > silentAfter:
		return "silent", last
	}
	return "up", last
}
