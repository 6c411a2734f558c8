package reconcile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// burnEvidence is what the journal keeps of a stage, and of the judgement: where part and report are, and what the report says.
type burnEvidence struct {
	// Part is named as every step's attachment is.
	Part    string        `json:"blob,omitempty"`
	Report  string        `json:"report,omitempty"`
	Verdict fleet.Outcome `json:"verdict,omitempty"`
	// Fatal is why no further stage runs, "" where they go on.
	Fatal string `json:"fatal,omitempty"`
	// Skipped is why the stage did not run.
	Skipped string `json:"skipped,omitempty"`
	// Lost is why nobody saw the stage end on a machine that is not booted again for it, "" where that is not so.
	Lost string `json:"lost,omitempty"`
}

func burnEvidenceOf(r fleet.StepRun) (e burnEvidence) {
	if r.Name != step.BurnStage && r.Name != step.JudgeBurnIn || json.Unmarshal(r.Evidence, &e) != nil {
		return burnEvidence{}
	}
	return e
}

// burnProfile is the profile that a plan run burns in with; zero where it is no burn-in.
func burnProfile(op fleet.Operation) fleet.BurnProfile {
	for _, r := range op.Steps {
		var p step.JudgeParams
		if r.Name == step.JudgeBurnIn && json.Unmarshal(r.Params, &p) == nil {
			return p.Profile
		}
	}
	return fleet.BurnProfile{}
}

// burnJudged reports whether a run that failed had been judged: then it is tried again from its beginning.
func burnJudged(op fleet.Operation) bool {
	i := op.Current()
	return i >= 0 && op.Steps[i].Name == step.JudgeBurnIn
}

// burned judges what a burn-in has measured, with the part that has just come, and keeps the report.
func (l *Loop) burned(ctx context.Context, v *view, newest *fleet.BurnPart) (_ fleet.BurnReport, _ string, err error) {
	op := *v.op.v
	in := verdict.BurnInput{Node: v.node.v.Name, Operation: op.ID, Program: l.Program, Profile: burnProfile(op), Class: v.class, Restarts: restarts(op), Now: v.now}
	left := 0
	for i, r := range op.Steps {
		if r.Name != step.BurnStage {
			continue
		}
		e := burnEvidenceOf(r)
		switch {
		case e.Fatal != "":
			in.Stopped = e.Fatal
		case r.State != fleet.StepFinished && (newest == nil || i != op.Current()):
			left++
		}
		blobs := r.Left
		if e.Part != "" && (newest == nil || i != op.Current()) {
			blobs = append(slices.Clone(blobs), e.Part)
		}
		for _, digest := range blobs {
			part, err := l.burnPart(ctx, digest)
			if err != nil {
				return fleet.BurnReport{}, "", fmt.Errorf("what stage %d measured: %w", i, err)
			}
			in.Parts = append(in.Parts, part)
		}
	}
	in.Earlier = l.earlierReports(ctx, v)
	if newest != nil {
		in.Parts = append(in.Parts, *newest)
	}
	in.Finished = left == 0 && in.Stopped == ""
	if newest == nil {
		fixture := ""
		for _, part := range in.Parts {
			fixture = cmp.Or(fixture, part.Fixture)
		}
		if in.Fleet, err = l.fleetHistory(ctx, *v.node.v, in.Profile.Name, fixture); err != nil {
			return fleet.BurnReport{}, "", err
		}
	}
	rep := verdict.BurnIn(in)
	b, err := json.Marshal(rep)
	if err != nil {
		return rep, "", fmt.Errorf("encode the report: %w", err)
	}
	digest, err := l.Blobs.PutBlob(ctx, "report", bytes.NewReader(b))
	return rep, digest, err
}

// earlierReports is the node's report before this burn-in's, which shows whether a fault is seen again; none where it is kept no more.
func (l *Loop) earlierReports(ctx context.Context, v *view) []fleet.BurnReport {
	if v.burned == nil {
		return nil
	}
	b, err := l.attachment(ctx, step.ReportOf(*v.burned))
	var rep fleet.BurnReport
	if err != nil || json.Unmarshal(b, &rep) != nil {
		return nil
	}
	return []fleet.BurnReport{rep}
}

func (l *Loop) burnPart(ctx context.Context, digest string) (p fleet.BurnPart, err error) {
	b, err := l.attachment(ctx, digest)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fleet.Errorf(fleet.Broken, "MC-STORE-BLOB", "the part %s cannot be read: %w", digest, err).WithHint("metalctl server check")
	}
	return p, nil
}

