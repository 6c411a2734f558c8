package reconcile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
)

// scene is one situation of the one node n1, as records.
type scene struct {
	name  string
	node  fleet.Node
	op    *fleet.Operation
	last  *fleet.Operation
	lease *fleet.Lease
}

// planOf are the steps of each use that show its different shapes: out-of-band and in-band, abortable and not.
var planOf = map[step.Use][]string{
	step.Inspect: {step.MediaInsert, step.AwaitAgent, step.Inventory}, step.Clean: {step.PowerOn, step.EraseDisks, step.VerifyErase},
	step.Deploy: {step.PowerOn, step.WriteImage, step.AwaitReady}, step.Rebuild: {step.WriteImage, step.BootEntry}, step.Release: {step.Isolate, step.PowerOff},
	step.Resume: {step.PowerOn, step.AwaitReady},
}

var workingOn = map[fleet.State]step.Use{fleet.Inspecting: step.Inspect, fleet.Cleaning: step.Clean, fleet.Deploying: step.Deploy, fleet.Rebuilding: step.Rebuild,
	fleet.Releasing: step.Release, fleet.Resuming: step.Resume}

var faultOf = map[step.Use]string{step.Inspect: "MC-FAULT-INSPECT", step.Clean: "MC-FAULT-CLEAN", step.Deploy: "MC-FAULT-DEPLOY", step.Rebuild: "MC-FAULT-REBUILD",
	step.Release: "MC-FAULT-RELEASE", step.Resume: "MC-FAULT-RESUME", step.Burn: "MC-FAULT-BURN"}

// holdsLease are the states in which a node belongs to a lease.
var holdsLease = []fleet.State{fleet.Allocated, fleet.Deploying, fleet.Active, fleet.Rebuilding, fleet.Rescuing, fleet.Rescued, fleet.Unrescuing, fleet.Servicing,
	fleet.Releasing, fleet.Grace, fleet.Resuming}

func runOf(use step.Use, name string, state fleet.StepState, at time.Time) *fleet.Operation {
	d, _ := step.Find(name)
	op := &fleet.Operation{ID: "01940000-0000-7000-8000-00000000000a", Node: "01940000-0000-7000-8000-000000000001", NodeName: "n1", Use: string(use), Verb: fleet.Verb(use),
		State: fleet.OperationRunning, CreatedAt: at, StartedAt: at, Steps: []fleet.StepRun{{Name: name, Side: d.Side, State: state}}}
	if state != fleet.StepPending {
		op.Steps[0].StartedAt, op.Steps[0].Try = at, 1
	}
	if state == fleet.StepFailed || state == fleet.StepAsk {
		op.Steps[0].Error, op.Steps[0].FinishedAt = &fleet.Problem{Code: "MC-BMC-UNREACHABLE", Detail: "it does not answer"}, at
	}
	return op
}

