package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// caught calls f; a panic becomes an error, its stack a report. On a goroutine of its own nothing else keeps a panic from ending PID 1.
func (cfg Config) caught(what string, f func() error) error {
	err := cfg.Home.defect(what, fleet.Catch(f))
	if fleet.CodeOf(err) == "MC-AGENT-PANIC" {
		cfg.Log.Error("a defect in the agent", "what", what, "err", err)
	}
	return err
}

// defect reports the stack of a panic in err's chain, of whatever goroutine it was, and returns the error that the server is told: err itself where there
// was none.
func (h *Home) defect(what string, err error) error {
	var p *fleet.Panic
	if !errors.As(err, &p) {
		return err
	}
	stack := strings.Split(strings.TrimSpace(p.Stack), "\n")
	h.Report("panic", append([]string{fmt.Sprintf("panic in %s: %s", what, p.Reason)}, stack...)...)
	if fleet.CodeOf(err) != "" {
		return err // it says more of where than a panic can
	}
	return fleet.Errorf(fleet.Broken, "MC-AGENT-PANIC", "a defect in the agent: %s panicked: %w", what, err).
		WithHint("the stack is on the node's timeline: metalctl node timeline NODE; please report it")
}

// keep is for the loops of a session: one that panics begins again after a pause, until ctx ends.
func (cfg Config) keep(ctx context.Context, what string, loop func() error) func() error {
	return func() error {
		pause := newBackoff(cfg.Pace)
		for {
			err := cfg.caught(what, loop)
			if fleet.CodeOf(err) != "MC-AGENT-PANIC" {
				return err
			}
			if err := pause.wait(ctx); err != nil {
				return err
			}
		}
	}
}
