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

// begun is a step on the server's side whose start and claim are journalled: it is to be run now, and by nobody else.
type begun struct {
	claim Claim
	op    fleet.Operation
}

func (b *begun) name() string { return b.op.Steps[b.claim.Index].Name }

// begin journals the start of step i and the claim under which it runs.
func (l *Loop) begin(v *view, i int) *begun {
	v.started(i)
	b := &begun{op: *v.op.v}
	b.claim = Claim{Node: v.node.v.ID, Worker: l.Worker, Operation: b.op.ID, Index: i, Try: b.op.Steps[i].Try, Expires: v.now.Add(l.ClaimTTL)}
	mine := b.claim
	v.claim.key, v.claim.v, v.claim.drop = fleet.KeyOf(fleet.KindClaim, v.node.v.ID), &mine, false
	return b
}

// outOfBand does a step on the server's side: it journals the start together with the claim, runs the step, and journals the end together with the claim's.
// Where another such step follows at once, its start and its claim stand in the commit of that end. Where the process dies in between, a successor finds
// *started* and a claim, waits until the claim is surely over, and recovers.
func (l *Loop) outOfBand(ctx context.Context, id fleet.NodeID, m Move, v *view) (Move, error) {
	var b *begun
	move, name := m, v.node.v.Name
	leave, at, err := l.admit(ctx, id, v.op.v.Steps[m.Index].Name)
	if err != nil {
		return m, err
	}
	defer func() { leave() }()
	turned, err := l.powerTurn(ctx, v)
	if err != nil {
		return m, err
	}
	if !at {
		v = nil // it is a while ago
	}
	err = l.updateSeen(ctx, id, v, func(v *view) error {
		b = nil
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
		b, move = l.begin(v, m.Index), m
		return nil
	})
	turned()
	if err != nil || b == nil {
		l.setWaits(id, move.Why)
		return move, err
	}
	for b != nil {
		did := b.name()
		l.setWaits(id, did+" runs")
		logged := fleet.WithLog(ctx, slog.String(fleet.LogNode, name), slog.String(fleet.LogOperation, string(b.op.ID)), slog.String(fleet.LogStep, did), slog.Int(fleet.LogTry, b.claim.Try))
		r := l.runStep(logged, id, b.op, b.claim)
		l.heard(id, did, r)
		if b, err = l.ended(logged, id, b.claim, r); err != nil {
			return move, err
		}
		if b != nil && !touches[b.name()] { // a place is for those who speak to the BMC
			leave()
			leave = func() {}
		}
	}
	return move, nil
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

// ended journals what became of a step that ran here, and the start of the next where that is to be run here at once: it is returned. A process that stops
// leaves the step *started* and only lets go of the claim.
func (l *Loop) ended(ctx context.Context, id fleet.NodeID, mine Claim, r step.Result) (next *begun, err error) {
	stopping := ctx.Err() != nil
	if stopping {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
	}
	if err := l.attach(ctx, &r); err != nil {
		return nil, err
	}
	err = l.update(ctx, id, func(v *view) error {
		next = nil
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
		if err := v.result(mine.Index, r); err != nil || stopping {
			return err
		}
		return l.onward(v, func(i int) {
			// Who has no place to speak to the BMC has to wait for one first.
			if touches[run.Name] || !touches[v.op.v.Steps[i].Name] {
				next = l.begin(v, i)
			}
		})
	})
	return next, err
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
	if r.Problem != nil && v.sparedLoad(i, r) {
		return nil
	}
	if r.Problem != nil && r.Problem.Code == codeMoved && !v.op.v.Abort {
		if op, ok := step.BootAgain(*v.op.v, i, v.now); ok {
			*v.op.v = op
			v.stepEvent(i, fmt.Sprintf("%s: it is booted once more: %s", v.node.v.Name, cut(r.Problem.Detail, 400)))
			return nil
		}
	}
	if r.Problem != nil {
		unseen := step.SeenEnd
		if r.Unseen || r.Problem.Code == "MC-STEP-TIMEOUT" || r.Problem.Code == "MC-STEP-CANCELLED" {
			unseen = step.UnseenEnd
		}
		*v.op.v = step.Failed(*v.op.v, i, *r.Problem, unseen, v.now)
		v.op.v.Steps[i].Evidence = r.Evidence // what it did before it failed
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
	if run.Name == step.AttachTenant {
		if err := v.tookWires(r.Evidence); err != nil {
			return err
		}
	}
	if run.Name == step.ProbeWires {
		if err := v.tookProbe(r.Evidence); err != nil {
			return err
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
	if run.Name == step.BurnStage {
		v.tookPart(i)
	}
	if run.Name == step.JudgeBurnIn {
		v.burnPassed(burnProfile(*v.op.v))
	}
	if run.Name == step.ReadBoard {
		if err := v.tookBoard(r.Evidence); err != nil {
			return err
		}
	}
	if run.Name == step.PowerOff && step.Use(v.op.v.Use) == step.Release {
		v.separated()
	}
	return nil
}

// separated: nothing connects the node with its tenant any more. Proven wires show it at once; where the site has none, a machine that is off does.
func (v *view) separated() {
	if m := v.member(); m != nil {
		v.setMember(m, m.Gone(), m.Proof)
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
