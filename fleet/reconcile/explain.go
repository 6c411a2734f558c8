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

// Situation is what words about a node are made of: everything that Decide sees, and what else stands in the node's way.
type Situation struct {
	Node fleet.Node
	// Operation is the node's operation and Last the newest that has ended; each may be nil, as Lease.
	Operation, Last *fleet.Operation
	Lease           *fleet.Lease
	Class           fleet.Class
	Site            fleet.Site
	Facts           Facts
	// ClaimedBy is another worker that may act on the node until ClaimedUntil, or "".
	ClaimedBy    string
	ClaimedUntil time.Time
	// Freeze is the oldest freeze that covers the node, or nil.
	Freeze *fleet.Freeze
	// Breaker says since when and why the BMC's credential is not used, or "".
	Breaker string
	// Trouble is why the loop could not make its newest move, since TroubleSince; nil where it could.
	Trouble      error
	TroubleSince time.Time
	// Silent is why the BMC gave no answer when it was last asked, since SilentSince; nil where it did.
	Silent      error
	SilentSince time.Time
	// Approvals are requests that name the node, whatever became of them.
	Approvals []fleet.Approval
	// Late is the later of all clocks, by which grants end.
	Now, Late time.Time
}

// Explain says what keeps a node where it is, what counts most first. It is pure and never empty: a node that waits for nothing says so. Where the
// first reason waits for a person, its command is one that the node takes now.
func Explain(s Situation) []api.Reason {
	m := Decide(s.Node, s.Operation, s.Lease, s.Facts, s.Now)
	var out []api.Reason
	if s.Trouble != nil {
		out = append(out, s.trouble())
	}
	switch {
	case s.Operation != nil:
		out = append(out, s.running(m)...)
	case m.Kind == Rest, m.Kind == Wait && s.Node.State != fleet.Grace: // for its clean-up, which is told besides
		out = append(out, s.resting()...)
	case m.Kind == Wait:
		out = append(out, s.inGrace(m))
	default:
		out = append(out, s.moving(m))
	}
	return s.beside(out)
}

func (s Situation) command(format string, args ...any) string {
	return "metalctl " + strings.ReplaceAll(fmt.Sprintf(format, args...), "NODE", s.Node.Name)
}

func (s Situation) trouble() api.Reason {
	r := api.Reason{Kind: "trouble", On: api.OnTime, Text: "the server cannot make its next move: " + s.Trouble.Error(), Since: s.TroubleSince,
		Then: "it is tried again every second", Code: fleet.CodeOf(s.Trouble)}
	if hint := fleet.HintOf(s.Trouble); strings.HasPrefix(hint, "metalctl ") {
		r.Command = hint
	}
	return r
}

// moving is for what the server does at once: it is seen for longer only where the server is busy or cannot.
func (s Situation) moving(m Move) api.Reason {
	r := api.Reason{Kind: "moving", On: api.OnServer, Text: m.Why, Since: s.Node.StateSince}
	if s.Node.Wish != nil {
		r.Since = s.Node.Wish.At
	}
	if op := s.Operation; op != nil {
		r.Since = latest(op.CreatedAt, prevEnded(*op))
		name := ""
		if m.Index < len(op.Steps) {
			name = op.Steps[m.Index].Name
		}
		switch m.Kind {
		case Start:
			r.Text = name + " is about to start"
		case Complete:
			r.Text = "every step of " + op.Use + " has finished; its end is about to be recorded"
		case Fail:
			r.Text = fmt.Sprintf("%s failed (%s); the %s is about to end", name, m.Why, op.Use)
		case Stop:
			r.Text = "the abort of " + op.Use + " is about to act"
		}
	} else if m.Kind == Plan {
		r.Text = fmt.Sprintf("a plan for %s is about to be made: %s", m.Use, m.Why)
	}
	return r
}

// prevEnded is when the newest step that has ended did.
func prevEnded(op fleet.Operation) time.Time {
	var t time.Time
	for _, r := range op.Steps {
		t = latest(t, r.FinishedAt)
	}
	return t
}

// running is about a node with an operation.
func (s Situation) running(m Move) []api.Reason {
	n, op := s.Node, *s.Operation
	out := []api.Reason{s.step(m)}
	if w := n.Wish; w != nil && w.Operation != op.ID {
		out = append(out, api.Reason{Kind: "moving", On: api.OnServer, Since: w.At, Text: fmt.Sprintf("%s, asked by %s, begins when the %s has ended", w.Verb, w.By, op.Use)})
	}
	return out
}

