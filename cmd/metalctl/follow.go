//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// follower shows one line per operation: a bar that is redrawn on a terminal, a line per step elsewhere.
type follower struct {
	w     io.Writer
	tty   bool
	now   func() time.Time
	drawn int
	last  map[fleet.OperationID]string
	said  map[fleet.OperationID]time.Time
}

func newFollower(w io.Writer) *follower {
	return &follower{w: w, tty: isTerminal(w), now: time.Now, last: map[fleet.OperationID]string{}, said: map[fleet.OperationID]time.Time{}}
}

// followOperations polls until every operation is over. The error says how many failed; exit code 7 for one, 8 for some of many.
func followOperations(ctx context.Context, p *program, c *api.Client, ids []fleet.OperationID) error {
	f := newFollower(p.stderr)
	ops := make([]api.Operation, len(ids))
	for {
		open := 0
		for i, id := range ids {
			if ops[i].State.Over() {
				continue
			}
			op, err := c.Operation(ctx, id, 0)
			if err != nil {
				return fmt.Errorf("follow operation %s: %w", id, err)
			}
			ops[i] = op
			if !op.State.Over() {
				open++
			}
		}
		f.show(ops)
		if open == 0 {
			return f.verdict(ops)
		}
		select {
		case <-ctx.Done():
			fmt.Fprintf(p.stderr, "no longer following; the work goes on: metalctl operation list\n")
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (f *follower) verdict(ops []api.Operation) error {
	failed := 0
	for _, op := range ops {
		if op.State == fleet.OperationDone {
			continue
		}
		failed++
		if op.Error != nil {
			fmt.Fprintf(f.w, "%s: %s: %s\n", op.NodeName, op.Use, printable(op.Error.Detail))
			if op.Error.Hint != "" {
				fmt.Fprintf(f.w, "  try: %s\n", printable(op.Error.Hint))
			}
		}
	}
	switch {
	case failed == 0:
		return nil
	case failed < len(ops):
		return &exitError{exitSomeFailed, fmt.Errorf("%d of %d nodes failed", failed, len(ops))}
	case ops[0].State == fleet.OperationAborted:
		return &exitError{exitTimeout, fmt.Errorf("%s of %s was aborted", ops[0].Use, ops[0].NodeName)}
	default:
		return &exitError{exitNodeFailed, fmt.Errorf("%s of %s failed", ops[0].Use, ops[0].NodeName)}
	}
}

func (f *follower) show(ops []api.Operation) {
	if !f.tty {
		for _, op := range ops {
			f.sayLine(op)
		}
		return
	}
	if f.drawn > 0 {
		fmt.Fprintf(f.w, "\x1b[%dA", f.drawn)
	}
	for _, op := range ops {
		fmt.Fprintf(f.w, "\r\x1b[K%s\n", bar(op, f.now()))
	}
	f.drawn = len(ops)
}

// sayLine prints an operation's line when its step changed, and every 15 seconds besides.
func (f *follower) sayLine(op api.Operation) {
	step, stage, _ := currentStep(op)
	key := string(op.State) + step + stage
	if f.last[op.ID] == key && f.now().Sub(f.said[op.ID]) < 15*time.Second {
		return
	}
	if f.last[op.ID] == key && op.State.Over() {
		return
	}
	f.last[op.ID], f.said[op.ID] = key, f.now()
	fmt.Fprintln(f.w, bar(op, f.now()))
}

// bar draws an operation: node, use, a bar, percent, step, what is done and how fast, time.
func bar(op api.Operation, now time.Time) string {
	const cells = 20
	full := min(cells, max(0, int(op.Percent/100*cells+0.5)))
	step, stage, rate := currentStep(op)
	end := op.EndedAt
	if end.IsZero() {
		end = now
	}
	took := time.Duration(0)
	if !op.StartedAt.IsZero() {
		took = end.Sub(op.StartedAt).Truncate(time.Second)
	}
	what := step
	if stage != "" && stage != step {
		what += " " + stage
	}
	if rate != "" {
		what += " " + rate
	}
	if op.Waits != "" && strings.Contains(op.Waits, "thaw") {
		what = op.Waits
	}
	if op.State.Over() {
		what = string(op.State)
	}
	return printable(fmt.Sprintf("%-10s %-8s [%s%s] %3.0f%%  %-8s %s", op.NodeName, op.Use,
		strings.Repeat("#", full), strings.Repeat(".", cells-full), op.Percent, took, what))
}

// currentStep names what runs now, with the bytes done and the rate where the step counts bytes.
func currentStep(op api.Operation) (name, stage, rate string) {
	i := op.Current()
	if i < 0 {
		return "", "", ""
	}
	s := op.Steps[i]
	name = s.Name
	if s.Try > 1 {
		name += fmt.Sprintf(" (try %d)", s.Try)
	}
	if pr := op.Progress; pr != nil && pr.Step == s.Name {
		stage = pr.Stage
		rate = rateText(pr.Done, pr.Total, pr.At.Sub(s.StartedAt))
	}
	return name, stage, rate
}

// countsBelow is the total under which progress counts things (parts, seconds, disks); above, bytes.
const countsBelow = 64 << 10

// rateText says how far a step is: "6 of 8" for counts; bytes, with the rate and the time that is left, else.
func rateText(done, total int64, took time.Duration) string {
	if total <= 0 || done <= 0 {
		return ""
	}
	if total < countsBelow {
		return fmt.Sprintf("%d of %d", done, total)
	}
	text := fmt.Sprintf("%s of %s", bytesText(done), bytesText(total))
	if took >= time.Second {
		perSecond := float64(done) / took.Seconds()
		text += fmt.Sprintf(", %s/s", bytesText(int64(perSecond)))
		if left := time.Duration(float64(total-done) / perSecond * float64(time.Second)); left >= time.Second {
			text += fmt.Sprintf(", %s left", left.Truncate(time.Second))
		}
	}
	return text
}
