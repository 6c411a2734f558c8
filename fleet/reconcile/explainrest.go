package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// resting is about a node that nothing moves by itself.
func (s Situation) resting() []api.Reason {
	n := s.Node
	r, verb := s.rest()
	if f, v, ok := s.failed(); ok {
		r, verb = f, v
	}
	if r.Kind == "hold" || r.Kind == "protect" || r.On != api.OnPerson {
		return []api.Reason{r}
	}
	if v := s.view(); (r.Kind == "rest" || r.Kind == "unfit") && v.barred(verb, v.guards(verb)) != nil {
		return nil // what it waits for is the fault, which is told besides
	}
	// What stands before the command is named before it.
	switch {
	case n.Hold != nil && verb != "" && verb != api.VerbClearFault:
		return []api.Reason{s.held(), r}
	case n.Protected && slices.Contains(protectedAgainst, verb):
		return []api.Reason{s.protected(string(verb) + " is refused"), r}
	}
	return []api.Reason{r}
}

// protectedAgainst are the verbs that a protected node refuses.
var protectedAgainst = []fleet.Verb{fleet.VerbRelease, fleet.VerbRebuild, fleet.VerbClean, fleet.VerbAccept, fleet.VerbRetire}

// rest says what the node's state waits for, and which verb its command asks.
func (s Situation) rest() (api.Reason, fleet.Verb) {
	n := s.Node
	person := func(verb fleet.Verb, text, command string) (api.Reason, fleet.Verb) {
		return api.Reason{Kind: "rest", On: api.OnPerson, Since: n.StateSince, Text: text, Command: s.command("%s", command)}, verb
	}
	switch n.State {
	case fleet.Enrolled:
		return person(fleet.VerbInspect, "nobody asked for an inspection yet; a machine that runs is restarted only with --allow-reboot", "node inspect NODE")
	case fleet.Managed:
		switch {
		case n.Inventory == "":
			return person(fleet.VerbInspect, "it has no inventory; a machine that runs is restarted only with --allow-reboot", "node inspect NODE")
		case s.Class.Name == "":
			return person("", "it has no class, which says how it is erased", "node set NODE --class CLASS")
		}
		return person(fleet.VerbAccept, "somebody must agree to the disks that may be erased", "node accept NODE")
	case fleet.Available:
		return s.offered()
	case fleet.Allocated:
		return s.reserved()
	case fleet.Active:
		return s.leased(), ""
	case fleet.Grace:
		if n.Hold != nil {
			return s.held(), ""
		}
		return s.protected("its grace time may be over, and nothing is erased"), ""
	case fleet.Retired:
		return api.Reason{Kind: "rest", On: api.OnNobody, Since: n.StateSince, Text: "out of service", Command: s.command("node forget NODE")}, fleet.VerbForget
	}
	text := "nothing runs although its state says so, which is a mistake of the program: please report it with a support bundle"
	if s.refuses(fleet.VerbRelease) == nil {
		return person(fleet.VerbRelease, text, "node release NODE")
	}
	if !n.State.Working() {
		return api.Reason{Kind: "rest", On: api.OnNobody, Since: n.StateSince, Text: "nothing"}, ""
	}
	return person("", text, "node timeline NODE")
}