// scenes are all states with all that may run, have failed, be held, be protected.
func scenes(base fleet.Node, now time.Time) []scene {
	var out []scene
	for _, state := range fleet.States() {
		n := base
		n.State, n.StateSince, n.Faults = state, now.Add(-time.Hour), nil
		var lease *fleet.Lease
		if slices.Contains(holdsLease, state) {
			n.Lease, n.Dirty = "01940000-0000-7000-8000-00000000001e", "01940000-0000-7000-8000-00000000001e"
			lease = &fleet.Lease{ID: n.Lease, Name: "l1", State: fleet.LeaseActive, Since: now, CreatedAt: now.Add(-2 * time.Hour), Request: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "debian", GraceSeconds: 3600},
				Members: []fleet.Member{{Node: n.ID, Name: "n1", Hostname: "n1", State: fleet.MemberReady, Since: now}}}
			if state == fleet.Grace || state == fleet.Releasing {
				lease.State, lease.GraceEnds, lease.Members[0].State = fleet.LeaseReleased, now.Add(time.Hour), fleet.MemberReleased
			}
		}
		switch state {
		case fleet.Enrolled:
			n.Inventory, n.Accepted, n.Compared, n.Erased, n.Dirty = "", nil, "", "", fleet.DirtyUnknown
		case fleet.Managed:
			n.Dirty = fleet.DirtyUnknown
		case fleet.Retired:
			n.Dirty = ""
		}
		add := func(name string, change func(*scene)) {
			s := scene{name: string(state) + " " + name, node: n, lease: lease}
			if lease != nil {
				l := *lease
				l.Members = slices.Clone(l.Members)
				s.lease = &l
			}
			change(&s)
			if s.op != nil {
				s.node.Operation = s.op.ID
			}
			if s.last != nil {
				s.last.ID, s.last.EndedAt = "01940000-0000-7000-8000-00000000000b", now
				s.node.LastOperation = s.last.ID
			}
			out = append(out, s)
		}
		add("at rest", func(*scene) {})
		add("never inspected", func(s *scene) { s.node.Inventory, s.node.Accepted = "", nil })
		add("without a class", func(s *scene) { s.node.Class = "" })
		add("compared with an older class", func(s *scene) { s.node.Compared = "older" })
		add("erased too little", func(s *scene) { s.node.Erased = "" })
		add("with a difference", func(s *scene) {
			s.node.RaiseFault(fleet.Fault{Code: "MC-CLASS-DISKS", Component: "disks", Severity: fleet.Critical, Blocks: fleet.BlocksAllocate, Evidence: "3, want 2", Step: step.CompareClass, Hint: "metalctl node inspect n1"})
		})
		add("with an old fault", func(s *scene) {
			s.node.RaiseFault(fleet.Fault{Code: "MC-FAULT-DEPLOY", Component: "plan/deploy", Severity: fleet.Critical, Blocks: fleet.BlocksAllocate, Evidence: "it failed"})
		})
		for use, code := range faultOf {
			for _, end := range []fleet.OperationState{fleet.OperationFailed, fleet.OperationAborted} {
				add(fmt.Sprintf("after %s %s", use, end), func(s *scene) {
					steps := planOf[use]
					if len(steps) == 0 {
						steps = []string{step.PowerOff}
					}
					s.last = runOf(use, steps[0], fleet.StepFailed, now.Add(-time.Minute))
					s.last.State, s.last.Error, s.last.Lease, s.last.From = end, s.last.Steps[0].Error, s.node.Lease, fleet.Managed
					s.node.RaiseFault(fleet.Fault{Code: code, Component: "plan/" + string(use), Severity: fleet.Critical, Blocks: fleet.BlocksAllocate, Evidence: "MC-BMC-UNREACHABLE: it does not answer"})
				})
			}
		}
		use, works := workingOn[state]
		for _, name := range planOf[use] {
			if !works {
				break
			}
			for _, st := range []fleet.StepState{fleet.StepPending, fleet.StepStarted, fleet.StepFinished, fleet.StepFailed, fleet.StepAsk} {
				add(fmt.Sprintf("%s %s", name, st), func(s *scene) { s.op = runOf(use, name, st, now.Add(-time.Minute)) })
			}
			add(name+" to be tried again", func(s *scene) {
				s.op = runOf(use, name, fleet.StepPending, now.Add(-time.Minute))
				r := &s.op.Steps[0]
				r.Try, r.NotBefore, r.FinishedAt, r.Error = 1, now.Add(time.Minute), now, &fleet.Problem{Code: "MC-BMC-UNREACHABLE", Detail: "it does not answer", Transient: true}
			})
			add(name+" to be aborted", func(s *scene) {
				s.op = runOf(use, name, fleet.StepStarted, now.Add(-time.Minute))
				s.op.Abort = true
			})
		}
	}
	return out
}

