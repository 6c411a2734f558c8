package reconcile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// end closes the node's operation.
func (v *view) end(s fleet.OperationState, p *fleet.Problem) {
	n, op := v.node.v, v.op.v
	op.State, op.EndedAt, op.Error = s, v.now, p
	v.recorded()
	n.Operation = ""
	if step.ReportOf(*op) != "" {
		n.BurnIn = op.ID
	}
	if op.Use != string(step.Undo) { // a retry goes on with what failed, not with the clean-up after it
		n.LastOperation = op.ID
	}
	text := fmt.Sprintf("%s: %s %s", n.Name, op.Use, s)
	if p != nil {
		text += ": " + p.Detail
	}
	v.event("operation."+string(s), "%s", text)
	v.events[len(v.events)-1].Subject = v.op.key
	if o, ok := ramdiskOutcome(*n, *op); ok {
		// Strings and numbers always encode.
		v.events[len(v.events)-1].Data, _ = json.Marshal(o)
	}
}

// ramdiskOutcome is what the end of a plan says about the ramdisk that its agent came with; nothing, where the plan needed none, or failed for what it
// found on the machine.
func ramdiskOutcome(n fleet.Node, op fleet.Operation) (fleet.RamdiskOutcome, bool) {
	o := fleet.RamdiskOutcome{SHA256: n.Boot.Ramdisk, Generation: n.Boot.Generation, Kind: "done"}
	if o.SHA256 == "" || op.Generation != n.Boot.Generation {
		return o, false
	}
	uses := func(r fleet.StepRun) bool { return r.Name == step.AwaitAgent || r.Side == step.InBand }
	i := op.Current()
	switch {
	case op.State == fleet.OperationDone:
		return o, slices.ContainsFunc(op.Steps, uses)
	case op.State != fleet.OperationFailed || i < 0 || !uses(op.Steps[i]) || op.Steps[i].Error == nil:
		return o, false
	}
	e := op.Steps[i].Error
	o.Kind, o.Why = "failed", cut(fmt.Sprintf("%s: %s at %s: %s", n.Name, e.Code, op.Steps[i].Name, e.Detail), 200)
	return o, op.Steps[i].Name == step.AwaitAgent || slices.Contains(agentsOwn, e.Code)
}

// agentsOwn are failures of an in-band step that lie at the agent, not at what it works on.
var agentsOwn = []string{"MC-AGENT-EVIDENCE", "MC-AGENT-LOST", "MC-AGENT-OLD", "MC-AGENT-PANIC", "MC-AGENT-STEP", "MC-AGENT-TASK", "MC-AGENT-VERSION"}

// complete makes the table's transition for a plan whose every step has finished, together with the node's durable facts and its lease.
func (l *Loop) complete(v *view) error {
	n, op := v.node.v, v.op.v
	use := step.Use(op.Use)
	n.ClearFault(planFault(use), planComponent(use))
	if use == step.Undo {
		if n.Undo != nil {
			n.Undo.Tries, n.Undo.NotBefore = 0, time.Time{}
		}
		v.end(fleet.OperationDone, nil)
		return nil
	}
	if usesAgent(*op) {
		v.clearPacks()
	}
	if usesAgent(*op) || use == step.Resume {
		v.allRight() // the machine is as this plan wanted it
	}
	f := v.guards(fleet.VerbDone)
	if use == step.Release && v.lease.v != nil && f.LeaseGrantsGrace {
		v.lease.v.GraceEnds = latest(v.lease.v.GraceEnds, v.late.Add(seconds(v.lease.v.Request.GraceSeconds)))
	}
	if use == step.Clean {
		n.Erased = eraseLevel(*op)
	}
	member := v.member()
	if err := v.move(fleet.VerbDone, f, "the plan", "every step of "+op.Use+" finished"); err != nil {
		// The guards ask for more than the steps proved, such as isolation: the node stays where it is and a person sees why.
		v.raise(use, *fleet.ProblemOf(err))
		v.end(fleet.OperationFailed, fleet.ProblemOf(err))
		return nil
	}
	if member != nil && (use == step.Deploy || use == step.Resume) {
		v.setMember(member, fleet.MemberReady, proofOf(*op))
		member.Undeployed = false
	}
	v.end(fleet.OperationDone, nil)
	return nil
}

