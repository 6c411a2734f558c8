//go:build !ramdisk

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet/api"
)

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

// estimable is how many bytes tell how long the rest takes, where they are less than a hundredth of all: a step begins slowly.
const estimable = 1 << 30

// estimableAfter is how long a step must run before its rate tells how long the rest takes: before that, caches answer and not disks.
const estimableAfter = 5 * time.Second

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
		if took < estimableAfter || done < total/100 && done < estimable {
			return text + fmt.Sprintf(", %s/s", bytesText(int64(perSecond)))
		}
		text += fmt.Sprintf(", %s/s", bytesText(int64(perSecond)))
		if left := time.Duration(float64(total-done) / perSecond * float64(time.Second)); left >= time.Second {
			text += fmt.Sprintf(", %s left", left.Truncate(time.Second))
		}
	}
	return text
}