// TestExplainEveryScene walks all states and situations: there are words for each, what waits for a time says until when, and where a person is waited for
// the engine takes the command that it is told to type, right now.
func TestExplainEveryScene(t *testing.T) {
	w := available(t)
	base, _ := w.Read()
	base.Wish, base.Operation, base.LastOperation = nil, "", ""
	seen, asked := map[string]int{}, 0
	for _, s := range scenes(base, w.Clock) {
		for _, beside := range []struct {
			name   string
			change func(*fleet.Node)
			silent bool
		}{
			{"", func(*fleet.Node) {}, false},
			{", agent silent", func(*fleet.Node) {}, true},
			{", held", func(n *fleet.Node) { n.Hold = &fleet.Hold{By: "ann", Reason: "fan", Since: w.Clock} }, false},
			{", protected", func(n *fleet.Node) { n.Protected = true }, false},
			{", with a clean-up that failed", func(n *fleet.Node) {
				n.Undo = &fleet.Undo{Power: true, Medium: true, Since: w.Clock, Why: "inspect was given up: power-on failed", NotBefore: w.Clock.Add(time.Minute), Tries: 1}
			}, false},
			{", with a clean-up that waits for its agent", func(n *fleet.Node) {
				n.Undo = &fleet.Undo{Power: true, Since: w.Clock, Why: "inspect was given up: inventory failed", AgentUntil: w.Clock.Add(time.Minute)}
			}, false},
			{", held and protected", func(n *fleet.Node) { n.Hold, n.Protected = &fleet.Hold{By: "ann", Reason: "fan"}, true }, true},
		} {
			if testing.Short() && beside.silent && s.op == nil {
				continue
			}
			x := s
			x.name += beside.name
			beside.change(&x.node)
			w.Machine.Silent = beside.silent
			put(t, w, x)
			e, err := w.Loop.Explain(t.Context(), w.Node)
			if err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
			r := judge(t, x, e)
			seen[r.Kind+" on "+r.On]++
			if r.On == api.OnPerson && strings.HasPrefix(r.Command, "metalctl node ") && !strings.HasPrefix(r.Command, "metalctl node set ") && !strings.HasPrefix(r.Command, "metalctl node timeline ") {
				asked++
				verb, body := typed(t, r.Command)
				_, err := w.Loop.Ask(t.Context(), w.Node, verb, body, "tester")
				if fleet.CodeOf(err) == "MC-NODE-RUNNING" && !body.AllowReboot {
					err = nil // whether a machine runs is asked of its BMC, and what else may be typed stands in that answer
				}
				if err != nil {
					t.Errorf("%s: %s: %q is refused: %v", x.name, r.Text, r.Command, err)
				}
			}
		}
	}
	for _, want := range []string{"step on server", "step on machine", "backoff on time", "agent on machine", "ask on person", "hold on person", "protect on person", "failed on person",
		"grace on time", "rest on nobody", "rest on person", "unfit on person", "moving on server"} {
		if seen[want] == 0 {
			t.Errorf("no scene has %q: %v", want, seen)
		}
	}
	if asked < 200 {
		t.Errorf("only %d commands were typed", asked)
	}
	put(t, w, scene{node: base}) // the store is checked at the end
}

// judge holds the words of one scene to what they promise.
func judge(t *testing.T, x scene, e api.Explain) api.Reason {
	t.Helper()
	if len(e.Reasons) == 0 {
		t.Fatalf("%s: no words", x.name)
	}
	for _, r := range e.Reasons {
		if r.Text == "" || r.Kind == "" || strings.Contains(r.Text, "%!") || strings.Contains(r.Text, "metalctl node retry") {
			t.Errorf("%s: reason %+v", x.name, r)
		}
		if r.Code != "" && fleet.Codes[r.Code].Title == "" {
			t.Errorf("%s: %s has no page", x.name, r.Code)
		}
	}
	r := e.Reasons[0]
	if r.On == api.OnTime && (r.Until.IsZero() || r.Then == "") || r.On == api.OnPerson && r.Command == "" || r.Kind == "step" && (r.Since.IsZero() || r.Until.IsZero() || r.Then == "") {
		t.Errorf("%s: reason %+v", x.name, r)
	}
	if strings.Contains(r.Command, "NODE") {
		t.Errorf("%s: %q names no node", x.name, r.Command)
	}
	if x.node.Hold != nil && !slices.ContainsFunc(e.Next, func(a api.Advice) bool { return a.Command == "metalctl node unhold n1" }) {
		t.Errorf("%s: nobody is told of unhold: %+v", x.name, e.Next)
	}
	return r
}

// put makes a scene the truth.
func put(t *testing.T, w *contract.World, x scene) {
	t.Helper()
	writes := []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, x.node.ID), Value: x.node}, {Key: fleet.KeyOf(fleet.KindClaim, x.node.ID)}}
	for id, v := range map[fleet.OperationID]*fleet.Operation{"01940000-0000-7000-8000-00000000000a": x.op, "01940000-0000-7000-8000-00000000000b": x.last} {
		wr := fleet.Write{Key: fleet.KeyOf(fleet.KindOperation, id)}
		if v != nil {
			wr.Value = v
		}
		writes = append(writes, wr)
	}
	if n, _ := w.Read(); n.Operation != "" && n.Operation != "01940000-0000-7000-8000-00000000000a" {
		writes = append(writes, fleet.Write{Key: fleet.KeyOf(fleet.KindOperation, n.Operation)}) // what the scene before was asked
	}
	wr := fleet.Write{Key: fleet.KeyOf[fleet.LeaseID](fleet.KindLease, "01940000-0000-7000-8000-00000000001e")}
	if x.lease != nil {
		wr.Value = x.lease
	}
	if _, err := w.Store.Commit(context.Background(), fleet.Change{Writes: append(writes, wr)}); err != nil {
		t.Fatalf("%s: %v", x.name, err)
	}
}