// clearPacks clears the faults of packs after a plan that worked on the machine: it fetched all that the class wants, or had nothing to fetch.
func (v *view) clearPacks() {
	for _, x := range slices.Clone(v.node.v.Faults) {
		if x.Step == step.FetchPacks && v.node.v.ClearFault(x.Code, x.Component) {
			v.event("node.fault", "%s: %s on %s is gone", v.node.v.Name, x.Code, x.Component)
		}
	}
}

// eraseLevel is the level that the run was asked to reach at least, and has reached where it is done.
func eraseLevel(op fleet.Operation) string {
	for _, s := range op.Steps {
		var p step.EraseParams
		if s.Name == step.EraseDisks && s.State == fleet.StepFinished && json.Unmarshal(s.Params, &p) == nil {
			if p.AcceptFormat {
				return fleet.ErasedByFormat
			}
			return p.Level
		}
	}
	return ""
}

// proofOf is what await-ready recorded.
func proofOf(op fleet.Operation) string {
	for _, s := range op.Steps {
		if s.Name == step.AwaitReady && len(s.Evidence) > 0 {
			return cut(string(s.Evidence), 200)
		}
	}
	return ""
}

// fail ends a plan whose step failed for good. Where the step still runs on the machine, nobody saw its end.
func (l *Loop) fail(v *view, m Move) error {
	op := v.op.v
	r := op.Steps[m.Index]
	if r.State != fleet.StepFailed {
		decl, _ := step.Find(r.Name)
		if v.frozen != nil && r.State == fleet.StepStarted && !decl.Observes && !op.Abort {
			v.spared(m.Index, m.Why) // maybe it was never handed out
			return nil
		}
		if decl.Unseen && r.State == fleet.StepStarted {
			v.finished(m.Index, []byte(`{"unseen":true}`))
			return nil
		}
		if again, err := l.bootAgain(v, m.Index, m.Why); again || err != nil {
			return err
		}
		p := fleet.Problem{Code: "MC-AGENT-LOST", Detail: r.Name + ": " + m.Why,
			Hint: "metalctl node timeline " + v.node.v.Name + ", then: metalctl node retry " + v.node.v.Name}
		*op = step.Failed(*op, m.Index, p, step.UnseenEnd, v.now)
	}
	use := step.Use(op.Use)
	p := *op.Steps[m.Index].Error
	if use == step.Undo {
		v.undoFailed(p)
		v.end(fleet.OperationFailed, &p)
		return nil
	}
	if mem := v.member(); use == step.Release && r.Name == step.PowerOff && mem != nil && mem.State != mem.Gone() {
		p.Detail = "the machine may still run and nothing else separates it, so its lease is not released: " + p.Detail
	}
	v.raise(use, p)
	if m := v.member(); m != nil && use == step.Deploy {
		m.Undeployed = true
	}
	if err := v.giveUp(use, p.Detail); err != nil {
		return err
	}
	v.end(fleet.OperationFailed, &p)
	return nil
}

// stop ends a plan that somebody aborted.
func (l *Loop) stop(v *view, m Move) error {
	n, op := v.node.v, v.op.v
	r := op.Steps[m.Index]
	p := fleet.Problem{Code: "MC-PLAN-ABORTED", Detail: fmt.Sprintf("aborted before %s ended", r.Name), Hint: "metalctl node retry " + n.Name}
	if r.Side == step.InBand && r.State == fleet.StepStarted {
		p.Detail += ", while its agent was silent: it may go on with that until the machine is switched off or restarted"
	}
	if op.State == fleet.OperationPending && n.Wish != nil && n.Wish.Operation == op.ID {
		n.Wish = nil
		v.end(fleet.OperationAborted, &p)
		return nil
	}
	use := step.Use(op.Use)
	if use == step.Undo { // something else was asked for; what is left stays on the list
		v.end(fleet.OperationAborted, &p)
		return nil
	}
	v.raise(use, p)
	if err := v.giveUp(use, "aborted"); err != nil {
		return err
	}
	v.end(fleet.OperationAborted, &p)
	return nil
}

