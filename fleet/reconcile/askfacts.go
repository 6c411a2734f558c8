package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// changeFact does the verbs that change a fact and start nothing.
func (v *view) changeFact(verb string, p api.NodeVerb, by string) error {
	n := v.node.v
	switch verb {
	case api.VerbHold:
		if p.Reason == "" {
			e := fleet.Errorf(fleet.Invalid, "MC-NODE-HOLD-REASON", "a hold says why, for whoever finds it")
			e.Fields = []fleet.FieldError{{Field: "reason", Message: "is empty"}}
			return e.WithHint("metalctl node hold %s --reason TEXT", n.Name)
		}
		if n.Hold == nil {
			n.Hold = &fleet.Hold{By: by, Reason: p.Reason, Since: v.now}
			v.event("node.hold", "%s: held by %s: %s", n.Name, by, p.Reason)
		}
	case api.VerbUnhold:
		if n.Hold != nil {
			n.Hold = nil
			v.event("node.hold", "%s: let go by %s", n.Name, by)
		}
	case api.VerbProtect, api.VerbUnprotect:
		if want := verb == api.VerbProtect; n.Protected != want {
			n.Protected = want
			v.event("node.protect", "%s: %s by %s", n.Name, verb, by)
		}
	case api.VerbClearFault:
		doubt := p.FaultComponent == fleet.StaleComponent && (p.FaultCode == fleet.FaultStaleStore || p.FaultCode == fleet.FaultUnwitnessed)
		if doubt && strings.TrimSpace(p.Reason) == "" && n.Fault(p.FaultCode, p.FaultComponent) != nil {
			e := fleet.Errorf(fleet.Invalid, "MC-NODE-VOUCH-REASON", "whoever says that the store may be believed about %s says why", n.Name)
			e.Fields = []fleet.FieldError{{Field: "reason", Message: "is empty"}}
			return e.WithHint("look at the machine, then: %s", n.DoubtCommand())
		}
		if !n.ClearFault(p.FaultCode, p.FaultComponent) {
			return fleet.Errorf(fleet.NotFound, "MC-NODE-FAULT", "%s has no fault %s on %q", n.Name, p.FaultCode, p.FaultComponent).WithHint("metalctl node show %s", n.Name)
		}
		if doubt && p.FaultCode == fleet.FaultStaleStore {
			n.TakeOverWitness()
		} else if doubt {
			n.VouchedByPerson()
		}
		v.event("node.fault", "%s: %s on %s cleared by %s: %s", n.Name, p.FaultCode, p.FaultComponent, by, p.Reason)
	}
	return nil
}

// atOnce does the verbs of the table that need no plan.
func (l *Loop) atOnce(v *view, verb fleet.Verb, d *destruction, by string) error {
	n := v.node.v
	if d != nil && !n.Protected && n.Hold == nil {
		if err := d.record(n); err != nil {
			return err
		}
	}
	f := v.guards(verb)
	if err := v.askable(verb, f); err != nil {
		return err
	}
	if v.op.v != nil {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "%s runs on %s", v.op.v.Use, n.Name).WithHint("metalctl node abort %s", n.Name)
	}
	if verb != fleet.VerbForget {
		return v.move(verb, f, by, "asked")
	}
	if n.Lease != "" {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-LEASED", "%s belongs to lease %s", n.Name, n.Lease).WithHint("metalctl lease release %s", n.Lease)
	}
	v.dropped = true
	if l.ForgetKeys != nil {
		for _, k := range l.ForgetKeys(*n) {
			v.writes = append(v.writes, fleet.Write{Key: k})
		}
	}
	v.event("node.forgotten", "%s: forgotten by %s; nothing of the machine was touched", n.Name, by)
	return nil
}

// abort asks the node's plan to stop; where nothing runs yet, the wish goes.
func (l *Loop) abort(ctx context.Context, id fleet.NodeID, p api.NodeVerb, by string) (fleet.OperationID, error) {
	var op fleet.OperationID
	err := l.update(ctx, id, func(v *view) error {
		n := v.node.v
		if v.op.v == nil {
			return fleet.Errorf(fleet.Conflict, "MC-NODE-IDLE", "nothing runs on %s that could be aborted", n.Name).WithHint("metalctl node show %s", n.Name)
		}
		op = v.op.v.ID
		if v.undoing() {
			return fleet.Errorf(fleet.Refused, "MC-ABORT-UNDO", "what runs on %s puts right what a plan left behind that was given up already", n.Name).
				WithHint("metalctl node hold %s --reason TEXT stops it before its next step", n.Name)
		}
		if v.op.v.Use == string(step.Release) && n.State == fleet.Releasing {
			return fleet.Errorf(fleet.Refused, "MC-ABORT-RELEASE", "a release is not aborted: the node must be isolated first").WithHint("metalctl operation show %s", op)
		}
		if i := v.op.v.Current(); i >= 0 && v.op.v.Steps[i].State == fleet.StepStarted {
			if decl, _ := step.Find(v.op.v.Steps[i].Name); decl.Abort == step.AbortNever {
				return fleet.Errorf(fleet.Refused, "MC-ABORT-STEP", "%s runs on %s and cannot be stopped; abort when it has ended", decl.Name, n.Name).
					WithHint("metalctl operation show %s", op)
			}
		}
		if !v.op.v.Abort {
			v.op.v.Abort = true
			v.event("operation.abort", "%s: abort of %s asked by %s: %s", n.Name, v.op.v.Use, by, p.Reason)
		}
		return nil
	})
	return op, err
}

