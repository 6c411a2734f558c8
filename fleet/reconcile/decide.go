package reconcile

import (
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// MoveKind says what the one next move of a node is.
type MoveKind uint8

const (
	// Rest: nothing to do until something happens.
	Rest MoveKind = iota
	// Wait: nothing to do before Until.
	Wait
	// Plan: compose the plan of Use and make it the node's operation.
	Plan
	// Enter: the wish's transition is made and its plan begins.
	Enter
	// Start: journal that step Index starts, and do it or wake the agent.
	Start
	// Recover: an out-of-band step had started when its worker died.
	Recover
	// Await: an in-band step runs on the machine.
	Await
	// Complete: every step has finished.
	Complete
	// Fail: step Index has failed for good, or its agent is lost.
	Fail
	// Stop: the abort that was asked for acts.
	Stop
	// EndGrace: the grace time is over. ComeBack: the lease was extended in its grace time.
	EndGrace
	ComeBack
)

var moveNames = [...]string{"rest", "wait", "plan", "enter", "start", "recover", "await", "complete", "fail", "stop", "end grace", "come back"}

func (k MoveKind) String() string { return moveNames[k] }

// Move is what Decide answers.
type Move struct {
	Kind  MoveKind
	Index int
	Use   step.Use
	Until time.Time
	// Why says what is waited for, or what went wrong.
	Why string
}

// rests reports whether the worker may go and sleep.
func (m Move) rests() bool { return m.Kind == Rest || m.Kind == Wait || m.Kind == Await }

// Decide says what the one next move of a node is. It is pure: op is the node's operation or nil, lease the node's lease or nil.
func Decide(n fleet.Node, op *fleet.Operation, lease *fleet.Lease, f Facts, now time.Time) Move {
	if op != nil {
		return decideRun(n, *op, f, now)
	}
	if f.Frozen != "" && (n.Wish != nil || n.Undo != nil || moves(n.State) && !extended(lease, n.ID)) {
		return Move{Kind: Rest, Why: "waits for the thaw: " + f.Frozen}
	}
	if n.Wish != nil {
		use, _ := useOf(n.Wish.Verb)
		return Move{Kind: Plan, Use: use, Why: fmt.Sprintf("%s was asked by %s", n.Wish.Verb, n.Wish.By)}
	}
	switch n.State {
	case fleet.Cleaning:
		if n.Protected { // since its release began: what was under way then goes on, and the erase is not
			return Move{Kind: Rest, Why: "protected, so nothing is erased: metalctl node unprotect " + n.Name}
		}
		if x := n.Barred(false); x != nil {
			return Move{Kind: Rest, Why: barredBy(n, x)}
		}
		return Move{Kind: Plan, Use: step.Clean, Why: "what the node held is erased"}
	case fleet.Burning:
		if x := n.Barred(false); x != nil {
			return Move{Kind: Rest, Why: barredBy(n, x)}
		}
		return Move{Kind: Plan, Use: step.Burn, Why: "a burn-in is due"}
	case fleet.Releasing:
		// A release that failed waits for a person: isolation was not proven, or the machine does not go off.
		if x := n.Fault(planFault(step.Release), planComponent(step.Release)); x != nil {
			return Move{Kind: Rest, Why: "release failed: " + x.Evidence + ": metalctl node retry " + n.Name}
		}
		return Move{Kind: Plan, Use: step.Release, Why: "the node goes back"}
	case fleet.Grace:
		return decideGrace(n, lease, f.Sure, now)
	}
	if n.Undo != nil {
		return decideUndo(n, f, now)
	}
	return Move{Kind: Rest}
}

// moves reports whether a node in that state is planned for without anybody's wish.
func moves(s fleet.State) bool {
	return s == fleet.Cleaning || s == fleet.Burning || s == fleet.Releasing || s == fleet.Grace
}

// observes reports whether a plan only looks.
func observes(op fleet.Operation) bool {
	return !slices.ContainsFunc(op.Steps, func(r fleet.StepRun) bool {
		decl, known := step.Find(r.Name)
		return !known || !decl.Observes
	})
}

func decideRun(n fleet.Node, op fleet.Operation, f Facts, now time.Time) Move {
	if op.State == fleet.OperationPending && n.Wish != nil && n.Wish.Operation == op.ID {
		switch {
		case op.Abort:
			return Move{Kind: Stop, Index: max(op.Current(), 0), Why: "abort asked"}
		case f.Frozen != "" && !observes(op):
			return Move{Kind: Wait, Why: "waits for the thaw: " + f.Frozen}
		case n.Hold != nil && op.Use != string(step.Release):
			return Move{Kind: Wait, Why: heldBy(n)}
		}
		return Move{Kind: Enter, Why: string(op.Verb) + " begins"}
	}
	at, since := now, f.AgentSince
	if !f.Steady.IsZero() {
		at = f.Steady
		if !since.IsZero() {
			since = at.Add(-now.Sub(since))
		}
	}
	a := step.Next(op, at, step.Signals{Held: n.Hold != nil, Frozen: f.Frozen, AgentUp: f.AgentUp, AgentSince: since, AgentRefused: n.Boot.Refused})
	m := Move{Index: a.Index, Until: a.Until, Why: a.Why, Use: step.Use(op.Use)}
	if !a.Until.IsZero() {
		m.Until = now.Add(a.Until.Sub(at))
	}
	switch a.Do {
	case step.Start:
		m.Kind = Start
		if f.Power != nil {
			return Move{Kind: Wait, Index: m.Index, Use: m.Use, Why: f.Power.Text}
		}
		if n.Protected && op.Use == string(step.Undo) && op.Steps[m.Index].Name == step.PowerOff {
			m.Kind, m.Why = Stop, "protected since the clean-up began, so the machine is not switched off"
		}
	case step.Wait:
		m.Kind = Wait
		if n.Hold != nil && f.Frozen == "" && a.Until.IsZero() {
			m.Why = heldBy(n)
		}
	case step.Running:
		m.Kind = Await
		if op.Steps[a.Index].Side == step.OutOfBand {
			m.Kind = Recover
		} else if f.Frozen != "" {
			m.Why += "; what the machine has begun ends, and nothing else begins: " + f.Frozen
		}
	case step.Finish:
		m.Kind = Complete
	case step.Fail:
		m.Kind = Fail
	case step.Abort:
		m.Kind = Stop
	case step.AskPerson:
		m.Kind = Rest
	}
	return m
}

func barredBy(n fleet.Node, x *fleet.Fault) string {
	return fmt.Sprintf("nothing boots while it has the fault %s: %s", x.Code, fleet.HintFor(x.Hint, n.Name))
}

func heldBy(n fleet.Node) string {
	return fmt.Sprintf("held by %s (%s): metalctl node unhold %s", n.Hold.By, n.Hold.Reason, n.Name)
}

func decideGrace(n fleet.Node, lease *fleet.Lease, sure, now time.Time) Move {
	switch {
	case lease == nil:
		return Move{Kind: EndGrace, Why: "its lease is gone"}
	case extended(lease, n.ID):
		return Move{Kind: ComeBack, Why: "the lease was extended"}
	case n.Hold != nil:
		return Move{Kind: Rest, Why: heldBy(n)}
	case n.Protected:
		return Move{Kind: Rest, Why: "protected, so nothing is erased: metalctl node unprotect " + n.Name}
	case sure.Before(lease.GraceEnds):
		return Move{Kind: Wait, Until: now.Add(lease.GraceEnds.Sub(sure)), Why: graceWhy(lease)}
	}
	return Move{Kind: EndGrace, Why: "the grace time is over"}
}

func graceWhy(l *fleet.Lease) string {
	why := "grace until " + l.GraceEnds.UTC().Format(time.RFC3339)
	if l.State == fleet.LeaseReleased {
		why += ": metalctl lease extend " + string(l.ID)
	}
	return why
}

// extended reports whether the lease was extended in its grace time and this member is to come back: extending marks it so. That a lease goes on
// says nothing about a member that was given back alone.
func extended(l *fleet.Lease, id fleet.NodeID) bool {
	if l == nil {
		return false
	}
	m := l.Member(id)
	return m != nil && (m.State == fleet.MemberReserved || m.State == fleet.MemberDeploying) && (l.State == fleet.LeaseDeploying || l.State == fleet.LeaseActive)
}

// uses says which plan a verb begins; verbs that are not here begin none.
var uses = map[fleet.Verb]step.Use{
	fleet.VerbInspect: step.Inspect, fleet.VerbAccept: step.Clean, fleet.VerbClean: step.Clean, fleet.VerbBurn: step.Burn,
	fleet.VerbDeploy: step.Deploy, fleet.VerbRebuild: step.Rebuild, fleet.VerbRelease: step.Release, fleet.VerbResume: step.Resume,
}

func useOf(v fleet.Verb) (step.Use, bool) {
	u, ok := uses[v]
	return u, ok
}

// verbOf is the verb that leads into a plan's state when it is tried again.
var verbOf = map[step.Use]fleet.Verb{
	step.Inspect: fleet.VerbInspect, step.Clean: fleet.VerbAccept, step.Deploy: fleet.VerbDeploy, step.Rebuild: fleet.VerbRebuild,
	step.Burn: fleet.VerbBurn, step.Release: fleet.VerbRelease, step.Resume: fleet.VerbResume, step.Undo: fleet.VerbAbort,
}

// planFault is the code of the fault that a failed plan leaves, planComponent its component.
func planFault(u step.Use) string {
	return map[step.Use]string{step.Inspect: "MC-FAULT-INSPECT", step.Clean: "MC-FAULT-CLEAN", step.Burn: "MC-FAULT-BURN", step.Deploy: "MC-FAULT-DEPLOY",
		step.Rebuild: "MC-FAULT-REBUILD", step.Release: "MC-FAULT-RELEASE", step.Resume: "MC-FAULT-RESUME", step.Undo: "MC-FAULT-UNDO"}[u]
}

func planComponent(u step.Use) string { return "plan/" + string(u) }
