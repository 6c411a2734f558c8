package step

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		do       Func
		code     string
		text     string
		evidence string
		attached bool
	}{
		"evidence":        {do: func(context.Context, Call) (Outcome, error) { return Outcome{Evidence: map[string]int{"n": 1}}, nil }, evidence: `{"n":1}`},
		"nothing to show": {do: func(context.Context, Call) (Outcome, error) { return Outcome{}, nil }},
		"error":           {do: func(context.Context, Call) (Outcome, error) { return Outcome{}, errors.New("boom") }, text: "boom"},
		"its own code": {do: func(context.Context, Call) (Outcome, error) {
			return Outcome{}, fleet.Errorf(fleet.Broken, "MC-X", "x")
		}, code: "MC-X", text: "x"},
		"panic":         {do: func(context.Context, Call) (Outcome, error) { panic("oops") }, code: "MC-STEP-PANIC", text: "oops"},
		"no return":     {do: func(context.Context, Call) (Outcome, error) { runtime.Goexit(); return Outcome{}, nil }, code: "MC-STEP-PANIC", text: "without a result"},
		"not encodable": {do: func(context.Context, Call) (Outcome, error) { return Outcome{Evidence: func() {}}, nil }, text: "evidence of power-on"},
		"too much evidence": {do: func(context.Context, Call) (Outcome, error) {
			return Outcome{Evidence: strings.Repeat("x", MaxEvidence)}, nil
		}, evidence: `{"attached":true,"size_bytes":4098}`, attached: true},
		"evidence and blobs": {do: func(context.Context, Call) (Outcome, error) {
			return Outcome{Evidence: strings.Repeat("x", MaxEvidence), Attachment: 1}, nil
		}, code: "MC-STEP-EVIDENCE", text: "4098 bytes"},
		"not bound": {code: "MC-STEP-UNBOUND", text: "does not do"},
	} {
		t.Run(name, func(t *testing.T) {
			f := Funcs{}
			if c.do != nil {
				f[PowerOn] = c.do
			}
			r := f.Run(t.Context(), Call{Step: PowerOn})
			if c.text == "" {
				if r.Problem != nil || string(r.Evidence) != c.evidence || (r.Attachment != nil) != c.attached {
					t.Fatalf("problem %+v, evidence %s", r.Problem, r.Evidence)
				}
				return
			}
			if r.Problem == nil || r.Problem.Code != c.code || !strings.Contains(r.Problem.Detail, c.text) {
				t.Fatalf("problem %+v", r.Problem)
			}
		})
	}
}

func TestRunIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("somebody asked")
	f := Funcs{PowerOn: func(ctx context.Context, _ Call) (Outcome, error) {
		cancel(why)
		<-ctx.Done()
		return Outcome{Faults: []fleet.Fault{{Code: "F"}}}, ctx.Err()
	}}
	r := f.Run(ctx, Call{Step: PowerOn})
	if r.Problem == nil || r.Problem.Code != "MC-STEP-CANCELLED" || !strings.Contains(r.Problem.Detail, "somebody asked") || !r.Problem.Transient {
		t.Fatalf("%+v", r.Problem)
	}
	if len(r.Faults) != 1 || len(r.Problem.Faults) != 1 {
		t.Errorf("the faults that were found are lost: %+v", r)
	}
}