// interrupted stops the step that runs here where an abort was asked for.
func (l *Loop) interrupted(ctx context.Context, id fleet.NodeID) {
	v, err := l.look(ctx, id)
	if err == nil && v.op.v != nil && v.op.v.Abort {
		l.interrupt(id)
		l.Agents.Wake(id)
	}
}

// retry goes on with the newest plan that failed: at the first step that had not finished while the agent of that run is still up, else with a plan
// composed anew. A step that waits for a person's word goes on.
func (l *Loop) retry(ctx context.Context, id fleet.NodeID, p api.NodeVerb, by string) (fleet.OperationID, error) {
	var opID fleet.OperationID
	var fresh fleet.Verb
	var image, profile string
	// An agent was heard of lately although its machine is off by now: then nothing goes on there.
	power := ""
	if v, err := l.look(ctx, id); err != nil {
		return "", err
	} else if up, _ := l.Agents.Up(id, v.node.v.Boot.Generation); up {
		power = l.power(ctx, id)
	}
	// What is tried again where it stopped is the harm that it was: a root disk that is written anew. Where a plan is composed anew, wish counts it.
	err := l.updateFenced(ctx, id, fleet.HarmRebuild, nil, func(v *view) error {
		n := v.node.v
		fresh, image, profile = "", "", ""
		if v.frozen != nil {
			return v.frozen.Refuse(*n, api.VerbRetry)
		}
		if v.op.v != nil && !v.undoing() {
			opID = v.op.v.ID
			return v.nudge(by)
		}
		last := v.last
		if last == nil || last.State != fleet.OperationFailed && last.State != fleet.OperationAborted {
			return fleet.Errorf(fleet.Conflict, "MC-NODE-RETRY", "nothing on %s failed that could be tried again", n.Name).WithHint("metalctl node show %s", n.Name)
		}
		use := step.Use(last.Use)
		verb := verbOf[use]
		if use == step.Clean && n.State == fleet.Available {
			verb = fleet.VerbClean
		}
		opID = fleet.OperationID(l.NewID())
		if use == step.Release && n.State == fleet.Releasing {
			n.ClearFault(planFault(use), planComponent(use))
			l.take(v, step.Again(*last, opID, by, v.now))
			n.Wish = &fleet.Wish{Verb: fleet.VerbRelease, By: by, At: v.now, Operation: opID}
			return nil
		}
		f := v.guards(verb)
		f.Agreed = f.Agreed && (use == step.Clean || use == step.Burn)
		up := l.continues(v, power)
		// Whether a machine that runs may be restarted is decided where the plan is composed anew.
		f.RebootAllowed, f.MachineOff = true, up
		if err := v.askable(verb, f); err != nil {
			return err
		}
		// Packs may have become others: the plan that failed names the old ones.
		packs := last.Current() >= 0 && last.Steps[last.Current()].Name == step.FetchPacks
		if !up || packs || burnJudged(*last) {
			fresh, image, profile = verb, imageOf(*last), burnProfile(*last).Name
			return nil
		}
		if use == step.Rebuild {
			again, _ := deedOf(verb, api.NodeVerb{Image: imageOf(*last)}, by)
			again.lease = n.Lease
			if err := v.book.take(again, []*fleet.Node{n}); err != nil {
				return err
			}
		}
		if v.undoing() {
			v.op.v.Abort = true
			n.Wish = &fleet.Wish{Verb: verb, By: by, At: v.now, Operation: opID, AllowReboot: p.AllowReboot, Image: imageOf(*last), Profile: burnProfile(*last).Name, Resume: last.ID}
			v.event("node.wish", "%s: %s asked again by %s", n.Name, verb, by)
			return nil
		}
		again := step.Again(*last, opID, by, v.now)
		again.From, again.Verb = n.State, verb
		n.Wish = &fleet.Wish{Verb: verb, By: by, At: v.now, Operation: opID}
		l.take(v, again)
		return nil
	})
	if err != nil || fresh == "" {
		return opID, l.fenced(ctx, err)
	}
	p = api.NodeVerb{AllowReboot: p.AllowReboot, Image: image, Profile: profile}
	if fresh == fleet.VerbAccept {
		// What was agreed stays agreed, and no more.
		v, err := l.look(ctx, id)
		if err != nil {
			return "", err
		}
		for _, d := range v.node.v.Accepted {
			p.Devices = append(p.Devices, d.Serial)
		}
	}
	return l.wish(ctx, id, fresh, p, by)
}

// continues reports whether the newest plan run that has ended can go on where it stopped: with the agent that it had, which understands what is left, for
// the lease that it had.
func (l *Loop) continues(v *view, power string) bool {
	n, last := v.node.v, v.last
	up, _ := l.Agents.Up(n.ID, n.Boot.Generation)
	return up && power != "off" && last != nil && last.Generation == n.Boot.Generation && last.Lease == n.Lease &&
		step.AgentGoesOn(*last, n.Boot.Speaks())
}

// nudge ends the waiting of the step that is next: for a person, or for its backoff.
func (v *view) nudge(by string) error {
	n, op := v.node.v, v.op.v
	i := op.Current()
	if i < 0 {
		return nil
	}
	r := &op.Steps[i]
	switch {
	case r.State == fleet.StepAsk:
		r.State, r.Resumed, r.Error = fleet.StepPending, true, nil
	case r.State == fleet.StepPending && !r.NotBefore.IsZero():
		r.NotBefore = time.Time{}
	default:
		return fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "%s of %s runs on %s", r.Name, op.Use, n.Name).WithHint("metalctl operation show %s", op.ID)
	}
	v.stepEvent(i, fmt.Sprintf("%s: %s goes on, asked by %s", n.Name, r.Name, by))
	return nil
}