// raise leaves the fault of a failed plan, which blocks handing the node out until a plan of that kind has succeeded or a person clears it.
func (v *view) raise(use step.Use, p fleet.Problem) {
	n := v.node.v
	code := p.Code
	if code != "" {
		code += ": "
	}
	hint := p.Hint
	if hint == "" {
		hint = "metalctl node retry " + n.Name
	}
	blocks := fleet.BlocksAllocate
	if strings.HasPrefix(p.Code, "MC-CONFIGDRIVE-") {
		blocks = fleet.BlocksNothing // what the tenant asked for cannot be built; nothing is wrong with the machine
	}
	n.RaiseFault(fleet.Fault{Code: planFault(use), Component: planComponent(use), Severity: fleet.Critical, Since: v.now,
		Evidence: code + p.Detail, Hint: cut(hint, 200), Blocks: blocks})
}

// fault takes a fault that a step found, made complete.
func (v *view) fault(x fleet.Fault) {
	if x.Since.IsZero() {
		x.Since = v.now
	}
	if x.Severity == "" {
		x.Severity = fleet.Critical
	}
	if x.Blocks == "" {
		x.Blocks = fleet.BlocksAllocate
	}
	if x.Hint == "" {
		x.Hint = "metalctl node show " + v.node.v.Name
	}
	x.Hint = cut(x.Hint, 200)
	fresh := v.node.v.Fault(x.Code, x.Component) == nil
	v.node.v.RaiseFault(x)
	if x.Blocks != fleet.BlocksNothing { // what has a fault now is not what was burned in
		v.node.v.BurnedAt = time.Time{}
	}
	if fresh {
		v.event("node.fault", "%s: %s on %s: %s", v.node.v.Name, x.Code, x.Component, cut(x.Evidence, 200))
	}
}

// personClears are faults that no later look takes back: somebody says that the part is known, by clearing them.
var personClears = map[string]bool{"MC-PART-SWAPPED": true, "MC-PART-MOVED": true, "MC-BOARD-IDENTITY": true}

// judge takes the faults that a step found. Where the step ended well, those that it found before and not again are gone.
func (v *view) judge(name string, r step.Result) {
	n := v.node.v
	for _, x := range slices.Clone(n.Faults) {
		same := func(y fleet.Fault) bool { return y.Code == x.Code && y.Component == x.Component }
		again := slices.ContainsFunc(r.Faults, same) || slices.ContainsFunc(r.Kept, same)
		if r.Problem == nil && x.Step == name && !again {
			n.ClearFault(x.Code, x.Component)
			v.event("node.fault", "%s: %s on %s is gone", n.Name, x.Code, x.Component)
		}
	}
	for _, x := range r.Faults {
		if x.Step = name; personClears[x.Code] {
			x.Step = "" // the next inspection compares with this one, and would find all in order
		}
		if old := n.Fault(x.Code, x.Component); old != nil && old.Step != "" {
			old.Step = x.Step // two steps may find the same: who found it last takes it back
		}
		v.fault(x)
	}
}

// giveUp takes the node out of its working state by the table's abort; a release has none and stays where it is.
func (v *view) giveUp(use step.Use, why string) error {
	n := v.node.v
	if m := v.member(); m != nil && (use == step.Deploy || use == step.Resume) {
		v.setMember(m, fleet.MemberFailed, cut(why, 200))
	}
	if use == step.Release {
		return nil
	}
	if !n.State.Working() {
		return nil
	}
	return v.move(fleet.VerbAbort, v.guards(fleet.VerbAbort), "the plan", why)
}

// member is the node's place in its lease, or nil.
func (v *view) member() *fleet.Member {
	if v.lease.v == nil {
		return nil
	}
	return v.lease.v.Member(v.node.v.ID)
}

func (v *view) setMember(m *fleet.Member, s fleet.MemberState, proof string) {
	if m.State == s {
		return
	}
	m.State, m.Since = s, v.now
	if proof != "" {
		m.Proof = proof
	}
	v.event("lease.member", "%s: %s is %s in lease %s", v.lease.v.ID, m.Name, s, v.lease.v.Name)
	v.events[len(v.events)-1].Subject = v.lease.key
}

// finished journals the end of a step and takes over what it means for the node.
func (v *view) finished(i int, evidence []byte) {
	*v.op.v = step.Finished(*v.op.v, i, evidence, v.now)
	r := v.op.v.Steps[i]
	v.putRight(r.Name)
	v.powerSet(r.Name)
	v.stepEvent(i, fmt.Sprintf("%s: %s finished in %s", v.node.v.Name, r.Name, v.now.Sub(r.StartedAt).Round(1e6)))
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most-3] + "..."
}
