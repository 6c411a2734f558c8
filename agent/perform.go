package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// maxEvidence is what the journal takes; more goes into the attachment.
const maxEvidence = 4 << 10

// problem is the result of a step that failed.
func problem(err error) api.Result { return api.Result{Error: fleet.ProblemOf(err)} }

// ending is how a step came back.
type ending struct {
	out step.Outcome
	err error
}

// do runs one step within its limit, remembers the result and starts what waits.
func (w *worker) do(ctx context.Context, r *running, fn step.Func, limit time.Duration) {
	defer w.steps.Done()
	t := r.task
	// What the step returned may be what panics, when it is encoded; the task must end all the same.
	var result api.Result
	if err := w.cfg.caught("ending "+t.Step, func() error { result = w.outcome(ctx, r, fn, limit); return nil }); err != nil {
		result = problem(err)
	}
	r.cancel(nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = nil
	w.finishLocked(t, result)
	if next := w.next; next != nil && w.base.Err() == nil {
		w.next = nil
		w.startLocked(*next)
	}
}

// outcome runs the step and makes its result.
func (w *worker) outcome(ctx context.Context, r *running, fn step.Func, limit time.Duration) api.Result {
	t := r.task
	ctx = w.about(ctx, t)
	w.cfg.Log.InfoContext(ctx, "step begins")
	began := w.cfg.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	back := make(chan ending, 1)
	go func() {
		defer w.steps.Done()
		out, err := w.guard(ctx, r, fn)
		back <- ending{out, err}
	}()
	var result api.Result
	if end, ended := w.await(ctx, back); ended {
		result = w.judge(ctx, t, end, limit)
	} else {
		result = w.abandon(ctx, t, back)
	}
	took := w.cfg.Now().Sub(began)
	if result.Error != nil {
		w.cfg.Log.ErrorContext(ctx, "step failed", "took", took, "code", result.Error.Code, "err", result.Error.Detail)
	} else {
		w.cfg.Log.InfoContext(ctx, "step done", "took", took)
	}
	return result
}

// about says in each log line of ctx which task it is about.
func (w *worker) about(ctx context.Context, t api.Task) context.Context {
	return fleet.WithLog(ctx, slog.String(fleet.LogOperation, string(t.Operation)), slog.String(fleet.LogStep, t.Step), slog.Int(fleet.LogTry, t.Try))
}

// await waits for the step, and after the end of its context for as long as a step may take to end.
func (w *worker) await(ctx context.Context, back <-chan ending) (ending, bool) {
	select {
	case e := <-back:
		return e, true
	case <-ctx.Done():
	}
	t := time.NewTimer(w.cfg.Pace.Stop)
	defer t.Stop()
	select {
	case e := <-back:
		return e, true
	case <-t.C:
		return ending{}, false
	}
}

// abandon fails a step that does not end. No other step starts while it may still write (invariant A2).
func (w *worker) abandon(ctx context.Context, t api.Task, back <-chan ending) api.Result {
	w.mu.Lock()
	w.stuck[t.Step] = keyOf(t)
	err := w.stuckErrorLocked()
	w.mu.Unlock()
	go func() {
		<-back
		w.mu.Lock()
		delete(w.stuck, t.Step)
		w.mu.Unlock()
		_ = w.cfg.caught("logging", func() error { w.cfg.Log.WarnContext(ctx, "a stuck step has ended after all"); return nil }) // nothing is left to do
	}()
	return problem(err)
}

// guard runs the step's function; a panic becomes an error and its stack a report.
func (w *worker) guard(ctx context.Context, r *running, fn step.Func) (out step.Outcome, err error) {
	t := r.task
	err = fleet.Catch(func() error {
		var err error
		out, err = fn(ctx, step.Call{
			Node: fleet.NodeID(w.cfg.Credential.Node), Operation: t.Operation, Index: t.Index, Step: t.Step, Try: t.Try,
			Resumed: t.Try > 1, Params: t.Params, Progress: r.meter.set,
		})
		return err
	})
	return out, w.cfg.Home.defect("step "+t.Step, err)
}

// judge turns how a step came back into its result.
func (w *worker) judge(ctx context.Context, t api.Task, end ending, limit time.Duration) api.Result {
	err := end.err
	if err != nil && ctx.Err() != nil {
		switch {
		case errors.Is(context.Cause(ctx), errAborted):
			err = fleet.Errorf(fleet.Conflict, "MC-AGENT-ABORTED", "%s was aborted: %w", t.Step, err)
		case errors.Is(context.Cause(ctx), errSilent):
			err = fleet.Errorf(fleet.Unavailable, "MC-AGENT-SILENT", "%s ended because no server had answered for %s: %w", t.Step, w.cfg.Pace.Silence, err)
		case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
			err = fleet.Errorf(fleet.Timeout, "MC-AGENT-LIMIT", "%s did not end within %s: %w", t.Step, limit, err)
		}
	}
	var r api.Result
	if err != nil {
		r = problem(err)
		r.Error.Faults = end.out.Faults
	}
	evidence, eerr := encodeOptional(end.out.Evidence)
	attachment, aerr := encodeOptional(end.out.Attachment)
	if e := errors.Join(eerr, aerr); e != nil && r.Error == nil {
		return problem(fleet.Errorf(fleet.Broken, "MC-AGENT-EVIDENCE", "%s ended, but what it observed cannot be encoded: %w", t.Step, e))
	}
	if len(evidence) > maxEvidence {
		if attachment != nil && r.Error == nil {
			return problem(fleet.Errorf(fleet.Broken, "MC-AGENT-EVIDENCE", "%s ended, but its evidence has %d bytes and the journal takes %d", t.Step, len(evidence), maxEvidence))
		}
		sum := sha256.Sum256(evidence)
		attachment = evidence
		evidence = json.RawMessage(fmt.Sprintf(`{"attached":"sha256:%s"}`, hex.EncodeToString(sum[:])))
	}
	r.Evidence, r.Attachment = evidence, attachment
	return r
}

func encodeOptional(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}