// takePart checks what a stage measured and judges with it all that was measured so far. The result's evidence then names part and report. What cannot be
// read is the step's failure.
func (l *Loop) takePart(ctx context.Context, v *view, i int, r *step.Result) error {
	var want step.BurnParams
	if err := json.Unmarshal(v.op.v.Steps[i].Params, &want); err != nil {
		return fmt.Errorf("parameters of %s: %w", step.BurnStage, err)
	}
	var part fleet.BurnPart
	err := json.Unmarshal(r.Attachment, &part)
	if len(r.Attachment) > maxAttachment {
		err = fmt.Errorf("it has %d bytes", len(r.Attachment))
	}
	if err == nil && (part.Stage != want.Stage.Name || part.Round != want.Round || part.Profile != want.Profile) {
		err = fmt.Errorf("it is of stage %q, round %d of profile %q", part.Stage, part.Round, part.Profile)
	}
	if f := part.Validate(); err == nil && len(f) > 0 {
		err = fmt.Errorf("%s %s (and %d more)", f[0].Field, f[0].Message, len(f)-1)
	}
	if err == nil && part.Fixture != "" && !v.node.v.Simulated {
		r.Attachment = nil
		r.Problem = fleet.ProblemOf(ofFixture(v.node.v, part.Fixture))
		return nil
	}
	if err != nil {
		if r.Problem == nil {
			r.Problem = fleet.ProblemOf(fleet.Errorf(fleet.Invalid, "MC-BURN-PART", "what the agent sent for stage %s, round %d of profile %s is not what that stage measured: %w", want.Stage.Name, want.Round, want.Profile, err))
		}
		r.Attachment = nil
		return nil
	}
	if err := l.attach(ctx, r); err != nil {
		return err
	}
	rep, digest, err := l.burned(ctx, v, &part)
	if err != nil {
		return err
	}
	add := map[string]any{"report": digest, "verdict": rep.Verdict}
	if x := verdict.Fatal(&part, v.class); x != nil {
		add["fatal"] = cut(x.Words, 300)
		if r.Problem != nil { // that it did not end as it should says less than what it measured, and another try would only say that again
			add["problem"], r.Problem = cut(r.Problem.Detail, 300), nil
		}
	}
	r.Evidence, err = step.Merge(r.Evidence, add)
	return err
}

// tookPart skips what is left of a burn-in where the stage that has just ended was fatal.
func (v *view) tookPart(i int) {
	why := burnEvidenceOf(v.op.v.Steps[i]).Fatal
	if why == "" {
		return
	}
	evidence, err := json.Marshal(burnEvidence{Skipped: "the burn-in ended before: " + why})
	if err != nil {
		return // a string always encodes
	}
	skipped := 0
	for k := i + 1; k < len(v.op.v.Steps); k++ {
		if r := v.op.v.Steps[k]; r.Name == step.BurnStage && r.State == fleet.StepPending {
			*v.op.v = step.Finished(*v.op.v, k, evidence, v.now)
			skipped++
		}
	}
	v.stepEvent(i, fmt.Sprintf("%s: %d further stages are left out: %s", v.node.v.Name, skipped, why))
}

// judgeBurnIn judges all that the stages measured. A part that failed, and one that nobody could tell of, keep the node from being handed out.
func (l *Loop) judgeBurnIn(ctx context.Context, c step.Call) (step.Outcome, error) {
	v, err := l.look(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	if v.op.v == nil || v.op.v.ID != c.Operation {
		return step.Outcome{}, fleet.Errorf(fleet.Conflict, "MC-PLAN-ABORTED", "the burn-in is not what runs on %s any more", v.node.v.Name)
	}
	rep, digest, err := l.burned(ctx, v, nil)
	if err != nil {
		return step.Outcome{}, err
	}
	n := v.node.v
	out := step.Outcome{Evidence: map[string]any{"report": digest, "verdict": rep.Verdict, "headline": cut(rep.Headline, 300), "checks": len(rep.Checks)}, Faults: few(verdict.Faults(&rep), n.Name, "burn-in", mostFaults)}
	for _, x := range n.Faults {
		if x.Step == step.JudgeBurnIn && !(v.burnCounts(burnProfile(*v.op.v)) && verdict.Looked(&rep, x)) {
			out.Kept = append(out.Kept, x)
		}
	}
	switch {
	case rep.Fixture != "" && !n.Simulated:
		return step.Outcome{Evidence: out.Evidence}, ofFixture(n, rep.Fixture)
	case rep.Verdict == fleet.Fail:
		return out, fleet.Errorf(fleet.Refused, "MC-BURN-FAILED", "%s", rep.Headline).WithHint("metalctl burnin report %s", n.Name)
	case rep.Verdict != fleet.Pass && rep.Verdict != fleet.Warn || !rep.Finished:
		return out, fleet.Errorf(fleet.Refused, "MC-BURN-UNTOLD", "%s", rep.Headline).WithHint("metalctl burnin report %s, mend what it names, then: metalctl node retry %s", n.Name, n.Name)
	}
	return out, l.remember(ctx, *n, &rep)
}

// remember keeps what a burn-in that passed has measured, in place of what the one before had.
func (l *Loop) remember(ctx context.Context, n fleet.Node, rep *fleet.BurnReport) error {
	x := verdict.ValuesOf(rep)
	x.Node, x.Class = n.ID, n.Class
	if _, err := l.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindBurned, n.ID), Value: x}}}); err != nil {
		return fmt.Errorf("keep what was measured: %w", err)
	}
	return nil
}

