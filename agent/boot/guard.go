package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Report is what is left of a panic.
type Report struct {
	At time.Time `json:"at"`
	// Reason is what the panic said, Stack where it happened.
	Reason string `json:"reason"`
	Stack  string `json:"stack"`
}

// Guarded says what happens after a panic. Console is needed.
type Guarded struct {
	Console io.Writer
	// Send hands the report to the server; it has SendWait for that. Nil: the console only.
	Send func(ctx context.Context, r Report) error
	// Shell is run when the node's policy allows it (Credential.DebugShell); nil otherwise.
	Shell func(ctx context.Context)
	Now   func() time.Time
}

// SendWait is how long a report may take to the server.
const SendWait = 30 * time.Second

// Guard calls f. A panic in it (on its own goroutine) becomes a report on the console and to the server, then a shell if the policy
// allows one, and at last an error: PID 1 lives on and can end the machine in an orderly way.
func Guard(ctx context.Context, g Guarded, f func() error) (err error) {
	defer func() {
		reason := recover()
		if reason == nil {
			return
		}
		r := Report{At: g.Now().UTC(), Reason: fmt.Sprint(reason), Stack: string(debug.Stack())}
		fmt.Fprintf(g.Console, "\n--- metalctl agent: panic at %s ---\n%s\n%s--- end of report ---\n", r.At.Format(time.RFC3339), r.Reason, r.Stack)
		if g.Send != nil {
			ctx, cancel := context.WithTimeout(ctx, SendWait)
			defer cancel()
			if serr := g.Send(ctx, r); serr != nil {
				fmt.Fprintf(g.Console, "the report did not reach the server: %v\n", serr)
			}
		}
		if g.Shell != nil {
			g.Shell(ctx)
		}
		err = fmt.Errorf("the agent panicked: %s", r.Reason)
	}()
	return f()
}

// keepWait is the pause before what panicked is begun again.
const keepWait = time.Second

// Keep calls f until it comes back without a panic, and returns what it returned. Every panic is logged, which reports it, and f begins again after a pause,
// until ctx ends: the machine cannot do without what f does.
func Keep(ctx context.Context, log *slog.Logger, what string, f func(context.Context) error) error {
	for {
		err := fleet.Catch(func() error { return f(ctx) })
		if !logPanic(log, what, err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(keepWait):
		}
	}
}

// logPanic reports whether err is a panic, and logs it if so.
func logPanic(log *slog.Logger, what string, err error) bool {
	var p *fleet.Panic
	if !errors.As(err, &p) {
		return false
	}
	log.Error("a defect in the agent", "what", what, "err", p, "stack", p.Stack)
	return true
}
