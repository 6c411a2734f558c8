package step

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// MaxEvidence is the most bytes of evidence that the journal takes; what is bigger travels as attachment.
const MaxEvidence = 4 << 10

// Result is what became of one try.
type Result struct {
	Evidence   json.RawMessage
	Attachment json.RawMessage
	// Faults are what the step found wrong with the node, whether it failed or not.
	Faults []fleet.Fault
	// Kept are faults that the step found before and could not look for now.
	Kept []fleet.Fault
	// Problem is nil where the step ended as it should.
	Problem *fleet.Problem
	// Frozen: a freeze of the node refused one of its writes.
	Frozen bool
	// Unseen: the step was left behind, still running, when its time was over.
	Unseen bool
}

// grace is what a step may take to come back after its context has ended.
const grace = 10 * time.Second

// Run does one try of a step: within its time limit, surviving its panic, and with evidence that the journal can hold. It never returns an
// error: whatever goes wrong is a Problem.
func (f Funcs) Run(ctx context.Context, c Call) Result {
	decl, ok := Find(c.Step)
	do := f[c.Step]
	if !ok || do == nil {
		return failure(fleet.Errorf(fleet.Refused, "MC-STEP-UNBOUND", "this program does not do step %q", c.Step).
			WithHint("server and agent must be of one version: metalctl version"))
	}
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	ctx, cancel := context.WithTimeout(ctx, decl.Limit)
	defer cancel()
	type ended struct {
		out Outcome
		err error
	}
	done := make(chan ended, 1)
	go func() {
		// A step that ends its goroutine without returning has not succeeded.
		e := ended{err: fleet.Errorf(fleet.Broken, "MC-STEP-PANIC", "%s ended without a result", c.Step)}
		defer func() {
			if p := recover(); p != nil {
				e.err = fleet.Errorf(fleet.Broken, "MC-STEP-PANIC", "%s panicked: %v at %s", c.Step, p, firstFrames(debug.Stack()))
			}
			done <- e
		}()
		e.out, e.err = do(ctx, c)
	}()
	var e ended
	select {
	case e = <-done:
	case <-ctx.Done():
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case e = <-done:
		case <-late.C:
			r := failure(overtime(ctx, decl))
			r.Unseen = true
			return r
		}
	}
	if e.err != nil {
		if ctx.Err() != nil && (errors.Is(e.err, context.DeadlineExceeded) || errors.Is(e.err, context.Canceled)) {
			e.err = overtime(ctx, decl)
		}
		r := failure(e.err)
		r.Faults = e.out.Faults
		r.Problem.Faults = e.out.Faults
		if seen := success(c.Step, e.out); seen.Problem == nil { // what it saw before it failed
			r.Evidence, r.Attachment = seen.Evidence, seen.Attachment
		}
		return r
	}
	return success(c.Step, e.out)
}

func overtime(ctx context.Context, decl Step) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fleet.Errorf(fleet.Timeout, "MC-STEP-TIMEOUT", "%s did not end within %s", decl.Name, decl.Limit)
	}
	return fleet.Errorf(fleet.Timeout, "MC-STEP-CANCELLED", "%s was stopped: %w", decl.Name, context.Cause(ctx))
}

func success(name string, out Outcome) Result {
	r := Result{Faults: out.Faults, Kept: out.Kept}
	var err error
	if out.Evidence != nil {
		if r.Evidence, err = json.Marshal(out.Evidence); err != nil {
			return failure(fmt.Errorf("evidence of %s: %w", name, err))
		}
	}
	if out.Attachment != nil {
		if r.Attachment, err = json.Marshal(out.Attachment); err != nil {
			return failure(fmt.Errorf("attachment of %s: %w", name, err))
		}
	}
	if len(r.Evidence) > MaxEvidence {
		if r.Attachment != nil {
			return failure(fleet.Errorf(fleet.Broken, "MC-STEP-EVIDENCE", "%s shows %d bytes of evidence, the journal takes %d", name, len(r.Evidence), MaxEvidence))
		}
		r.Attachment = r.Evidence
		r.Evidence, err = json.Marshal(map[string]any{"attached": true, "size_bytes": len(r.Attachment)})
		if err != nil {
			return failure(err)
		}
	}
	return r
}

func failure(err error) Result {
	return Result{Problem: fleet.ProblemOf(err), Frozen: fleet.IsFrozen(err)}
}

func firstFrames(stack []byte) string {
	const most = 1500
	if len(stack) > most {
		stack = stack[:most]
	}
	return string(stack)
}