// step says what the current step of the operation waits for.
func (s Situation) step(m Move) api.Reason {
	op := *s.Operation
	switch m.Kind {
	case Wait, Recover, Await, Rest:
	default:
		return s.moving(m)
	}
	if op.State == fleet.OperationPending && m.Kind == Wait && s.Node.Hold != nil {
		return s.held()
	}
	run := op.Steps[m.Index]
	decl, _ := step.Find(run.Name)
	switch {
	case m.Kind == Rest: // a person is asked
		return api.Reason{Kind: "ask", On: api.OnPerson, Since: latest(run.StartedAt, run.FinishedAt), Code: "MC-STEP-ASK",
			Text:    "the server stopped while " + run.Name + " ran, and nobody knows whether it acted; look at the machine, then go on",
			Command: s.command("node retry NODE")}
	case m.Kind == Wait && s.Node.Hold != nil && m.Until.IsZero():
		return s.held()
	case m.Kind == Wait && s.Now.Before(run.NotBefore):
		return api.Reason{Kind: "backoff", On: api.OnTime, Since: run.FinishedAt, Until: run.NotBefore, Code: codeOf(run.Error),
			Text: fmt.Sprintf("try %d of %d of %s, after: %s", run.Try+1, max(decl.Tries, run.Try+1), run.Name, detailOf(run.Error)),
			Then: "it is tried again", Command: s.command("node retry NODE")}
	case m.Kind == Wait && s.Facts.Power != nil && m.Why == s.Facts.Power.Text:
		return s.Facts.Power.reason()
	case m.Kind == Wait:
		return s.silent(run, m.Until)
	case m.Kind == Recover && s.Now.Before(s.ClaimedUntil):
		return api.Reason{Kind: "claim", On: api.OnTime, Since: run.StartedAt, Until: s.ClaimedUntil, Code: "MC-CLAIM-LOST",
			Text: fmt.Sprintf("worker %s began %s and may still act", s.ClaimedBy, run.Name), Then: "this server takes the step over"}
	case m.Kind == Await && !s.Facts.AgentUp && !decl.Destroys && decl.Abort != step.AbortNever:
		return s.silent(run, m.Until)
	}
	r := api.Reason{Kind: "step", On: api.OnServer, Since: run.StartedAt, Until: run.StartedAt.Add(step.LimitOf(run)), Text: run.Name + " runs"}
	if m.Kind == Await {
		r.On, r.Until, r.Text = api.OnMachine, m.Until, run.Name+" runs on the machine"
		if !s.Facts.AgentUp {
			r.Text += ", whose agent is silent since " + s.Facts.AgentSince.UTC().Format(time.RFC3339)
		}
	}
	if run.Name == step.AwaitAgent {
		r.On, r.Text = api.OnMachine, fmt.Sprintf("the machine boots, and the agent of boot generation %d is awaited", s.Node.Boot.Generation)
	}
	if run.Name == step.AwaitReady {
		r.On, r.Text = api.OnMachine, "the tenant's system starts, and is awaited"
	}
	if run.Try > 1 {
		r.Text += fmt.Sprintf(" (try %d of %d)", run.Try, max(decl.Tries, run.Try))
	}
	if op.Abort {
		r.Text += "; the abort that was asked for acts when it ends"
	}
	r.Then = "it fails, and with it the " + op.Use
	if run.Try < decl.Tries {
		r.Then = "it is tried again"
	}
	return r
}

// silent is about an agent that a step needs and that does not speak.
func (s Situation) silent(run fleet.StepRun, until time.Time) api.Reason {
	r := api.Reason{Kind: "agent", On: api.OnMachine, Since: s.Facts.AgentSince, Until: until, Code: "MC-AGENT-LOST", Text: run.Name + " needs the agent, which is silent",
		Then: "the step fails, and with it the " + s.Operation.Use}
	if s.abortable() {
		r.Command = s.command("node abort NODE")
	}
	return r
}

// abortable reports whether an abort is taken now.
func (s Situation) abortable() bool {
	op := s.Operation
	if op == nil || op.Use == string(step.Release) && s.Node.State == fleet.Releasing || op.Abort {
		return false
	}
	i := op.Current()
	if i < 0 || op.Steps[i].State != fleet.StepStarted {
		return true
	}
	decl, _ := step.Find(op.Steps[i].Name)
	return decl.Abort != step.AbortNever
}

func (s Situation) held() api.Reason {
	h := s.Node.Hold
	return api.Reason{Kind: "hold", On: api.OnPerson, Since: h.Since, Code: "MC-NODE-HELD", Text: fmt.Sprintf("held by %s: %s", h.By, h.Reason), Command: s.command("node unhold NODE")}
}

func (s Situation) protected(why string) api.Reason {
	return api.Reason{Kind: "protect", On: api.OnPerson, Code: "MC-NODE-PROTECTED", Text: "protected: " + why, Command: s.command("node unprotect NODE")}
}

// inGrace is about a node whose lease is over and whose disks wait.
func (s Situation) inGrace(m Move) api.Reason {
	r := api.Reason{Kind: "grace", On: api.OnTime, Since: s.Node.StateSince, Until: m.Until, Text: "the lease is over, and its data are kept for the grace time",
		Then: "the disks are erased", Command: s.command("node clean NODE --waive-grace")}
	if s.Lease.State == fleet.LeaseReleased {
		r.Text += fmt.Sprintf("; metalctl lease extend %s --until TIME brings it back", s.Lease.ID)
	}
	if s.refuses(fleet.VerbClean) != nil {
		r.Command = ""
	}
	return r
}