// typed reads a command as the command line does.
func typed(t *testing.T, command string) (verb string, body api.NodeVerb) {
	t.Helper()
	words := strings.Fields(command)
	if len(words) < 4 || words[3] != "n1" {
		t.Fatalf("command %q", command)
	}
	for i := 4; i < len(words); i++ {
		switch words[i] {
		case "--allow-reboot":
			body.AllowReboot = true
		case "--waive-grace":
			body.WaiveGrace = true
		case "--code":
			i++
			body.FaultCode = words[i]
		case "--component":
			i++
			body.FaultComponent = words[i]
		default:
			t.Fatalf("command %q", command)
		}
	}
	if words[2] == "accept" {
		body.Devices = contract.Disks()
	}
	return words[2], body
}

// TestExplainBeside has words for what stands beside the first reason: a clean-up after a plan that was given up, and what waits for a second person.
func TestExplainBeside(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	undo := func(n *fleet.Node, change func(*fleet.Undo)) {
		n.Undo = &fleet.Undo{Power: true, Medium: true, Since: now.Add(-time.Minute), Why: "inspect was given up: power-on failed"}
		change(n.Undo)
	}
	ask := fleet.Approval{ID: "a", Harm: fleet.HarmRelease, Act: "node release", Nodes: []fleet.NodeID{"n", "m"}, AskedBy: "ann", AskedAt: now.Add(-time.Minute), Expires: now.Add(time.Hour),
		State: fleet.ApprovalAsked, Why: "release of 2 nodes in use would make 6 within an hour, and more than 4 need a second person"}
	const left, asked = "clean-up: inspect was given up: power-on failed; left to put right: power off, boot medium", `ann asked for "node release" on 2 nodes, ` +
		"release of 2 nodes in use would make 6 within an hour, and more than 4 need a second person"
	for name, c := range map[string]struct {
		change func(*reconcile.Situation)
		want   *api.Reason
	}{
		"a clean-up that failed": {func(s *reconcile.Situation) {
			undo(&s.Node, func(u *fleet.Undo) { u.NotBefore, u.Tries = now.Add(time.Minute), 1 })
			s.Node.RaiseFault(fleet.Fault{Code: "MC-FAULT-UNDO", Component: "plan/undo", Evidence: "MC-BMC-BUSY: left: power off: 503", Blocks: fleet.BlocksAllocate})
		}, &api.Reason{Kind: "undo", On: api.OnTime, Since: now.Add(-time.Minute), Until: now.Add(time.Minute), Code: "MC-FAULT-UNDO", Then: "it is tried again", Command: "metalctl node retry n1",
			Text: left + "; last it failed: left: power off: 503"}},
		"a clean-up that is due": {func(s *reconcile.Situation) { undo(&s.Node, func(*fleet.Undo) {}) },
			&api.Reason{Kind: "undo", On: api.OnServer, Since: now.Add(-time.Minute), Text: left}},
		"one that waits for an agent": {func(s *reconcile.Situation) {
			undo(&s.Node, func(u *fleet.Undo) { u.Medium, u.AgentUntil = false, now.Add(time.Minute) })
		}, &api.Reason{Kind: "undo", On: api.OnTime, Since: now.Add(-time.Minute), Until: now.Add(time.Minute), Then: "the machine is switched off", Command: "metalctl node retry n1",
			Text: "clean-up: inspect was given up: power-on failed; left to put right: power off; its agent answers, so that a retry goes on where the plan stopped"}},
		"one that is held": {func(s *reconcile.Situation) {
			s.Node.Hold = &fleet.Hold{By: "bob", Reason: "fan"}
			undo(&s.Node, func(*fleet.Undo) {})
		}, &api.Reason{Kind: "undo", On: api.OnPerson, Since: now.Add(-time.Minute), Command: "metalctl node unhold n1", Text: left + "; it waits for the hold to go"}},
		"one of a protected node": {func(s *reconcile.Situation) {
			s.Node.Protected = true
			undo(&s.Node, func(u *fleet.Undo) { u.Medium = false })
		}, &api.Reason{Kind: "undo", On: api.OnPerson, Since: now.Add(-time.Minute), Command: "metalctl node unprotect n1",
			Text: "clean-up: inspect was given up: power-on failed; left to put right: power off; protected, so it is not switched off"}},
		"a request that waits": {func(s *reconcile.Situation) { s.Approvals = []fleet.Approval{ask} },
			&api.Reason{Kind: "approval", On: api.OnPerson, Since: now.Add(-time.Minute), Until: now.Add(time.Hour), Code: "MC-FENCE", Then: "the request is void",
				Command: "metalctl approve grant a", Text: asked + "; it waits for a second person"}},
		"a request that was granted": {func(s *reconcile.Situation) {
			a := ask
			a.State, a.DecidedBy, a.DecidedAt = fleet.ApprovalGranted, "bob", now
			s.Approvals = []fleet.Approval{a}
		}, &api.Reason{Kind: "approval", On: api.OnPerson, Since: now.Add(-time.Minute), Until: now.Add(time.Hour), Code: "MC-FENCE", Then: "the grant is void",
			Text: asked + "; bob granted it, and it is done when the same command is given again"}},
		"a request that is over": {func(s *reconcile.Situation) {
			a := ask
			a.Expires = now
			s.Approvals = []fleet.Approval{a}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := reconcile.Situation{Now: now, Late: now, Facts: reconcile.Facts{Sure: now, AgentUp: true},
				Node: fleet.Node{ID: "n", Name: "n1", State: fleet.Managed, StateSince: now.Add(-time.Hour), Inventory: "x"}}
			c.change(&s)
			var got *api.Reason
			for _, r := range reconcile.Explain(s)[1:] {
				if r.Kind == "undo" || r.Kind == "approval" {
					got = &r
				}
				if r.Kind == "fault" && r.Code == "MC-FAULT-UNDO" {
					t.Errorf("the clean-up is told twice: %+v", r)
				}
			}
			if d := cmp.Diff(got, c.want); d != "" {
				t.Errorf("(-got +want)\n%s", d)
			}
		})
	}
}

