package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/cleaning"
	"github.com/metalctl/metalctl/fleet/step"
)

// Once makes the one next move of a node: it reads afresh, decides, acts and commits. The answer says what it was and when to come again. An
// out-of-band step runs to its end within the call.
func (l *Loop) Once(ctx context.Context, id fleet.NodeID) (Move, error) {
	v, err := l.look(ctx, id)
	if err != nil {
		if errors.Is(err, errGone) {
			l.setWaits(id, "")
			return Move{}, nil
		}
		return Move{}, err
	}
	m := l.decide(v)
	l.setWaits(id, m.Why)
	l.setQuiet(v)
	switch m.Kind {
	case Plan:
		return m, l.plan(ctx, id, m.Use, v.node.v.Wish)
	case Enter:
		return m, l.again(ctx, id, Enter, v, func(v *view, m Move) error {
			if err := l.enter(v, m); err != nil {
				return err
			}
			return l.onward(v, nil)
		})
	case Start, Recover:
		return l.start(ctx, id, m, v)
	case Await:
		if err := l.spare(ctx, id, m, v); err != nil {
			return m, err
		}
		// A poll that came before the step was journalled is answered now; an abort is told, too.
		l.Agents.Wake(id)
	case Complete, Fail, Stop:
		return m, l.endPlan(ctx, id, m, v)
	case EndGrace:
		return m, l.again(ctx, id, EndGrace, v, func(v *view, m Move) error {
			return v.move(fleet.VerbClean, v.guards(fleet.VerbClean), "the loop", m.Why)
		})
	case ComeBack:
		return m, l.again(ctx, id, ComeBack, v, func(v *view, m Move) error { return l.comeBack(v) })
	}
	return m, nil
}

func (l *Loop) decide(v *view) Move {
	f := l.facts(v.node.v)
	f.Sure = v.sure
	if v.frozen != nil {
		f.Frozen = v.frozen.Why(*v.node.v)
	}
	if v.op.v != nil {
		f.Steady = l.steady(v.op.v, v.now)
		f.Power = v.lacksPower()
	}
	return Decide(*v.node.v, v.op.v, v.lease.v, f, v.now)
}

// again makes the move that was decided on by v, which was just read. Where somebody was first it is decided anew, and nothing is done where the move has
// become another.
func (l *Loop) again(ctx context.Context, id fleet.NodeID, kind MoveKind, v *view, do func(*view, Move) error) error {
	return l.updateSeen(ctx, id, v, func(v *view) error {
		m := l.decide(v)
		if m.Kind != kind {
			return nil
		}
		return do(v, m)
	})
}

// move makes one transition of the table with its effects on the durable facts, and leaves an event.
func (v *view) move(verb fleet.Verb, f fleet.Facts, by, why string) error {
	n := v.node.v
	t, err := fleet.Move(n.State, verb, f)
	if err != nil {
		return err
	}
	from, lease := n.State, n.Lease
	if verb == fleet.VerbClean && from == fleet.Grace {
		// The lease's own record changes with it: who extends the lease meanwhile is refused, or this is.
		v.pinLease = true
		if x := v.lease.v; x != nil && x.GraceOver.IsZero() {
			x.GraceOver = v.now
		}
	}
	if t.Does&fleet.MarkDirty != 0 {
		n.Dirty, n.Erased = fleet.Dirty(f.Lease), ""
		n.Handovers++
	}
	if t.Does&fleet.ClearDirty != 0 {
		n.Dirty = ""
	}
	if t.Does&fleet.StaleBurn != 0 {
		n.BurnedAt = time.Time{}
	}
	if t.Does&fleet.LoseIsolation != 0 {
		n.Isolated = false
	}
	if verb == fleet.VerbAbort {
		v.leaveUndone(t.Does, why)
	}
	if u := n.Undo; u != nil && t.To == fleet.Active { // it is a tenant's now
		if u.Power, u.Wires = false, false; !u.Left() {
			v.allRight()
		}
	}
	v.setState(t.To)
	v.event("node.state", "%s: %s to %s by %s (%s): %s", n.Name, from, t.To, verb, by, why)
	data, err := json.Marshal(fleet.StateChange{From: from, To: t.To, Verb: verb, By: by, Why: cut(why, 300)})
	if err != nil {
		return fmt.Errorf("encode the change of %s: %w", n.Name, err)
	}
	v.events[len(v.events)-1].Data = data
	if t.Does&fleet.DropLease != 0 {
		n.Lease = ""
		v.events[len(v.events)-1].Lease = lease
	}
	return nil
}

func (v *view) setState(s fleet.State) {
	n := v.node.v
	if n.State != s {
		n.State, n.StateSince = s, v.now
	}
}

