package server

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
)

// wakeAgents wakes the long polls of the agents whose answer a commit may have changed, until ctx ends. Each poll that looks again checks its certificate
// and reads its node: with thousands of machines waiting, looking at every commit would cost more than all that the commits do.
func (s *Server) wakeAgents(ctx context.Context) error {
	var seen fleet.Revision
	for ctx.Err() == nil {
		changed := s.Store.Changed()
		var ids []fleet.NodeID
		known := false
		err := s.Store.View(ctx, func(x fleet.Snapshot) (err error) {
			ids, known, err = concerned(x, seen)
			seen = x.Revision()
			return err
		})
		switch {
		case err != nil || !known:
			s.presence.wakeAll()
		default:
			for _, id := range ids {
				s.presence.wake(id)
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// concerned lists the nodes whose agents may be answered otherwise since a revision; known is false where it may be all.
func concerned(x fleet.Snapshot, since fleet.Revision) (ids []fleet.NodeID, known bool, err error) {
	feed, ok := x.(fleet.Feed)
	if !ok || since == 0 {
		return nil, false, nil
	}
	for _, kind := range []string{fleet.KindFreeze, fleet.KindSite, fleet.KindLoadStop} {
		if keys, ok := feed.Since(kind, since); !ok || len(keys) > 0 {
			return nil, false, nil
		}
	}
	nodes, ok := feed.Since(fleet.KindNode, since)
	if !ok {
		return nil, false, nil
	}
	for _, k := range nodes {
		ids = append(ids, fleet.NodeID(k[len(fleet.KindNode)+1:]))
	}
	operations, ok := feed.Since(fleet.KindOperation, since)
	if !ok {
		return nil, false, nil
	}
	for _, k := range operations {
		op, kept, err := fleet.Peek[fleet.Operation](x, k)
		switch {
		case fleet.KindOf(err) == fleet.NotFound && err != nil:
		case err != nil || !kept:
			return nil, false, err
		default:
			ids = append(ids, op.Value.(*fleet.Operation).Node)
		}
	}
	return ids, true, nil
}
