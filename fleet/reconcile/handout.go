package reconcile

import (
	"context"
	"fmt"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// handout is where the newest in-band step of a node is on its way from the journal to the agent, as far as this process saw it.
type handout struct {
	operation  fleet.OperationID
	index, try int
	state      handoutState
}

type handoutState uint8

const (
	journalled handoutState = iota
	handedOut
	// takenBack: a freeze came between, so that it must not be handed out any more.
	takenBack
)

func handoutOf(op *fleet.Operation, i int, s handoutState) handout {
	return handout{op.ID, i, op.Steps[i].Try, s}
}

// setHandout notes that a step was journalled as started and nobody was told yet.
func (l *Loop) setHandout(id fleet.NodeID, op *fleet.Operation, i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handouts[id] = handoutOf(op, i, journalled)
}

// handOut reports whether the step may be given to the agent. What another process started may have been given out by it.
func (l *Loop) handOut(id fleet.NodeID, op *fleet.Operation, i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handouts[id] == handoutOf(op, i, takenBack) {
		return false
	}
	l.handouts[id] = handoutOf(op, i, handedOut)
	return true
}

// takeBack reports whether a step that was journalled as started surely reached no agent, and from then on will not. Another process on the same store
// may have handed it out: then nothing is sure, and the step stays started until its agent has done it.
func (l *Loop) takeBack(id fleet.NodeID, op *fleet.Operation, i int) bool {
	if !l.Sole {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.handouts[id] {
	case handoutOf(op, i, journalled):
		l.handouts[id] = handoutOf(op, i, takenBack)
		return true
	case handoutOf(op, i, takenBack):
		return true
	}
	return false
}

// spare takes an in-band step back that a freeze caught between the journal and the agent.
func (l *Loop) spare(ctx context.Context, id fleet.NodeID, m Move, v *view) error {
	op := v.op.v
	decl, _ := step.Find(op.Steps[m.Index].Name)
	if v.frozen == nil || decl.Observes || op.Steps[m.Index].Side != step.InBand || !l.takeBack(id, op, m.Index) {
		return nil
	}
	return l.again(ctx, id, Await, v, func(v *view, m Move) error {
		if v.op.v.ID != op.ID || !l.takeBack(id, v.op.v, m.Index) {
			return nil
		}
		v.spared(m.Index, "it was not begun")
		return nil
	})
}

// spared journals that a freeze cut a step's try short.
func (v *view) spared(i int, why string) {
	*v.op.v = step.Spared(*v.op.v, i, v.now)
	v.stepEvent(i, fmt.Sprintf("%s: %s waits for the thaw: %s", v.node.v.Name, v.op.v.Steps[i].Name, cut(why, 300)))
}