// plan composes what the node's wish or state asks for and makes it the node's operation. What cannot be composed ends as a failed plan does.
func (l *Loop) plan(ctx context.Context, id fleet.NodeID, use step.Use, w *fleet.Wish) error {
	power := ""
	if use != step.Release && use != step.Undo {
		// Neither waits for a BMC that may be dead.
		power = l.power(ctx, id)
	}
	var image *fleet.Image
	var unknown error
	if w != nil {
		if image, unknown = l.named(ctx, use, w.Image); unknown != nil && fleet.KindOf(unknown) != fleet.NotFound {
			return unknown
		}
	}
	return l.update(ctx, id, func(v *view) error {
		m := l.decide(v)
		if m.Kind != Plan || m.Use != use {
			return nil
		}
		n := v.node.v
		verb, by, op := verbOf[m.Use], "the loop", fleet.OperationID(l.NewID())
		request := step.Request{}
		if n.Wish != nil {
			verb, by, op = n.Wish.Verb, n.Wish.By, n.Wish.Operation
			last := v.last
			if r := n.Wish.Resume; r != "" && last != nil && last.ID == r && l.continues(v, power) {
				again := step.Again(*last, op, by, v.now)
				again.From, again.Verb = n.State, verb
				l.take(v, again)
				return nil
			}
			if unknown != nil {
				return l.unplannable(v, m.Use, unknown)
			}
			if image != nil {
				v.image = image
			}
			request = step.Request{OutOfBand: n.Wish.OutOfBand, AllowReboot: n.Wish.AllowReboot, Profile: n.Wish.Profile}
		}
		f := l.planFacts(v, power)
		if m.Use == step.Undo {
			due, _, _ := undoDue(*n, l.facts(n).AgentUp, v.now)
			f.Node.Undo = &due
		}
		p, err := step.Compose(m.Use, f, request)
		if err != nil {
			return l.unplannable(v, m.Use, err)
		}
		if n.Wish != nil && n.Wish.Plan != "" && n.Wish.Plan != p.Digest {
			return l.unplannable(v, m.Use, l.otherPlan(n, n.Wish.Plan, p))
		}
		l.take(v, step.Begin(p, op, *n, verb, by, n.Lease, v.now))
		return nil
	})
}

// take makes op the node's operation.
func (l *Loop) take(v *view, op fleet.Operation) {
	v.op = doc[fleet.Operation]{key: fleet.KeyOf(fleet.KindOperation, op.ID), v: &op}
	v.node.v.Operation = op.ID
	v.event("operation.created", "%s: %s planned with %d steps, asked by %s", v.node.v.Name, op.Use, len(op.Steps), op.By)
}

// unplannable ends a wish, or a working state, for which there is no plan. Whoever was promised the wish's operation reads in it why it never began.
func (l *Loop) unplannable(v *view, use step.Use, err error) error {
	n := v.node.v
	if w := n.Wish; w != nil {
		op := step.Begin(step.Plan{Use: use}, w.Operation, *n, w.Verb, w.By, n.Lease, v.now)
		op.State, op.EndedAt, op.Error = fleet.OperationAborted, v.now, unbegun(n, err)
		v.op = doc[fleet.Operation]{key: fleet.KeyOf(fleet.KindOperation, op.ID), v: &op}
		v.event("operation.refused", "%s: %s cannot be planned: %v", n.Name, w.Verb, err)
		v.events[len(v.events)-1].Subject = v.op.key
		if m := v.member(); m != nil && (use == step.Deploy || use == step.Resume) {
			v.setMember(m, fleet.MemberFailed, cut(err.Error(), 200))
		}
		n.Wish = nil
		return nil
	}
	v.raise(use, *fleet.ProblemOf(err))
	return v.giveUp(use, err.Error())
}

