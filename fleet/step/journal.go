package step

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Do says what comes next in a plan run.
type Do uint8

const (
	// Start: commit *started* for step Index, then do it.
	Start Do = iota
	// Wait: nothing to do before Until (zero: before something happens). Why says what for.
	Wait
	// Running: step Index has started and its end is awaited.
	Running
	// Finish: every step has finished.
	Finish
	// Fail: step Index has failed for good.
	Fail
	// Abort: an abort was asked for and acts now.
	Abort
	// AskPerson: a crash left step Index undecided.
	AskPerson
)

// Action is what Next decides.
type Action struct {
	Do    Do
	Index int
	Until time.Time
	Why   string
}

// Signals are what is going on around a plan run.
type Signals struct {
	// Held by a person: no step starts that is not EvenHeld.
	Held bool
	// Frozen says why nothing outside may be written for the node, "" where it may: no step starts that does not merely observe.
	Frozen string
	// AgentUp and AgentSince: whether the agent answers, and since when it does or does not (zero: never heard of).
	AgentUp    bool
	AgentSince time.Time
	// AgentRefused says why the server does not work with the agent, "" where it does.
	AgentRefused string
}

// AgentPatience is how long an agent may be silent before an in-band step that needs it fails. A step that destroys, or that cannot be stopped, goes on
// on the machine whether the agent is heard or not: its end is waited for until its limit, so that nothing else is begun beside it.
const AgentPatience = 5 * time.Minute

// limitSlack is what the journey of a result may take beyond the step's own limit.
const limitSlack = 2 * time.Minute

// Begin makes the journal of a plan, with nothing started.
func Begin(p Plan, id fleet.OperationID, n fleet.Node, verb fleet.Verb, by string, lease fleet.LeaseID, now time.Time) fleet.Operation {
	op := fleet.Operation{ID: id, Node: n.ID, NodeName: n.Name, Use: string(p.Use), Verb: verb, By: by, Lease: lease, From: n.State, Plan: p.Digest,
		State: fleet.OperationPending, Catalogue: p.Catalogue, CreatedAt: now, Steps: make([]fleet.StepRun, len(p.Steps))}
	for i, s := range p.Steps {
		op.Steps[i] = fleet.StepRun{Name: s.Name, State: fleet.StepPending, Side: s.Side, Why: s.Why, Params: s.Params}
	}
	return op
}

// Next decides what the journal asks for now. It is pure and changes nothing.
func Next(op fleet.Operation, now time.Time, s Signals) Action {
	i := op.Current()
	if i < 0 {
		return Action{Do: Finish}
	}
	run := op.Steps[i]
	decl, known := Find(run.Name)
	if !known {
		return Action{Do: Fail, Index: i, Why: fmt.Sprintf("this program has no step %q", run.Name)}
	}
	switch run.State {
	case fleet.StepFailed:
		if op.Abort {
			return Action{Do: Abort, Index: i, Why: "abort asked"}
		}
		return Action{Do: Fail, Index: i, Why: run.Error.Detail}
	case fleet.StepAsk:
		if op.Abort {
			return Action{Do: Abort, Index: i, Why: "abort asked"}
		}
		return Action{Do: AskPerson, Index: i, Why: "a crash left " + run.Name + " undecided: metalctl node retry, or node abort"}
	case fleet.StepStarted:
		return nextStarted(op, i, decl, now, s)
	}
	switch {
	case op.Abort:
		return Action{Do: Abort, Index: i, Why: "abort asked"}
	case s.Frozen != "" && !decl.Observes:
		return Action{Do: Wait, Index: i, Why: run.Name + " waits for the thaw: " + s.Frozen}
	case s.Held && !(decl.EvenHeld && op.Use == string(Release)):
		return Action{Do: Wait, Index: i, Why: "held by a person: metalctl node unhold"}
	case now.Before(run.NotBefore):
		return Action{Do: Wait, Index: i, Until: run.NotBefore, Why: fmt.Sprintf("try %d of %s after: %s", run.Try+1, run.Name, detail(run.Error))}
	case decl.Side == InBand && !s.AgentUp:
		return waitForAgent(op, i, now, s)
	}
	return Action{Do: Start, Index: i}
}

// waitForAgent: the plan reached an in-band step while the agent is silent. It may be on its way back from a cut network.
func waitForAgent(op fleet.Operation, i int, now time.Time, s Signals) Action {
	if s.AgentRefused != "" {
		return Action{Do: Fail, Index: i, Why: "the agent was refused: " + s.AgentRefused}
	}
	since := s.AgentSince
	for _, t := range []time.Time{op.StartedAt, op.Steps[i].FinishedAt, prevEnd(op, i)} {
		// What is later than now was written before the clock was set back.
		if t.After(since) && !t.After(now) {
			since = t
		}
	}
	if limit := since.Add(AgentPatience); now.Before(limit) {
		return Action{Do: Wait, Index: i, Until: limit, Why: "the agent is silent since " + since.UTC().Format(time.RFC3339)}
	}
	return Action{Do: Fail, Index: i, Why: lostAgent}
}

