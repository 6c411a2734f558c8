package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// outOfBand does one step on the server's side: it journals the start together with the claim, runs the step, and journals the end together with
// the claim's. Where the process dies in between, a successor finds *started* and a claim, waits until the claim is surely over, and recovers.
func (l *Loop) outOfBand(ctx context.Context, id fleet.NodeID, m Move) (Move, error) {
	var mine Claim
	var op fleet.Operation
	begun := false
	move := m
	v, err := l.look(ctx, id)
	if err != nil || v.op.v == nil || m.Index >= len(v.op.v.Steps) {
		return m, err
	}
	leave, err := l.admit(ctx, id, v.op.v.Steps[m.Index].Name)
	if err != nil {
		return m, err
	}
	defer leave()
	err = l.update(ctx, id, func(v *view) error {
		begun = false
		m := l.decide(v)
		if m.Kind != Start && m.Kind != Recover || v.op.v.Steps[m.Index].Side != step.OutOfBand {
			return nil
		}
		if free := l.freeAt(v.claim, v.now); v.now.Before(free) {
			move = Move{Kind: Wait, Index: m.Index, Until: free, Why: "worker " + v.claim.v.Worker + " may still act until its claim is over"}
			return nil
		}
		if rest := l.handsOff(); rest > 0 {
			move = Move{Kind: Wait, Index: m.Index, Until: v.now.Add(rest), Why: "the server before this one may still be speaking to the BMC"}
			return nil
		}
		if m.Kind == Recover {
			*v.op.v = step.Recovered(*v.op.v, m.Index, v.now)
			v.stepEvent(m.Index, fmt.Sprintf("%s: %s was cut short and is taken up again", v.node.v.Name, v.op.v.Steps[m.Index].Name))
			v.dropClaim()
			return nil
		}
		if err := v.started(m.Index); err != nil {
			return err
		}
		op, begun, move = *v.op.v, true, m
		mine = Claim{Node: id, Worker: l.Worker, Operation: op.ID, Index: m.Index, Try: op.Steps[m.Index].Try, Expires: v.now.Add(l.ClaimTTL)}
		v.claim.key, v.claim.v = fleet.KeyOf(fleet.KindClaim, id), &mine
		return nil
	})
	if err != nil || !begun {
		l.setWaits(id, move.Why)
		return move, err
	}
	l.setWaits(id, op.Steps[move.Index].Name+" runs")
	ctx = fleet.WithLog(ctx, slog.String(fleet.LogNode, v.node.v.Name), slog.String(fleet.LogOperation, string(op.ID)), slog.String(fleet.LogStep, op.Steps[mine.Index].Name), slog.Int(fleet.LogTry, mine.Try))
	r := l.runStep(ctx, id, op, mine)
	l.heard(id, op.Steps[mine.Index].Name, r)
	return move, l.ended(ctx, id, mine, r)
}

// runStep runs the step's function under the claim.
func (l *Loop) runStep(ctx context.Context, id fleet.NodeID, op fleet.Operation, mine Claim) step.Result {
	run := op.Steps[mine.Index]
	params, err := step.Fill(op, mine.Index)
	if err != nil {
		return step.Result{Problem: fleet.ProblemOf(err)}
	}
	ctx, interrupt, stop := l.guarded(ctx, id, mine)
	defer stop()
	decl, _ := step.Find(run.Name)
	if decl.Abort == step.AbortNow {
		l.interruptible(id, interrupt)
		defer l.interruptible(id, nil)
	}
	call := step.Call{Node: id, Operation: op.ID, Index: mine.Index, Step: run.Name, Try: run.Try, Resumed: run.Resumed, Params: params}
	if l.Progress != nil {
		call.Progress = func(stage string, done, total int64) {
			p := fleet.Progress{Node: id, Operation: op.ID, Step: run.Name, Stage: stage, Done: done, Total: total, At: l.Now().UTC()}
			if total > 0 {
				p.Percent = 100 * float64(done) / float64(total)
			}
			l.Progress(p)
		}
	}
	return l.Funcs.Run(ctx, call)
}

func (l *Loop) interruptible(id fleet.NodeID, cancel context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cancel == nil {
		delete(l.interrupts, id)
		return
	}
	l.interrupts[id] = cancel
}

// interrupt ends the step that runs here for the node, where that step allows it.
func (l *Loop) interrupt(id fleet.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cancel := l.interrupts[id]; cancel != nil {
		cancel(errInterrupted)
	}
}

