package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/images"
)

// writeBeyondItsData lets a writer of a disk panic, on a goroutine that is neither the step's nor the agent's.
func writeBeyondItsData(t *testing.T) step.Func {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dev, err := disk.Stat("/", path)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, _ step.Call) (step.Outcome, error) {
		_, err := disk.WriteImage(ctx, dev, func(_ context.Context, yield func(images.Extent) error) (images.Result, error) {
			return images.Result{DiskBytes: 8192}, yield(images.Extent{Len: 8192, Data: images.AlignedBytes(4096)})
		}, disk.Options{})
		return step.Outcome{}, err
	}
}

func panics(context.Context, step.Call) (step.Outcome, error) { panic("off by one") }

func TestAPanicInAStepIsReportedWithItsStackAndTheAgentServesOn(t *testing.T) {
	for name, c := range map[string]struct {
		fn            step.Func
		reason, stack string
	}{
		"on the step's goroutine":         {panics, "off by one", "agent.panics"},
		"on a goroutine below the step's": {writeBeyondItsData(t), "slice bounds out of range", "disk.(*writer).do"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeServer(t)
			ended := start(t, config(f, step.Funcs{step.WriteImage: c.fn, step.VerifyErase: nothing}))
			f.push(task(step.WriteImage, 1))
			got := receive(t, f.results, "result")
			if got.Error == nil || got.Error.Code != "MC-AGENT-PANIC" || got.Error.Transient {
				t.Errorf("result = %s", mustJSON(t, got))
			}
			var lines api.Report // a stack may come in pieces
			for !hasLine(lines, c.reason) || !hasLine(lines, c.stack) {
				if r := receive(t, f.reports, "report of the panic with its stack"); r.Kind == "panic" {
					lines.Lines = append(lines.Lines, r.Lines...)
				}
			}
			f.push(task(step.VerifyErase, 2))
			if next := receive(t, f.results, "next result"); next.Step != step.VerifyErase || next.Error != nil {
				t.Errorf("next = %s", mustJSON(t, next))
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			select {
			case err := <-ended:
				t.Errorf("the agent ended: %v", err)
			default:
			}
			if len(f.registers) != 1 {
				t.Errorf("the agent registered %d times", len(f.registers))
			}
		})
	}
}