const lostAgent = "the agent was not heard of for 5 minutes"

func prevEnd(op fleet.Operation, i int) time.Time {
	if i == 0 {
		return time.Time{}
	}
	return op.Steps[i-1].FinishedAt
}

// nextStarted: an in-band step ends by its result, by its limit, or by the agent's silence; an out-of-band one by whoever runs it.
func nextStarted(op fleet.Operation, i int, decl Step, now time.Time, s Signals) Action {
	run := op.Steps[i]
	if decl.Side == OutOfBand {
		return Action{Do: Running, Index: i, Why: run.Name + " runs"}
	}
	limit := run.StartedAt.Add(LimitOf(run) + limitSlack)
	// A server that was away for longer than that finds the result waiting at the agent, which has to find the server first.
	if back := s.AgentSince.Add(limitSlack); back.After(limit) {
		limit = back
	}
	if !now.Before(limit) {
		return Action{Do: Fail, Index: i, Why: fmt.Sprintf("%s did not end within %s", run.Name, LimitOf(run))}
	}
	if !s.AgentUp {
		if op.Abort && decl.Abort == AbortNow {
			return Action{Do: Abort, Index: i, Why: "abort asked, and the agent is silent"}
		}
		since := s.AgentSince
		if run.StartedAt.After(since) {
			since = run.StartedAt
		}
		if decl.Destroys || decl.Abort == AbortNever {
			return Action{Do: Running, Index: i, Until: limit, Why: fmt.Sprintf("%s runs on the machine, silent since %s; its end is waited for until %s",
				run.Name, since.UTC().Format(time.RFC3339), limit.UTC().Format(time.RFC3339))}
		}
		if s.AgentRefused != "" {
			return Action{Do: Fail, Index: i, Why: "the agent was refused: " + s.AgentRefused}
		}
		if lost := since.Add(AgentPatience); !now.Before(lost) {
			return Action{Do: Fail, Index: i, Why: lostAgent}
		} else if lost.Before(limit) {
			limit = lost
		}
	}
	return Action{Do: Running, Index: i, Until: limit, Why: run.Name + " runs on the machine"}
}

// Started journals the next try of step i. It is committed before the step acts.
func Started(op fleet.Operation, i int, generation int64, now time.Time) fleet.Operation {
	op = clone(op)
	r := &op.Steps[i]
	if blob := attachedTo(*r); blob != "" && !slices.Contains(r.Left, blob) {
		r.Left = append(slices.Clone(r.Left[max(0, len(r.Left)-mostLeft+1):]), blob)
	}
	r.State, r.StartedAt, r.FinishedAt, r.NotBefore, r.Evidence = fleet.StepStarted, now, time.Time{}, time.Time{}, nil
	r.Try++
	if op.State == fleet.OperationPending {
		op.State, op.StartedAt = fleet.OperationRunning, now
	}
	op.Generation = generation
	return op
}

// mostLeft is how many attachments of earlier tries a step keeps.
const mostLeft = 4

// attachedTo is the blob that the newest try of a step attached, "" where there is none.
func attachedTo(r fleet.StepRun) string {
	var seen struct {
		Blob string `json:"blob"`
	}
	if len(r.Evidence) == 0 || json.Unmarshal(r.Evidence, &seen) != nil {
		return ""
	}
	return seen.Blob
}

// Finished journals the end of step i with its evidence.
func Finished(op fleet.Operation, i int, evidence json.RawMessage, now time.Time) fleet.Operation {
	op = clone(op)
	r := &op.Steps[i]
	r.State, r.FinishedAt, r.Evidence, r.Error, r.Resumed = fleet.StepFinished, now, evidence, nil, false
	return op
}

// Failed journals that step i ended with p: a transient problem is tried again later while the step's budget lasts, any other ends the run.
// unseen says that nobody saw the try end, so that the next one is told.
func Failed(op fleet.Operation, i int, p fleet.Problem, unseen Seen, now time.Time) fleet.Operation {
	op = clone(op)
	r := &op.Steps[i]
	r.FinishedAt, r.Error, r.State = now, &p, fleet.StepFailed
	r.Resumed = r.Resumed || bool(unseen)
	decl, _ := Find(r.Name)
	if p.Transient && r.Try-r.Spared < decl.Tries && !op.Abort {
		r.State = fleet.StepPending
		r.NotBefore = now.Add(Backoff(op.ID, i, r.Try))
	}
	return op
}

// Seen tells Failed whether the end of a try was seen.
type Seen bool

const (
	SeenEnd   Seen = false
	UnseenEnd Seen = true
)

