package agent

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// caught calls f; a panic becomes an error, its stack a report. On a goroutine of its own nothing else keeps a panic from ending PID 1.
func (cfg Config) caught(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = cfg.Home.panicked(what, p)
			cfg.Log.Error("a defect in the agent", "what", what, "err", err)
		}
	}()
	return f()
}

// panicked reports a panic, which the caller has just recovered, and returns it as an error.
func (h *Home) panicked(what string, p any) error {
	stack := strings.Split(strings.TrimSpace(string(debug.Stack())), "\n")
	h.Report("panic", append([]string{fmt.Sprintf("panic in %s: %v", what, p)}, stack...)...)
	return fleet.Errorf(fleet.Broken, "MC-AGENT-PANIC", "a defect in the agent: %s panicked: %v", what, p).
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
