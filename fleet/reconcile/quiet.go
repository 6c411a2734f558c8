package reconcile

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// quiet is what is known of a node that is settled, so that a large fleet at rest is not decoded again and again: the revision of its record, and the
// power that the record tells.
type quiet struct {
	rev   fleet.Revision
	power string
}

// atRest reports whether the node's own record says that there is nothing to do, whatever else is the case: Decide then rests.
func atRest(n *fleet.Node) bool {
	return n.Operation == "" && n.Wish == nil && n.Undo == nil && !moves(n.State)
}

// setQuiet remembers whether the node's record is settled.
func (l *Loop) setQuiet(v *view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := v.node.v; atRest(n) {
		l.quiet[n.ID] = quiet{v.node.rev, n.Power}
	} else {
		delete(l.quiet, n.ID)
	}
}

// glimpse is what of a node's record says that there is nothing to do: of a large fleet that nobody looked at yet the whole would take seconds.
type glimpse struct {
	State     fleet.State       `json:"state"`
	Operation fleet.OperationID `json:"operation"`
	Wish      *struct{}         `json:"wish"`
	Undo      *struct{}         `json:"undo"`
	Power     string            `json:"power"`
}

// glimpseAt remembers a node whose record is settled, and reports whether it is. What cannot be read is for the node's own worker to say.
func (l *Loop) glimpseAt(s fleet.Snapshot, id fleet.NodeID) bool {
	r, err := s.Get(fleet.KeyOf(fleet.KindNode, id))
	if err != nil {
		return false
	}
	var g glimpse
	if json.Unmarshal(r.Data, &g) != nil || g.Operation != "" || g.Wish != nil || g.Undo != nil || moves(g.State) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, troubled := l.troubles[id]
	if l.waits[id] != "" || troubled {
		return false // its worker has told something that is over now
	}
	l.quiet[id] = quiet{r.Revision, g.Power}
	return true
}

// forgetQuiet keeps only what is known of these nodes.
func (l *Loop) forgetQuiet(there map[fleet.NodeID]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.quiet {
		if !there[id] {
			delete(l.quiet, id)
		}
	}
}

// many nodes at once of which nothing is known are those of a server that has just started.
const many = 64

// nodes lists all nodes, and those among them that may have something to do: whose record is not the one that was last seen settled.
func (l *Loop) nodes(ctx context.Context) (all, stirring []fleet.NodeID, err error) {
	l.mu.Lock()
	known := maps.Clone(l.quiet)
	l.mu.Unlock()
	err = l.Store.View(ctx, func(s fleet.Snapshot) error {
		err := s.Revisions(fleet.KindNode, func(k fleet.Key, rev fleet.Revision) bool {
			id := fleet.NodeID(k[len(fleet.KindNode)+1:])
			all = append(all, id)
			if q, ok := known[id]; !ok || q.rev != rev {
				stirring = append(stirring, id)
			}
			return true
		})
		if len(stirring) >= many {
			stirring = slices.DeleteFunc(stirring, func(id fleet.NodeID) bool { return ctx.Err() == nil && l.glimpseAt(s, id) })
		}
		return err
	})
	return all, stirring, err
}

// recorded returns the power that a node's record tells, and whether a plan is at work on it.
func (l *Loop) recorded(ctx context.Context, id fleet.NodeID) (power string, busy bool, err error) {
	l.mu.Lock()
	q, known := l.quiet[id]
	l.mu.Unlock()
	if known {
		err := l.Store.View(ctx, func(s fleet.Snapshot) error {
			r, err := s.Get(fleet.KeyOf(fleet.KindNode, id))
			known = err == nil && r.Revision == q.rev
			return nil // look says what is wrong
		})
		if err != nil {
			return "", false, err
		}
		if known {
			return q.power, false, nil
		}
	}
	v, err := l.look(ctx, id)
	if err != nil {
		return "", false, err
	}
	l.setQuiet(v)
	return v.node.v.Power, v.op.v != nil, nil
}
