package reconcile

import (
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// undoStates are the states in which a machine may be switched off for a plan that was given up: nobody works on it. Wherever a tenant may, nothing is.
var undoStates = []fleet.State{fleet.Enrolled, fleet.Managed, fleet.Allocated, fleet.Retired}

// undoDue is the part of what is left that may be put right now. Where something has to wait, it says until when (zero: until something changes) and why.
func undoDue(n fleet.Node, agentUp bool, now time.Time) (due fleet.Undo, until time.Time, why string) {
	due = *n.Undo
	if !due.Power {
		return due, time.Time{}, ""
	}
	switch {
	case n.Protected:
		due.Power, why = false, "protected, so it is not switched off: metalctl node unprotect "+n.Name
	case !slices.Contains(undoStates, n.State):
		due.Power, why = false, "it is "+string(n.State)+", so it is not switched off"
	case agentUp && now.Before(due.AgentUntil):
		due.Power, until = false, due.AgentUntil
		why = "its agent answers: metalctl node retry " + n.Name + " goes on where the plan stopped; else the machine goes off at " + until.UTC().Format(time.TimeOnly)
	}
	if !due.Power {
		due.Provisioning = false // what runs there is the agent
	}
	return due, until, why
}

// decideUndo: what a plan that was given up left is put right, unless a person says hands off.
func decideUndo(n fleet.Node, f Facts, now time.Time) Move {
	if n.Hold != nil {
		return Move{Kind: Rest, Why: heldBy(n)}
	}
	if u := n.Undo; now.Before(u.NotBefore) {
		return Move{Kind: Wait, Until: u.NotBefore, Why: "the clean-up after a plan failed and is tried again at " + u.NotBefore.UTC().Format(time.TimeOnly) + "; left: " + u.String()}
	}
	due, until, why := undoDue(n, f.AgentUp, now)
	switch {
	case due.Left():
		return Move{Kind: Plan, Use: step.Undo, Why: n.Undo.Why + ": " + due.String()}
	case !until.IsZero():
		return Move{Kind: Wait, Until: until, Why: why}
	}
	return Move{Kind: Rest, Why: why}
}

// undoing reports whether the node's operation is such a clean-up, which makes room for whatever else is asked for.
func (v *view) undoing() bool { return v.op.v != nil && v.op.v.Use == string(step.Undo) }

// leaveUndone records what the plan that is given up leaves behind, as far as the table says that it is taken back.
func (v *view) leaveUndone(does fleet.Effect, why string) {
	n, op := v.node.v, v.op.v
	if op == nil || does&(fleet.UndoBoot|fleet.UndoPower|fleet.GoOff|fleet.UndoWires) == 0 {
		return
	}
	u := fleet.Undo{Since: v.now, Why: cut(op.Use+" was given up: "+why, 160)}
	if n.Undo != nil {
		u.Wires, u.Provisioning, u.Power, u.Override, u.Medium = n.Undo.Wires, n.Undo.Provisioning, n.Undo.Power, n.Undo.Override, n.Undo.Medium
	}
	inBand, boots := usesAgent(*op), tried(*op, step.PowerOn)
	if does&fleet.UndoBoot != 0 && (tried(*op, step.MediaInsert) || tried(*op, step.BootFromMedia) || inBand && n.Boot.MediaID != "") {
		u.Medium, u.Override = true, true
	}
	if does&fleet.UndoBoot != 0 && n.Opens() && (tried(*op, step.OpenProvisioning) || inBand) {
		u.Provisioning = true
	}
	if does&fleet.UndoPower != 0 && (boots || inBand && !plans(*op, step.PowerOn)) {
		u.Power, u.AgentUntil = true, v.now.Add(v.keepAgent)
	}
	if does&fleet.GoOff != 0 {
		u.Power, u.AgentUntil = true, time.Time{}
	}
	u.Wires = u.Wires || does&fleet.UndoWires != 0 && tried(*op, step.AttachTenant) || leaked(*op)
	if u.Left() {
		n.Undo = &u
		v.event("node.undo", "%s: to be put right: %s", n.Name, u.String())
	}
}

// plans reports whether a run has a step, tried whether it began it, at any try or in the run that it goes on with.
func plans(op fleet.Operation, name string) bool {
	return slices.ContainsFunc(op.Steps, func(r fleet.StepRun) bool { return r.Name == name })
}

func tried(op fleet.Operation, name string) bool {
	return slices.ContainsFunc(op.Steps, func(r fleet.StepRun) bool {
		return r.Name == name && (r.Try > 0 || r.Resumed || r.State == fleet.StepFinished)
	})
}

// usesAgent reports whether a run has steps on the machine.
func usesAgent(op fleet.Operation) bool {
	return slices.ContainsFunc(op.Steps, func(r fleet.StepRun) bool { return r.Side == step.InBand })
}

// putRight takes off the list what a step has just put right, in whatever plan.
func (v *view) putRight(name string) {
	u := v.node.v.Undo
	if u == nil {
		return
	}
	switch name {
	case step.Isolate:
		u.Wires, u.Provisioning = false, false
	case step.CloseProvisioning:
		u.Provisioning = false
	case step.PowerOff:
		u.Power = false
	case step.BootFromDisk:
		u.Override = false
	case step.MediaEject:
		u.Medium = false
	}
	if !u.Left() {
		v.allRight()
	}
}

// allRight drops the list: a plan has done all of it, or has made it moot.
func (v *view) allRight() {
	n := v.node.v
	if n.Undo == nil {
		return
	}
	n.Undo = nil
	n.ClearFault(planFault(step.Undo), planComponent(step.Undo))
}

// undoFailed leaves a named fault and waits longer each time, up to half an hour.
func (v *view) undoFailed(p fleet.Problem) {
	n := v.node.v
	if n.Undo == nil { // its last part was done, and the plan failed at one that another had done before
		return
	}
	p.Detail = "left: " + n.Undo.String() + ": " + p.Detail
	v.raise(step.Undo, p)
	n.Undo.NotBefore = v.now.Add(min(time.Minute<<min(n.Undo.Tries, 5), 30*time.Minute))
	n.Undo.Tries++
}