// Recovered decides about an out-of-band step that had started when its worker died: again, or a person must say.
func Recovered(op fleet.Operation, i int, now time.Time) fleet.Operation {
	op = clone(op)
	r := &op.Steps[i]
	r.Resumed = true
	decl, _ := Find(r.Name)
	if decl.OnCrash == Ask {
		r.State = fleet.StepAsk
		r.Error = &fleet.Problem{Code: "MC-STEP-ASK", Detail: "the server stopped while " + r.Name + " ran, and nobody knows whether it acted",
			Hint: "look at the machine, then: metalctl node retry " + op.NodeName + ", or: metalctl node abort " + op.NodeName}
		return op
	}
	r.State, r.NotBefore = fleet.StepPending, time.Time{}
	return op
}

// BootAgain journals that the boot that step i waits for has to be begun anew: the machine, which this plan has switched on, is switched off, and
// comes up from a medium that is inserted once more. It reports false where the plan inserts none.
func BootAgain(op fleet.Operation, i int, now time.Time) (fleet.Operation, bool) {
	insert := slices.IndexFunc(op.Steps[:i], func(r fleet.StepRun) bool { return r.Name == MediaInsert })
	if insert < 0 {
		return op, false
	}
	params, err := Merge(op.Steps[insert].Params, map[string]any{"switch_off": true})
	if err != nil {
		return op, false
	}
	op = clone(op)
	op.Steps[insert].Params = params
	for k := insert; k <= i; k++ {
		r := &op.Steps[k]
		r.State, r.Resumed, r.Spared, r.NotBefore, r.Error, r.FinishedAt = fleet.StepPending, true, r.Try, time.Time{}, nil, now
	}
	return op, true
}

// Spared journals that a try of step i ended because its node was frozen while it ran: it is taken up again after the thaw, and costs none of the
// tries that it has.
func Spared(op fleet.Operation, i int, now time.Time) fleet.Operation {
	op = Recovered(op, i, now)
	op.Steps[i].Spared++
	return op
}

// Again makes a new journal that goes on at the first step that had not finished.
func Again(old fleet.Operation, id fleet.OperationID, by string, now time.Time) fleet.Operation {
	op := clone(old)
	op.ID, op.By, op.CreatedAt = id, by, now
	op.State, op.StartedAt, op.EndedAt, op.Abort, op.Error = fleet.OperationPending, time.Time{}, time.Time{}, false, nil
	for i := range op.Steps {
		if r := &op.Steps[i]; r.State != fleet.StepFinished {
			r.Resumed = r.Resumed || r.Try > 0
			r.State, r.Try, r.Spared, r.NotBefore, r.Error = fleet.StepPending, 0, 0, time.Time{}, nil
		}
	}
	return op
}

// Backoff is how long to wait after try number try failed: doubling from 5 s to at most 5 min, with a jitter of a quarter that depends on the
// step and not on chance, so that a plan can be replayed.
func Backoff(id fleet.OperationID, i, try int) time.Duration {
	d := 5 * time.Second << min(max(try-1, 0), 6)
	d = min(d, 5*time.Minute)
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d/%d", id, i, try)
	quarter := int64(d / 4)
	return d - time.Duration(quarter) + time.Duration(int64(h.Sum32())%(2*quarter))
}

// learned says which steps are told what an earlier step of the run found out: by name of the evidence, for agents and drivers that did not see it.
var learned = map[string]struct {
	from string
	keys []string
}{
	BootFromMedia: {MediaInsert, []string{"target"}},
	VerifyImage:   {WriteImage, []string{"serial", "content_sha256", "disk_bytes"}},
	ConfigDrive:   {WriteImage, []string{"serial"}},
	BootEntry:     {WriteImage, []string{"serial"}},
	CleanVars:     {CompareAccepted, []string{"remove_variables"}},
}

// Fill returns the parameters of step i with what earlier steps of the run found out.
func Fill(op fleet.Operation, i int) (json.RawMessage, error) {
	run := op.Steps[i]
	l, ok := learned[run.Name]
	if !ok {
		return run.Params, nil
	}
	add := map[string]any{}
	for _, r := range op.Steps {
		var seen map[string]json.RawMessage
		if r.Name != l.from || r.State != fleet.StepFinished || len(r.Evidence) == 0 || json.Unmarshal(r.Evidence, &seen) != nil {
			continue
		}
		for _, key := range l.keys {
			if v, ok := seen[key]; ok {
				add[key] = v
			}
		}
	}
	return Merge(run.Params, add)
}

// Merge returns params with further keys, which replace those of the same name.
func Merge(params json.RawMessage, add map[string]any) (json.RawMessage, error) {
	if len(add) == 0 {
		return params, nil
	}
	all := map[string]any{}
	if len(params) > 0 {
		var old map[string]json.RawMessage
		if err := json.Unmarshal(params, &old); err != nil {
			return nil, fmt.Errorf("parameters of a step: %w", err)
		}
		for k, v := range old {
			all[k] = v
		}
	}
	for k, v := range add {
		all[k] = v
	}
	return json.Marshal(all)
}

func detail(p *fleet.Problem) string {
	if p == nil {
		return "it was cut short"
	}
	return p.Detail
}

// clone keeps the caller's journal as it was.
func clone(op fleet.Operation) fleet.Operation {
	op.Steps = slices.Clone(op.Steps)
	return op
}