// ended journals what became of a step that ran here. A process that stops leaves it *started* and only lets go of the claim.
func (l *Loop) ended(ctx context.Context, id fleet.NodeID, mine Claim, r step.Result) error {
	stopping := ctx.Err() != nil
	if stopping {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
	}
	if err := l.attach(ctx, &r); err != nil {
		return err
	}
	return l.update(ctx, id, func(v *view) error {
		if v.claim.v == nil || !v.claim.v.same(mine) || v.op.v == nil || v.op.v.ID != mine.Operation {
			return nil // fenced: the successor decides
		}
		run := v.op.v.Steps[mine.Index]
		if run.Try != mine.Try || run.State != fleet.StepStarted {
			return nil
		}
		v.dropClaim()
		if r.Problem != nil && stopping {
			return nil
		}
		return v.result(mine.Index, r)
	})
}

// attach stores a step's attachment as a blob and names it in the evidence.
func (l *Loop) attach(ctx context.Context, r *step.Result) error {
	if len(r.Attachment) == 0 {
		return nil
	}
	digest, err := l.Blobs.PutBlob(ctx, "evidence", bytes.NewReader(r.Attachment))
	if err != nil {
		return err
	}
	evidence := map[string]any{}
	if len(r.Evidence) > 0 && json.Unmarshal(r.Evidence, &evidence) != nil {
		evidence["evidence"] = r.Evidence
	}
	evidence["blob"] = digest
	r.Evidence, err = json.Marshal(evidence)
	return err
}

// result journals the end of a try and takes over what it says about the node.
func (v *view) result(i int, r step.Result) error {
	run := v.op.v.Steps[i]
	v.judge(run.Name, r)
	if r.Problem != nil && r.Frozen {
		v.spared(i, "it stopped before its next write")
		return nil
	}
	if r.Problem != nil {
		unseen := step.SeenEnd
		if r.Unseen || r.Problem.Code == "MC-STEP-TIMEOUT" || r.Problem.Code == "MC-STEP-CANCELLED" {
			unseen = step.UnseenEnd
		}
		*v.op.v = step.Failed(*v.op.v, i, *r.Problem, unseen, v.now)
		text := fmt.Sprintf("%s: %s failed: %s", v.node.v.Name, run.Name, cut(r.Problem.Detail, 400))
		if next := v.op.v.Steps[i]; next.State == fleet.StepPending {
			text += fmt.Sprintf(" (again at %s)", next.NotBefore.UTC().Format(time.TimeOnly))
		}
		v.stepEvent(i, text)
		return nil
	}
	v.finished(i, r.Evidence)
	if run.Name == step.MediaInsert {
		if err := v.judgeMedium(r.Evidence); err != nil {
			return fmt.Errorf("evidence of %s: %w", run.Name, err)
		}
	}
	if run.Name == step.Isolate {
		var seen struct {
			Isolated bool `json:"isolated"`
		}
		if err := json.Unmarshal(r.Evidence, &seen); err != nil {
			return fmt.Errorf("evidence of %s: %w", run.Name, err)
		}
		v.node.v.Isolated = seen.Isolated
		if seen.Isolated && step.Use(v.op.v.Use) == step.Release {
			v.separated()
		}
	}
	if run.Name == step.FetchPacks {
		var p step.PacksParams
		if err := json.Unmarshal(run.Params, &p); err != nil {
			return fmt.Errorf("parameters of %s: %w", run.Name, err)
		}
		var digests []string
		for _, k := range p.Packs {
			digests = append(digests, k.SHA256)
		}
		v.node.v.Boot.Packs = fleet.PackMark(digests)
	}
	if run.Name == step.CompareClass {
		var seen struct {
			Compared string `json:"compared"`
		}
		if err := json.Unmarshal(r.Evidence, &seen); err != nil {
			return fmt.Errorf("evidence of %s: %w", run.Name, err)
		}
		v.node.v.Compared = seen.Compared
	}
	if run.Name == step.PowerOff && step.Use(v.op.v.Use) == step.Release {
		v.separated()
	}
	return nil
}

// separated: nothing connects the node with its tenant any more. Proven wires show it at once; where the site has none, a machine that is off does.
func (v *view) separated() {
	if m := v.member(); m != nil {
		v.setMember(m, fleet.MemberReleased, m.Proof)
	}
}

// judgeMedium records, before the machine starts, that its BMC fetches the medium from a server that it does not verify: it may get another kernel.
// Secure Boot takes that away when the agent registers.
func (v *view) judgeMedium(evidence []byte) error {
	var seen struct {
		Verified bool `json:"server_verified"`
	}
	if err := json.Unmarshal(evidence, &seen); err != nil {
		return err
	}
	if b := &v.node.v.Boot; !seen.Verified && b.AgentKey == "" {
		b.Unauthenticated = true
	}
	return nil
}

// dropClaim deletes the node's claim in this commit.
func (v *view) dropClaim() {
	if v.claim.v != nil {
		v.claim.drop = true
	}
}
