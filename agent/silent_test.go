package agent

import (
	"context"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet/step"
)

// TestLoadEndsWhenNoServerAnswers: a stage of a burn-in ends by itself, with what it had measured, and its result reaches the server that comes back.
func TestLoadEndsWhenNoServerAnswers(t *testing.T) {
	f, began, ended := newFakeServer(t), make(chan struct{}, 1), make(chan struct{}, 1)
	cfg := config(f, step.Funcs{step.BurnStage: func(ctx context.Context, _ step.Call) (step.Outcome, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return step.Outcome{Attachment: "what it had measured"}, ctx.Err()
	}})
	cfg.Pace.Silence, cfg.Pace.Call = 50*time.Millisecond, time.Second
	start(t, cfg)
	f.push(task(step.BurnStage, 1))
	receive(t, began, "start")
	f.stop()
	receive(t, ended, "end of the load")
	f.restart()
	got := receive(t, f.results, "result")
	if got.Error == nil || got.Error.Code != "MC-AGENT-SILENT" || !got.Error.Transient || string(got.Attachment) != `"what it had measured"` {
		t.Errorf("result = %s", mustJSON(t, got))
	}
}
