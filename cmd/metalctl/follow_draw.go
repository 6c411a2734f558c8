//go:build !ramdisk

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// drawer shows operations: on a terminal a line each that is drawn anew, or sums where there are more than it has lines; elsewhere a line per change.
type drawer struct {
	w   io.Writer
	tty bool
	now func() time.Time
	// size is the terminal's width and height in characters.
	size  func() (int, int)
	drawn int
	last  map[fleet.OperationID]string
	said  map[fleet.OperationID]time.Time
	// sums is when the sums were last said, without a terminal.
	sums time.Time
	// lostSaid: it was said that the server does not answer.
	lostSaid bool
}

func newDrawer(w io.Writer) *drawer {
	d := &drawer{w: w, tty: isTerminal(w), now: time.Now, last: map[fleet.OperationID]string{}, said: map[fleet.OperationID]time.Time{}}
	d.size = func() (int, int) {
		if f, ok := w.(*os.File); ok {
			if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
				return width, height
			}
		}
		return 80, 24
	}
	return d
}

// many is from how many operations on they are summed up where there is no terminal.
const many = 20

func (d *drawer) draw(ops []api.Operation, lost time.Time) {
	if d.tty {
		d.redraw(ops, lost)
		return
	}
	if !lost.IsZero() != d.lostSaid {
		d.lostSaid = !lost.IsZero()
		if d.lostSaid {
			fmt.Fprintln(d.w, "the server does not answer; the work goes on, and this waits for it")
		} else {
			fmt.Fprintln(d.w, "the server answers again")
		}
	}
	for _, op := range ops {
		if len(ops) <= many || op.State.Over() {
			d.sayLine(op)
		}
	}
	if now := d.now(); len(ops) > many && now.Sub(d.sums) >= 15*time.Second {
		d.sums = now
		fmt.Fprintln(d.w, sumLine(ops, now))
	}
}

// redraw writes over what was drawn before. No line is longer than the terminal is wide: one that wraps would not be written over.
func (d *drawer) redraw(ops []api.Operation, lost time.Time) {
	width, height := d.size()
	lines := d.lines(ops, height-1)
	if !lost.IsZero() {
		if len(lines) >= height-1 {
			lines = lines[:max(0, height-2)]
		}
		lines = append(lines, fmt.Sprintf("the server does not answer for %s; the work goes on", span(d.now().Sub(lost))))
	}
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", min(d.drawn, height-1))
	}
	b.WriteString("\r\x1b[J")
	for _, l := range lines {
		b.WriteString(clip(l, width-1))
		b.WriteString("\n")
	}
	d.drawn = len(lines)
	io.WriteString(d.w, b.String()) //nolint:errcheck // a terminal that is gone shows nothing
}

func clip(s string, width int) string {
	s, _, _ = strings.Cut(s, "\n")
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(0, width)])
}

// lines are a line per operation while there is room, else sums, what failed, and those that are furthest behind.
func (d *drawer) lines(ops []api.Operation, room int) []string {
	now := d.now()
	var out []string
	if len(ops) <= room {
		for _, op := range ops {
			out = append(out, bar(op, now))
		}
		return out
	}
	out = append(out, sumLine(ops, now))
	shown := slices.Clone(ops)
	// What failed first, then the slowest, then those that wait; what is done is only counted.
	shown = slices.DeleteFunc(shown, func(op api.Operation) bool { return op.State == fleet.OperationDone })
	slices.SortStableFunc(shown, func(a, b api.Operation) int {
		if x, y := rank(a), rank(b); x != y {
			return x - y
		}
		return int(a.Percent*10) - int(b.Percent*10)
	})
	for i, op := range shown {
		if len(out) >= room-1 && len(shown)-i > 1 {
			out = append(out, fmt.Sprintf("and %d more that are further", len(shown)-i))
			break
		}
		out = append(out, bar(op, now))
	}
	return out
}

func rank(op api.Operation) int {
	switch {
	case op.State.Over():
		return 0
	case op.State == fleet.OperationRunning:
		return 1
	}
	return 2
}

// sumLine counts operations and says which is slowest.
func sumLine(ops []api.Operation, now time.Time) string {
	count := map[fleet.OperationState]int{}
	var began time.Time
	percent := 0.0
	var slowest *api.Operation
	for i, op := range ops {
		count[op.State]++
		percent += op.Percent
		if !op.StartedAt.IsZero() && (began.IsZero() || op.StartedAt.Before(began)) {
			began = op.StartedAt
		}
		if op.State == fleet.OperationRunning && (slowest == nil || op.Percent < slowest.Percent) {
			slowest = &ops[i]
		}
	}
	s := fmt.Sprintf("%d of %d done", count[fleet.OperationDone], len(ops))
	for _, c := range []struct {
		n    int
		word string
	}{{count[fleet.OperationRunning], "running"}, {count[fleet.OperationPending], "waiting"}, {count[fleet.OperationFailed], "failed"}, {count[fleet.OperationAborted], "aborted"}} {
		if c.n > 0 {
			s += fmt.Sprintf(", %d %s", c.n, c.word)
		}
	}
	s += fmt.Sprintf("  %.0f%%", percent/float64(max(1, len(ops))))
	if !began.IsZero() {
		s += "  " + now.Sub(began).Truncate(time.Second).String()
	}
	if slowest != nil {
		name, _, _ := currentStep(*slowest)
		s += fmt.Sprintf("  slowest: %s %.0f%% %s", slowest.NodeName, slowest.Percent, name)
	}
	return printable(s)
}

// sayLine prints an operation's line when its step changed, and every 15 seconds besides.
func (d *drawer) sayLine(op api.Operation) {
	step, stage, _ := currentStep(op)
	key := string(op.State) + step + stage
	if d.last[op.ID] == key && (d.now().Sub(d.said[op.ID]) < 15*time.Second || op.State.Over()) {
		return
	}
	d.last[op.ID], d.said[op.ID] = key, d.now()
	fmt.Fprintln(d.w, bar(op, d.now()))
}