// beside adds what is true besides and puts first what must be mended first.
func (s Situation) beside(out []api.Reason) []api.Reason {
	n := s.Node
	has := func(kind string) bool {
		return slices.ContainsFunc(out, func(r api.Reason) bool { return r.Kind == kind })
	}
	if n.Hold != nil && !has("hold") {
		out = append(out, s.held())
	}
	if n.Protected && !has("protect") {
		out = append(out, s.protected("release, rebuild, erase and power-off are refused"))
	}
	if n.Undo.Left() {
		out = append(out, s.undo())
	}
	out = append(out, s.repairs()...)
	out = append(out, s.approvals()...)
	if s.Silent != nil && s.Breaker == "" && s.Trouble == nil {
		r := s.silentBMC()
		if s.needsBMC(out) || n.State == fleet.Enrolled && len(out) > 0 && out[0].Kind == "rest" {
			out = slices.Insert(out, 0, r)
		} else {
			out = append(out, r)
		}
	}
	if s.Breaker != "" {
		r := api.Reason{Kind: "breaker", On: api.OnPerson, Text: "the BMC refused the credential, which is not used " + s.Breaker, Code: "MC-BMC-AUTH",
			Command: s.command("bmc credential set NODE --password-file FILE")}
		if s.needsBMC(out) || n.State == fleet.Enrolled && len(out) > 0 && out[0].Kind == "rest" {
			out = slices.Insert(out, 0, r)
		} else {
			out = append(out, r)
		}
	}
	if s.Freeze != nil {
		if len(out) > 0 && out[0].On == api.OnNobody {
			out = append(out, s.frozen())
		} else {
			out = slices.Insert(out, 0, s.frozen())
		}
	}
	for _, f := range n.Faults {
		if told(out, f) {
			continue
		}
		r := api.Reason{Kind: "fault", On: api.OnPerson, Since: f.Since, Code: f.Code, Text: fmt.Sprintf("%s on %s: %s", f.Code, f.Component, f.Evidence), Command: commandIn(fleet.HintFor(f.Hint, n.Name))}
		if hint := fleet.HintFor(f.Hint, n.Name); r.Command != "" && r.Command != hint {
			r.Text += "; " + hint // there is more to do than one command
		}
		if f.Blocks == fleet.BlocksNothing {
			r.On = api.OnNobody
		}
		if f.Blocks == fleet.BlocksEverything && len(out) > 0 && (out[0].Kind == "rest" || out[0].Kind == "unfit") {
			out = slices.Insert(out, 0, r)
			continue
		}
		out = append(out, r)
	}
	return out
}

// needsBMC reports whether what the node does or failed to do goes through its BMC.
func (s Situation) needsBMC(out []api.Reason) bool {
	if op := s.Operation; op != nil {
		i := op.Current()
		return i >= 0 && op.Steps[i].Side == step.OutOfBand
	}
	return slices.ContainsFunc(out, func(r api.Reason) bool { return r.Kind == "failed" || r.Kind == "trouble" })
}

// told reports whether a fault is among the reasons already: the fault of a plan that failed stands there as failed.
func told(out []api.Reason, f fleet.Fault) bool {
	return slices.ContainsFunc(out, func(r api.Reason) bool {
		return r.Kind == "failed" && strings.HasPrefix(f.Component, "plan/") && strings.HasPrefix(r.Text, strings.TrimPrefix(f.Component, "plan/")+" ") ||
			r.Kind == "undo" && r.Code == f.Code || r.Kind == "freeze" && r.Code == f.Code ||
			(r.Kind == "fault" || r.Kind == "unfit") && r.Code == f.Code && strings.Contains(r.Text, f.Component)
	})
}

// commandIn returns the first command that a hint names, or "".
func commandIn(hint string) string {
	_, cmd, ok := strings.Cut(hint, "metalctl ")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(cmd, ",;:()\n"); i >= 0 {
		cmd = cmd[:i]
	}
	// What a command is good for may follow it without a comma.
	words := strings.Split(cmd, " ")
	if i := slices.IndexFunc(words, func(w string) bool { return slices.Contains(goodFor, w) }); i >= 0 {
		cmd = strings.Join(words[:i], " ")
	}
	return "metalctl " + strings.TrimRight(strings.TrimSpace(cmd), ".")
}

// goodFor are the words with which hints go on after a command.
var goodFor = []string{"shows", "says", "lists", "prints", "compares", "keeps", "agrees", "names", "tells", "each", "and", "to", "or", "which"}

func codeOf(p *fleet.Problem) string {
	if p == nil {
		return ""
	}
	return p.Code
}

func detailOf(p *fleet.Problem) string {
	if p == nil {
		return "it was cut short"
	}
	return p.Detail
}