// offered is about an available node: a lease may take it, or why none can.
func (s Situation) offered() (api.Reason, fleet.Verb) {
	n := s.Node
	unfit := func(verb fleet.Verb, since time.Time, code, text, command string) (api.Reason, fleet.Verb) {
		return api.Reason{Kind: "unfit", On: api.OnPerson, Since: since, Code: code, Text: "no lease may have it: " + text, Command: s.command("%s", command)}, verb
	}
	look := "node inspect NODE"
	if !s.Facts.AgentUp {
		look += " --allow-reboot" // nobody works on an available machine
	}
	if blocking := n.Blocked(fleet.BlocksAllocate); len(blocking) > 0 {
		f := blocking[0]
		text := fmt.Sprintf("%s on %s: %s", f.Code, f.Component, f.Evidence)
		switch {
		case f.Step == step.CompareClass, f.Step == step.CompareAccepted, f.Step == step.Inventory, f.Step == step.ReadBoard:
			return unfit(fleet.VerbInspect, f.Since, f.Code, text, look)
		case f.Step == step.EraseDisks, f.Step == step.VerifyErase:
			return unfit(fleet.VerbClean, f.Since, f.Code, text, "node clean NODE")
		}
		return unfit(api.VerbClearFault, f.Since, f.Code, text, fmt.Sprintf("node clear-fault NODE --code %s --component %s", f.Code, f.Component))
	}
	f := s.view().guards(fleet.VerbAllocate)
	switch {
	case n.Hold != nil:
		return s.held(), ""
	case n.Protected:
		return s.protected("no lease may have it"), api.VerbUnprotect
	case n.Inventory == "" || s.Class.Name == "":
		return unfit(fleet.VerbInspect, n.StateSince, "MC-NODE-GUARD", "it was not inspected for a class", look)
	case !f.Fresh:
		return unfit(fleet.VerbClean, n.StateSince, "MC-NODE-GUARD", "its class wants a more thorough erase than it had", "node clean NODE")
	case !f.ClassMatches:
		return unfit(fleet.VerbInspect, n.StateSince, "MC-NODE-GUARD", "its class has changed since it was compared with it", look)
	case f.BurnInDue:
		return unfit(fleet.VerbBurn, n.StateSince, "MC-NODE-GUARD", "its burn-in is due", "node burn NODE")
	case !f.Isolated && !f.IsolationWaived:
		return unfit("", n.StateSince, "MC-NET-NO-DRIVER", "its isolation is not proven, and the site does not waive it", "site apply -f FILE")
	}
	return api.Reason{Kind: "rest", On: api.OnNobody, Since: n.StateSince, Text: "any lease may have it", Command: s.command("lease create --node NODE --image IMAGE")}, ""
}

// reserved is about a node that a lease holds and that is not deployed.
func (s Situation) reserved() (api.Reason, fleet.Verb) {
	n, l := s.Node, s.Lease
	if l == nil {
		return api.Reason{Kind: "rest", On: api.OnPerson, Since: n.StateSince, Text: "its lease is gone", Command: s.command("node release NODE")}, fleet.VerbRelease
	}
	r := api.Reason{Kind: "moving", On: api.OnServer, Since: n.StateSince, Text: fmt.Sprintf("lease %s is %s and moves it next", firstOf(l.Name, string(l.ID)), l.State)}
	if m := l.Member(n.ID); m != nil && m.State == fleet.MemberFailed && !l.State.Over() && l.State != fleet.LeaseReleasing {
		r = api.Reason{Kind: "rest", On: api.OnPerson, Since: m.Since, Text: "its deployment failed and its lease goes on without it: " + m.Proof, Command: s.command("node release NODE")}
		return r, fleet.VerbRelease
	}
	if n.Hold != nil && l.State != fleet.LeaseReleasing {
		return s.held(), ""
	}
	if m := l.Member(n.ID); m != nil {
		if p := inherits(*l, *m); p != nil {
			r.Text, r.Command = "it gets the identity of "+p.Name+", and waits until that one is separated from the lease", "metalctl node explain "+p.Name
			return r, ""
		}
	}
	if n.Protected && l.State == fleet.LeaseReleasing {
		return s.protected("its lease ends, and its release is refused"), ""
	}
	return r, ""
}

// leased is about a node that a tenant has.
func (s Situation) leased() api.Reason {
	n, l := s.Node, s.Lease
	r := api.Reason{Kind: "rest", On: api.OnNobody, Since: n.StateSince, Text: "its tenant has it"}
	if l == nil {
		return r
	}
	r.Text = "lease " + firstOf(l.Name, string(l.ID)) + " has it"
	until := l.Request.Until
	switch {
	case l.State == fleet.LeaseReleasing && n.Protected:
		return s.protected("its lease ends, and its release is refused")
	case l.State == fleet.LeaseReleasing:
		return api.Reason{Kind: "moving", On: api.OnServer, Since: l.Since, Text: "its lease is over and releases it next"}
	case until.IsZero():
	case s.Facts.Sure.Before(until):
		r.Until, r.Then = until, "the lease ends: it is isolated and switched off"
		r.Command = "metalctl lease extend " + string(l.ID) + " --until TIME"
	case n.Protected:
		p := s.protected("the time of its lease is over, and its release is refused")
		p.Since = until
		return p
	}
	return r
}