// fleetHistory is what the other nodes of a node's class measured in theirs.
func (l *Loop) fleetHistory(ctx context.Context, n fleet.Node, profile, fixture string) (*verdict.BurnFleet, error) {
	if n.Class == "" {
		return nil, nil
	}
	var others []fleet.BurnValues
	err := l.Store.View(ctx, func(s fleet.Snapshot) error {
		all, err := fleet.List[fleet.BurnValues](s, fleet.KindBurned)
		others = slices.DeleteFunc(all, func(x fleet.BurnValues) bool { return x.Node == n.ID || x.Class != n.Class || x.Fixture != fixture })
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read what others measured: %w", err)
	}
	return verdict.FleetOf(others, profile), nil
}

// ofFixture refuses what was measured on a machine that is not there.
func ofFixture(n *fleet.Node, fixture string) error {
	return fleet.Errorf(fleet.Refused, "MC-BURN-FIXTURE", "the report is of the machine %s, which is not there, and %s was not enrolled as simulated", fixture, n.Name).
		WithHint("metalctl node timeline %s", n.Name)
}

// countsAs reports whether a burn-in by p loads all that the profile of that name does.
func (v *view) countsAs(p fleet.BurnProfile, due string) bool {
	d, ok := fleet.FindProfile(v.profiles, due)
	if !ok {
		return p.Name == due
	}
	return p.Covers(d)
}

// burnCounts reports whether a burn-in by p is the one that is due, or covers that.
func (v *view) burnCounts(p fleet.BurnProfile) bool {
	due := v.class.NextBurn(*v.node.v)
	return due == "" || v.countsAs(p, due)
}

// burnPassed makes a burn-in count for a node: where it was the one that was due, or covers that.
func (v *view) burnPassed(p fleet.BurnProfile) {
	n := v.node.v
	if !v.burnCounts(p) {
		return
	}
	n.BurnedAt, n.BurnNext = v.now, ""
	if v.class.BurnIn != fleet.NoBurnIn && v.countsAs(p, v.class.BurnIn) {
		n.ProvenAt, n.ProvenBy = v.now, v.class.BurnIn
	}
}

// restarts are the times that a burn-in's machine went down under it: boots that were put in after its parts had been read, and the one after which it was
// not booted again.
func restarts(op fleet.Operation) (out []fleet.BurnRestart) {
	began, insert := false, -1
	for k, r := range op.Steps {
		switch r.Name {
		case step.Inventory:
			began = true
		case step.MediaInsert:
			insert = k
		case step.BurnStage:
			var p step.BurnParams
			if json.Unmarshal(r.Params, &p) != nil {
				continue
			}
			at := fleet.BurnRestart{Stage: p.Stage.Name, Round: p.Round}
			if insert >= 0 {
				at.At, at.Why = op.Steps[insert].StartedAt, wentDown
				out, insert = append(out, at), -1
			}
			if why := burnEvidenceOf(r).Lost; why != "" {
				at.At, at.Why = r.FinishedAt, why
				out = append(out, at)
			}
		}
		if !began {
			insert = -1
		}
	}
	return out
}

const wentDown = "the agent was lost in the burn-in"

// bootAgain lets a burn-in whose agent is lost go on at the stage that had not ended, on a machine that is booted anew. One that goes down for the second time
// has a fault: it is judged by what was measured until then. It reports false where neither is a way out.
func (l *Loop) bootAgain(v *view, i int, why string) (bool, error) {
	op := v.op.v
	run := op.Steps[i]
	if run.Name != step.BurnStage || run.State == fleet.StepFailed || op.Abort || v.node.v.Boot.Refused != "" {
		return false, nil
	}
	v.node.v.BurnedAt = time.Time{}
	if len(restarts(*op)) > 0 {
		evidence, err := json.Marshal(burnEvidence{Lost: why, Fatal: "the machine went down under load again: " + why})
		if err != nil {
			return false, err
		}
		v.finished(i, evidence)
		v.tookPart(i)
		return true, nil
	}
	f := l.planFacts(v, "")
	f.AgentUp = false
	boot, err := step.BootPlan(f, wentDown)
	if err != nil {
		return false, err
	}
	*op = step.Inserted(*op, i, boot, v.now)
	v.event("operation.step", "%s: the machine is booted again, and the burn-in goes on with what had not ended: %s", v.node.v.Name, why)
	v.events[len(v.events)-1].Subject = v.op.key
	return true, nil
}