// enter makes the wish's transition. Where the table refuses it by now, somebody else was first with a brake or another wish: nothing has begun and nothing is
// wrong with the node, so the operation is aborted, with the reason and what to type, and the node stays as it is.
func (l *Loop) enter(v *view, m Move) error {
	n, op := v.node.v, v.op.v
	f := v.guards(op.Verb)
	// Compose puts a power-off into an inspection only where a restart is allowed or the machine is off.
	f.RebootAllowed = powersOff(*op)
	f.MachineOff = !f.RebootAllowed
	if op.Verb == fleet.VerbClean && n.State == fleet.Grace {
		f.GraceOver = !f.LeaseExtended
	}
	n.Wish = nil
	if op.Verb == fleet.VerbRelease && n.State == fleet.Releasing || op.Verb == fleet.VerbAccept && n.State == fleet.Cleaning {
		v.event("operation.started", "%s: %s goes on", n.Name, op.Use)
	} else {
		err := guarded(n, op.Verb)
		if err == nil {
			err = v.move(op.Verb, f, op.By, m.Why)
		}
		if err != nil {
			if m := v.member(); m != nil && (op.Verb == fleet.VerbDeploy || op.Verb == fleet.VerbResume) {
				v.setMember(m, fleet.MemberFailed, cut(err.Error(), 200))
			}
			v.end(fleet.OperationAborted, unbegun(n, err))
			return nil
		}
	}
	if m := v.member(); m != nil {
		switch step.Use(op.Use) {
		case step.Rebuild:
			if m.Image = imageOf(*op); m.Image == v.lease.v.Request.Image {
				m.Image = ""
			}
		case step.Deploy, step.Resume:
			m.Operation = op.ID
			v.setMember(m, fleet.MemberDeploying, "")
		case step.Release:
			m.Operation = op.ID
			v.setMember(m, fleet.MemberReleasing, "")
		}
	}
	op.State, op.StartedAt, op.Generation = fleet.OperationRunning, v.now, n.Boot.Generation
	return nil
}

// unbegun is why a wish that was allowed when it was asked comes to nothing by now, and what to type.
func unbegun(n *fleet.Node, refused error) *fleet.Problem {
	p := fleet.ProblemOf(refused)
	if p.Hint == "" {
		p.Hint = "metalctl node explain " + n.Name
	}
	return p
}

func powersOff(op fleet.Operation) bool {
	for _, s := range op.Steps {
		if s.Name == step.PowerOff {
			return true
		}
	}
	return false
}

// start journals the start of a step. An out-of-band step then runs here, under the node's claim; an in-band one is the agent's to fetch.
func (l *Loop) start(ctx context.Context, id fleet.NodeID, m Move, v *view) (Move, error) {
	if v.op.v.Steps[m.Index].Side == step.OutOfBand {
		return l.outOfBand(ctx, id, m, v)
	}
	leave, err := l.powerTurn(ctx, v)
	if err != nil {
		return m, err
	}
	defer leave()
	err = l.again(ctx, id, Start, v, func(v *view, m Move) error { return l.startInBand(v, m.Index) })
	l.Agents.Wake(id)
	return m, err
}

func (l *Loop) startInBand(v *view, i int) error {
	v.started(i)
	l.setHandout(v.node.v.ID, v.op.v, i)
	// What cannot be handed out has failed before the agent hears of it.
	params, err := l.fill(*v.op.v, i, nil, v.site)
	if err == nil {
		err = agentKnows(v.node.v, v.op.v.Steps[i].Name, params)
	}
	if err != nil {
		return v.result(i, step.Result{Problem: fleet.ProblemOf(err)})
	}
	return nil
}

// onward joins to a change what follows from it at once: the start of the next step, or the end of the plan. Nothing happens outside between the two, so
// that a crash there would leave nothing that a crash before or after does not leave. outOfBand starts a step on the server's side; nil: none is.
func (l *Loop) onward(v *view, outOfBand func(index int)) error {
	if v.op.v == nil || v.op.v.State.Over() {
		return nil
	}
	switch m := l.decide(v); {
	case m.Kind == Start && v.room != nil && v.drawsMore():
		return nil // it takes its turn with all others that take from the budgets
	case m.Kind == Complete && cleaning.Began(*v.op.v):
		return nil // its record is composed and stored first, which no commit waits for
	case m.Kind == Complete:
		return l.complete(v)
	case m.Kind == Start && v.op.v.Steps[m.Index].Side == step.InBand:
		return l.startInBand(v, m.Index)
	case m.Kind == Start && outOfBand != nil:
		outOfBand(m.Index)
	}
	return nil
}

func (v *view) started(i int) {
	v.takes()
	op := step.Started(*v.op.v, i, v.node.v.Boot.Generation, v.now)
	*v.op.v = op
	r := op.Steps[i]
	text := fmt.Sprintf("%s: %s begins", v.node.v.Name, r.Name)
	if r.Try > 1 {
		text += fmt.Sprintf(" (try %d)", r.Try)
	}
	v.stepEvent(i, text)
}

// stepEvent records a change of the operation's step i.
func (v *view) stepEvent(i int, text string) {
	v.event("operation.step", "%s", text)
	v.events[len(v.events)-1].Subject = v.op.key
	if v.steps == nil {
		v.steps = map[int]fleet.StepRun{}
	}
	v.steps[len(v.events)-1] = v.op.v.Steps[i]
}