// TestExplainStories tells the words of what operators meet most.
func TestExplainStories(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(state fleet.State) reconcile.Situation {
		return reconcile.Situation{Now: now, Facts: reconcile.Facts{Sure: now, AgentUp: true}, Node: fleet.Node{ID: "n", Name: "n1", State: state, StateSince: now.Add(-time.Hour)}}
	}
	for name, c := range map[string]struct {
		change func(*reconcile.Situation)
		state  fleet.State
		want   api.Reason
	}{
		"another worker's claim": {state: fleet.Cleaning, change: func(s *reconcile.Situation) {
			s.Operation = runOf(step.Clean, step.PowerOn, fleet.StepStarted, now.Add(-time.Minute))
			s.ClaimedBy, s.ClaimedUntil = "b", now.Add(time.Minute)
		}, want: api.Reason{Kind: "claim", On: api.OnTime, Text: "worker b began power-on and may still act", Since: now.Add(-time.Minute), Until: now.Add(time.Minute),
			Then: "this server takes the step over", Code: "MC-CLAIM-LOST"}},
		"a wrong password": {state: fleet.Enrolled, change: func(s *reconcile.Situation) {
			s.Last = runOf(step.Inspect, step.BMCIdentify, fleet.StepFailed, now)
			s.Last.State = fleet.OperationFailed
			s.Node.RaiseFault(fleet.Fault{Code: "MC-FAULT-INSPECT", Component: "plan/inspect", Evidence: "MC-BMC-AUTH: refused"})
			s.Breaker = "since 2026-01-02T03:00:00Z: the password was refused"
		}, want: api.Reason{Kind: "breaker", On: api.OnPerson, Text: "the BMC refused the credential, which is not used since 2026-01-02T03:00:00Z: the password was refused",
			Command: "metalctl bmc credential set n1 --password-file FILE", Code: "MC-BMC-AUTH"}},
		"a freeze": {state: fleet.Cleaning, change: func(s *reconcile.Situation) {
			s.Operation = runOf(step.Clean, step.PowerOn, fleet.StepPending, now)
			s.Freeze = &fleet.Freeze{ID: "f1", Scope: fleet.FreezeAll, By: "ann", Source: fleet.FrozenByPerson, Reason: "switch upgrade", Since: now}
		}, want: api.Reason{Kind: "freeze", On: api.OnPerson, Text: "everything was frozen by ann (person): switch upgrade", Since: now, Command: "metalctl thaw n1 --reason TEXT", Code: "MC-FROZEN"}},
		"no witness after a restore": {state: fleet.Available, change: func(s *reconcile.Situation) {
			s.Node.DoubtStore("no witness tells", now)
			s.Freeze = fleet.FrozenBy(s.Node, nil)
		}, want: api.Reason{Kind: "freeze", On: api.OnPerson, Text: "held, whatever is thawed: no witness tells", Since: now,
			Command: "metalctl node clear-fault n1 --code MC-FAULT-UNWITNESSED --component store --reason TEXT", Code: "MC-FROZEN"}},
		"a store that is full": {state: fleet.Managed, change: func(s *reconcile.Situation) {
			s.Trouble, s.TroubleSince = fleet.Errorf(fleet.Unavailable, "MC-STORE-FULL", "no space is left").WithHint("make room, then wait"), now
		}, want: api.Reason{Kind: "trouble", On: api.OnTime, Text: "the server cannot make its next move: no space is left", Since: now, Then: "it is tried again every second", Code: "MC-STORE-FULL"}},
		"a freeze by a restore": {state: fleet.Enrolled, change: func(s *reconcile.Situation) {
			s.Freeze = &fleet.Freeze{ID: "f", Scope: fleet.FreezeAll, By: "root", Source: fleet.FrozenByRestore, Reason: "restored from a backup", Since: now}
		}, want: api.Reason{Kind: "freeze", On: api.OnPerson, Since: now, Code: "MC-FROZEN", Command: "metalctl thaw n1 --reason TEXT",
			Text: "everything was frozen by root (restore): restored from a backup; compare with the world before you thaw it: metalctl doctor --world"}},
		"a BMC that does not answer": {state: fleet.Enrolled, change: func(s *reconcile.Situation) {
			s.Silent, s.SilentSince = fleet.Errorf(fleet.Unavailable, "MC-BMC-BUSY", "503"), now
		}, want: api.Reason{Kind: "bmc", On: api.OnMachine, Since: now, Code: "MC-BMC-BUSY", Text: "its BMC gives no answer: 503", Then: "it is asked again, ever less often",
			Command: "metalctl node power status n1"}},
		"a lease that ends": {state: fleet.Active, change: func(s *reconcile.Situation) {
			s.Lease = &fleet.Lease{ID: "l", State: fleet.LeaseActive, Request: fleet.LeaseRequest{Until: now.Add(time.Hour)}}
		}, want: api.Reason{Kind: "rest", On: api.OnNobody, Text: "lease l has it", Since: now.Add(-time.Hour), Until: now.Add(time.Hour), Then: "the lease ends: it is isolated and switched off",
			Command: "metalctl lease extend l --until TIME"}},
		"an agent that was lost": {state: fleet.Cleaning, change: func(s *reconcile.Situation) {
			s.Operation = runOf(step.Clean, step.VerifyErase, fleet.StepStarted, now.Add(-time.Minute))
			s.Facts = reconcile.Facts{Sure: now, AgentSince: now.Add(-2 * time.Minute)}
		}, want: api.Reason{Kind: "agent", On: api.OnMachine, Text: "verify-erase needs the agent, which is silent", Since: now.Add(-2 * time.Minute), Until: now.Add(4 * time.Minute),
			Then: "the step fails, and with it the clean", Command: "metalctl node abort n1", Code: "MC-AGENT-LOST"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := at(c.state)
			c.change(&s)
			if got := reconcile.Explain(s)[0]; got != c.want {
				g, _ := json.MarshalIndent(got, "", " ")    //nolint:errcheck // a struct of texts and times
				x, _ := json.MarshalIndent(c.want, "", " ") //nolint:errcheck // as above
				t.Errorf("got %s\nwant %s", g, x)
			}
		})
	}
}
