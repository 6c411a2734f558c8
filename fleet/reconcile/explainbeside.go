package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// frozen is about a freeze; what came by a restore or by a witness is compared with the world before anybody thaws it.
func (s Situation) frozen() api.Reason {
	f := s.Freeze
	r := api.Reason{Kind: "freeze", On: api.OnPerson, Since: f.Since, Code: fleet.CodeFrozen, Text: fmt.Sprintf("%s was frozen by %s (%s): %s", f.What(), f.By, f.Source, f.Reason),
		Command: s.command("thaw NODE --reason TEXT")}
	switch {
	case f.ID == "": // what stands in the way is a fault, and no thaw helps
		r.Text, r.Command = "held, whatever is thawed: "+f.Reason, s.Node.DoubtCommand()
	case f.Source != fleet.FrozenByPerson:
		r.Text += "; compare with the world before you thaw it: metalctl doctor --world"
	}
	return r
}

// undo is about what a plan that was given up left behind.
func (s Situation) undo() api.Reason {
	n := s.Node
	u := n.Undo
	due, until, why := undoDue(n, s.Facts.AgentUp, s.Now)
	r := api.Reason{Kind: "undo", On: api.OnServer, Since: u.Since, Text: fmt.Sprintf("clean-up: %s; left to put right: %s", u.Why, u.String())}
	if f := n.Fault("MC-FAULT-UNDO", "plan/undo"); f != nil {
		r.Code = f.Code
		if _, said, ok := strings.Cut(f.Evidence, ": "); ok {
			r.Text += "; last it failed: " + said
		}
	}
	switch {
	case s.Operation != nil && s.view().undoing():
		r.Text += "; it runs"
	case n.Hold != nil:
		r.On, r.Text, r.Command = api.OnPerson, r.Text+"; it waits for the hold to go", s.command("node unhold NODE")
	case s.Now.Before(u.NotBefore):
		r.On, r.Until, r.Then, r.Command = api.OnTime, u.NotBefore, "it is tried again", s.command("node retry NODE")
	case due.Left():
	case !until.IsZero():
		r.On, r.Until, r.Then, r.Command = api.OnTime, until, "the machine is switched off", s.command("node retry NODE")
		r.Text += "; its agent answers, so that a retry goes on where the plan stopped"
	case n.Protected:
		r.On, r.Text, r.Command = api.OnPerson, r.Text+"; protected, so it is not switched off", s.command("node unprotect NODE")
	default:
		r.On, r.Text = api.OnNobody, r.Text+"; "+why
	}
	return r
}

// repairs are about parts that somebody said were replaced, and that no inventory has shown.
func (s Situation) repairs() (out []api.Reason) {
	for _, r := range s.Node.Repairs {
		if !r.SeenAt.IsZero() {
			continue
		}
		command := s.command("node inspect NODE")
		if !s.Facts.AgentUp {
			command += " --allow-reboot"
		}
		out = append(out, api.Reason{Kind: "repair", On: api.OnPerson, Since: r.At, Text: fmt.Sprintf("%s was replaced, says %s: serial %s by %s; the next inventory shows whether", r.Component, r.By, r.Old, r.New), Command: command})
	}
	return out
}

// silentBMC is about a BMC that gave no answer when it was last asked.
func (s Situation) silentBMC() api.Reason {
	return api.Reason{Kind: "bmc", On: api.OnMachine, Since: s.SilentSince, Code: fleet.CodeOf(s.Silent), Text: "its BMC gives no answer: " + s.Silent.Error(),
		Then: "it is asked again, ever less often", Command: s.command("node power status NODE")}
}

// approvals are about what somebody wants done to the node and may not do alone.
func (s Situation) approvals() []api.Reason {
	var out []api.Reason
	for _, a := range s.Approvals {
		if r, ok := approval(a, s.Late); ok {
			out = append(out, r)
		}
	}
	return out
}

// approval is about one request, and false where nothing waits for it any more.
func approval(a fleet.Approval, now time.Time) (api.Reason, bool) {
	what := fmt.Sprintf("%s asked for %q on %d nodes, %s", a.AskedBy, a.Act, len(a.Nodes), a.Why)
	r := api.Reason{Kind: "approval", On: api.OnPerson, Since: a.AskedAt, Until: a.Expires, Code: "MC-FENCE"}
	switch a.Now(now) {
	case fleet.ApprovalAsked:
		r.Text, r.Then, r.Command = what+"; it waits for a second person", "the request is void", "metalctl approve grant "+string(a.ID)
	case fleet.ApprovalGranted:
		r.Text, r.Then = what+"; "+a.DecidedBy+" granted it, and it is done when the same command is given again", "the grant is void"
	case fleet.ApprovalDenied:
		r.On, r.Text, r.Then = api.OnNobody, fmt.Sprintf("%s; %s denied it: %s", what, a.DecidedBy, a.Reason), "it may be asked again"
	default:
		return r, false
	}
	return r, true
}

// approvalsOf are those that name the node.
func approvalsOf(all []fleet.Approval, id fleet.NodeID) []fleet.Approval {
	return slices.DeleteFunc(slices.Clone(all), func(a fleet.Approval) bool { return !slices.Contains(a.Nodes, id) || slices.Contains(a.Used, id) })
}

// leaseApprovals are the requests about the lease itself, which its nodes know of.
func leaseApprovals(l fleet.Lease, nodes map[fleet.NodeID]*Situation) []api.Reason {
	var out []api.Reason
	seen := map[fleet.ApprovalID]bool{}
	for _, m := range l.Members {
		s := nodes[m.Node]
		if s == nil {
			continue
		}
		for _, a := range s.Approvals {
			r, ok := approval(a, s.Late)
			if ok && a.Lease == l.ID && !seen[a.ID] {
				seen[a.ID] = true
				out = append(out, r)
			}
		}
	}
	return out
}
