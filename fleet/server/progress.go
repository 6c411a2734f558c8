package server

import (
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// progressHub keeps the newest progress of each node. Readers that are slow miss what was overtaken, never what is newest.
type progressHub struct {
	mu     sync.Mutex // guards the rest
	seq    uint64
	latest map[fleet.NodeID]numbered
	bell   chan struct{}
}

type numbered struct {
	seq uint64
	fleet.Progress
}

func newProgressHub() *progressHub {
	return &progressHub{latest: map[fleet.NodeID]numbered{}, bell: make(chan struct{})}
}

// put replaces the node's progress and wakes readers.
func (h *progressHub) put(p fleet.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	h.latest[p.Node] = numbered{h.seq, p}
	close(h.bell)
	h.bell = make(chan struct{})
}

// since returns what is newer than seq, the seq to ask with next, and a channel that is closed when there is more.
func (h *progressHub) since(seq uint64) ([]fleet.Progress, uint64, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []fleet.Progress
	for _, p := range h.latest {
		if p.seq > seq {
			out = append(out, p.Progress)
		}
	}
	return out, h.seq, h.bell
}

// of returns the newest progress of an operation, or nil.
func (h *progressHub) of(id fleet.NodeID, op fleet.OperationID) *fleet.Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.latest[id]
	if !ok || p.Operation != op {
		return nil
	}
	return &p.Progress
}

func (h *progressHub) forget(id fleet.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.latest, id)
}

// PutProgress shows how far a step of the server's own is; agents' progress comes by their protocol.
func (s *Server) PutProgress(p fleet.Progress) { s.progress.put(p) }
