package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// Prober has packets show where nodes' ports are.
type Prober interface {
	// Probes reports whether it can for that node.
	Probes(s fleet.Snapshot, n fleet.Node) (bool, error)
	// BeginProbe begins a round and returns the agent's half of it; EndProbe judges it with what the agent reports, and notes it.
	BeginProbe(ctx context.Context, node fleet.NodeID) (fleet.ProbeTask, error)
	EndProbe(ctx context.Context, node fleet.NodeID, report fleet.ProbeReport) (fleet.Probe, error)
}

// probing is the round that was begun for a try of a step.
type probing struct {
	operation  fleet.OperationID
	index, try int
	task       fleet.ProbeTask
}

// probeParams is the agent's half of the round of this try: the same for as long as the try lasts. It has a key, and so it stands in no journal.
func (l *Loop) probeParams(ctx context.Context, id fleet.NodeID, op *fleet.Operation, i int) (json.RawMessage, error) {
	l.mu.Lock()
	p, begun := l.probings[id]
	l.mu.Unlock()
	if !begun || p.operation != op.ID || p.index != i || p.try != op.Steps[i].Try {
		if l.Prober == nil {
			return nil, fleet.Errorf(fleet.Refused, "MC-PROBE-CANARY", "this server has no canary any more").WithHint("metalctl node abort %s", op.NodeName)
		}
		task, err := l.Prober.BeginProbe(ctx, id)
		if err != nil {
			return nil, err
		}
		p = probing{op.ID, i, op.Steps[i].Try, task}
		l.mu.Lock()
		l.probings[id] = p
		l.mu.Unlock()
	}
	return json.Marshal(p.task)
}

// What packets showed, as problems.
const (
	codeLeak = "MC-PROBE-LEAK"
	codeDead = "MC-PROBE-DEAD"
)

// takeProbe judges what an agent heard together with what the canary did, keeps that, and makes of it the step's result.
func (l *Loop) takeProbe(ctx context.Context, v *view, res api.Result, r *step.Result) error {
	var report fleet.ProbeReport
	err := json.Unmarshal(res.Attachment, &report)
	if err == nil && len(res.Attachment) > maxAttachment {
		err = fmt.Errorf("it has %d bytes", len(res.Attachment))
	}
	if err != nil {
		r.Problem = fleet.ProblemOf(fleet.Errorf(fleet.Invalid, "MC-PROBE-REPORT", "what the agent says it heard is no such report: %w", err))
		return nil
	}
	if l.Prober == nil {
		r.Problem = fleet.ProblemOf(untold("this server has no canary any more"))
		return nil
	}
	p, err := l.Prober.EndProbe(ctx, v.node.v.ID, report)
	if err != nil {
		return err
	}
	if r.Attachment, err = json.Marshal(p); err != nil {
		return fmt.Errorf("encode what packets showed: %w", err)
	}
	r.Evidence = nil
	if err := l.attach(ctx, r); err != nil {
		return err
	}
	if r.Evidence, err = step.Merge(r.Evidence, map[string]any{"outcome": p.Outcome, "ports": probedWords(p)}); err != nil {
		return err
	}
	v.judgeProbe(p, res.Try, r)
	return nil
}

// probedWords says what each port showed, at most maxProbedWords of them: the rest stands in the blob.
func probedWords(p fleet.Probe) []map[string]string {
	out := []map[string]string{}
	for _, x := range p.Ports[:min(maxProbedWords, len(p.Ports))] {
		out = append(out, map[string]string{"device": x.Switch, "port": x.Port, "where": cmp.Or(x.Network, "quarantine"), "outcome": x.Outcome})
	}
	return out
}

const maxProbedWords = 16

// judgeProbe makes a step's problem and faults of what packets showed. A leak is final. What is dead, or could not be told, is tried again first.
func (v *view) judgeProbe(p fleet.Probe, try int, r *step.Result) {
	decl, _ := step.Find(step.ProbeWires)
	last := try >= decl.Tries
	for _, x := range p.Ports {
		component := "wire/" + x.Switch + "/" + x.Port
		for _, c := range x.Checks {
			switch {
			case c.Outcome == fleet.ProbeLeak:
				r.Faults = append(r.Faults, fleet.Fault{Code: "MC-FAULT-PORT-LEAK", Component: component, Severity: fleet.Critical, Since: v.now, Blocks: fleet.BlocksAllocate,
					Evidence: cut(c.Why, 300), Hint: "metalctl network verify; look at the port and the mirrors of the switch, then: metalctl node retry " + v.node.v.Name})
			case c.Outcome == fleet.ProbeDead && last:
				r.Faults = append(r.Faults, fleet.Fault{Code: "MC-FAULT-PORT-DEAD", Component: component, Severity: fleet.Critical, Since: v.now, Blocks: fleet.BlocksAllocate,
					Evidence: cut(c.Why, 300), Hint: "look at the cable and the port of the switch, then: metalctl node retry " + v.node.v.Name})
			default:
				continue
			}
			break // one fault says enough of a port
		}
		if x.Outcome == fleet.ProbeSilent { // what was wrong with it while it was in a network is not mended by its being off
			for _, f := range v.node.v.Faults {
				if f.Step == step.ProbeWires && f.Component == component {
					r.Kept = append(r.Kept, f)
				}
			}
		}
	}
	port, check := p.Bad()
	at, why := "its ports", "the round was not this server's, or the ports were moved meanwhile"
	if port != nil {
		at, why = port.Port+" of "+port.Switch, check.Why
	}
	use := step.Use(v.op.v.Use)
	switch {
	case p.Outcome == fleet.ProbeLeak:
		r.Problem = fleet.ProblemOf(fleet.Errorf(fleet.Broken, codeLeak, "%s is not alone where it shall be: %s", at, why).WithHint("metalctl node show %s", v.node.v.Name))
	case p.Outcome == fleet.ProbeDead:
		r.Problem = fleet.ProblemOf(fleet.Errorf(fleet.Unavailable, codeDead, "%s does not reach its network: %s", at, why).WithHint("metalctl node show %s", v.node.v.Name))
	case p.Outcome == fleet.ProbeUntold:
		r.Problem = fleet.ProblemOf(untold(at + ": " + why))
	case p.Outcome == fleet.ProbeSilent && (use == step.Deploy || use == step.Rebuild):
		r.Problem = fleet.ProblemOf(fleet.Errorf(fleet.Conflict, "MC-PROBE-SILENT", "all ports of %s that a canary could hear are in quarantine by now, so that there is nothing to hand over", v.node.v.Name).
			WithHint("metalctl node abort %s", v.node.v.Name))
	}
}

func untold(why string) error {
	return fleet.Errorf(fleet.Unavailable, "MC-PROBE-UNTOLD", "packets could not tell where the ports are: %s", why).WithHint("look at the canary's interfaces and at its ports: metalctl help MC-PROBE-UNTOLD")
}

// leaked reports whether a run ended because a port was not alone where it should be.
func leaked(op fleet.Operation) bool {
	return slices.ContainsFunc(op.Steps, func(r fleet.StepRun) bool {
		return r.Name == step.ProbeWires && r.Error != nil && r.Error.Code == codeLeak
	})
}

// tookProbe keeps what packets showed before a node is handed over with its lease.
func (v *view) tookProbe(evidence []byte) error {
	var seen struct {
		Blob string `json:"blob"`
	}
	if err := json.Unmarshal(evidence, &seen); err != nil {
		return fmt.Errorf("evidence of %s: %w", step.ProbeWires, err)
	}
	if m := v.member(); m != nil {
		m.Probe = seen.Blob
	}
	return nil
}