// failed is about a node whose newest plan failed or was aborted, as long as that plan's fault stands.
func (s Situation) failed() (api.Reason, fleet.Verb, bool) {
	n, last := s.Node, s.Last
	if last == nil || last.State != fleet.OperationFailed && last.State != fleet.OperationAborted {
		return s.failedUnseen()
	}
	use := step.Use(last.Use)
	f := n.Fault(planFault(use), planComponent(use))
	if f == nil {
		return s.failedUnseen()
	}
	r := api.Reason{Kind: "failed", On: api.OnPerson, Since: latest(f.Since, last.EndedAt), Code: firstOf(codeOf(last.Error), f.Code)}
	at := ""
	if i := last.Current(); i >= 0 {
		at = " at " + last.Steps[i].Name
	}
	word := "failed"
	if last.State == fleet.OperationAborted {
		word = "was aborted"
	}
	r.Text = fmt.Sprintf("%s %s%s: %s", use, word, at, strings.TrimPrefix(f.Evidence, r.Code+": "))
	verb, command := s.again(use)
	if command == "" {
		return r, "", false
	}
	r.Command = s.command("%s", command)
	return r, verb, true
}

// failedUnseen is about a release that could not even be planned: no operation tells of it.
func (s Situation) failedUnseen() (api.Reason, fleet.Verb, bool) {
	f := s.Node.Fault(planFault(step.Release), planComponent(step.Release))
	if s.Node.State != fleet.Releasing || f == nil {
		return api.Reason{}, "", false
	}
	return api.Reason{Kind: "failed", On: api.OnPerson, Since: f.Since, Code: f.Code, Text: "release failed: " + f.Evidence,
		Command: s.command("node clear-fault NODE --code %s --component %s", f.Code, f.Component)}, api.VerbClearFault, true
}

// again is how what failed is tried again, "" where its state offers no such way: the verb that it comes to, and what to type.
func (s Situation) again(use step.Use) (fleet.Verb, string) {
	n := s.Node
	switch {
	case use == step.Release && n.State == fleet.Releasing:
		return "", "node retry NODE" // a hold does not stop it
	case use == step.Burn && n.State == fleet.Managed && n.Dirty == "":
		return fleet.VerbBurn, "node burn NODE"
	case use == step.Burn && n.State == fleet.Managed:
		return fleet.VerbAccept, "node accept NODE"
	case use == step.Inspect && (n.State == fleet.Enrolled || n.State == fleet.Managed):
		if s.started() && !s.Facts.AgentUp && !n.AllowReboot {
			// What runs there now is what the plan booted, so it may be restarted.
			return fleet.VerbInspect, "node inspect NODE --allow-reboot"
		}
		return fleet.VerbInspect, "node retry NODE"
	case use == step.Clean && n.State == fleet.Managed:
		if len(n.Accepted) == 0 || slices.ContainsFunc(n.Faults, func(f fleet.Fault) bool {
			return strings.HasPrefix(f.Code, "MC-DEVICE-") || f.Code == "MC-ERASE-MISSING"
		}) {
			return fleet.VerbAccept, "node accept NODE"
		}
		return fleet.VerbAccept, "node retry NODE"
	case use == step.Deploy && n.State == fleet.Allocated && s.Lease != nil && !s.Lease.State.Over() && s.Lease.State != fleet.LeaseReleasing:
		return fleet.VerbDeploy, "node retry NODE"
	case use == step.Rebuild && n.State == fleet.Active:
		return fleet.VerbRebuild, "node retry NODE"
	}
	return "", ""
}

// started reports whether the newest plan came so far that it started the machine.
func (s Situation) started() bool {
	return slices.ContainsFunc(s.Last.Steps, func(r fleet.StepRun) bool { return r.Name == step.PowerOn && r.Try > 0 })
}

// view is the situation as what moves the node reads it.
func (s Situation) view() *view {
	v := &view{now: s.Now, sure: s.Facts.Sure, late: s.Now, last: s.Last, class: s.Class, site: s.Site}
	v.node.v, v.op.v, v.lease.v = &s.Node, s.Operation, s.Lease
	return v
}

// refuses says why the node does not take a verb of the table now, or nil. That a machine runs is not looked at, and what accept and a waived grace
// agree to is taken for agreed.
func (s Situation) refuses(verb fleet.Verb) error {
	v := s.view()
	f := v.guards(verb)
	f.RebootAllowed = true
	f.Agreed = f.HasInventory
	if verb == fleet.VerbAccept && s.Class.Name == "" {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-CLASS", "%s has no class", s.Node.Name)
	}
	if verb == fleet.VerbClean && s.Node.State == fleet.Grace {
		f.GraceOver = !f.LeaseExtended
	}
	if verb == fleet.VerbForget && s.Node.Lease != "" {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-LEASED", "%s belongs to a lease", s.Node.Name)
	}
	return v.askable(verb, f)
}
