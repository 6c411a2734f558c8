// Package burn stresses a machine's subsystems and returns measurements, which it does not judge.
package burn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// Machine is what a stage runs on: this machine, or a stand-in for one that is not there.
type Machine struct {
	// Read reads the machine whole, before and after. It must return soon after its context's end; one that does not is left behind.
	Read func(context.Context) (fleet.Inventory, error)
	// Stressors are what stages may name. A name that is not here is told as skipped.
	Stressors map[string]Func
	// Samplers are asked once a second, each by itself, so that one that hangs takes no other along.
	Samplers []Sampler
	// Logs are the kernel's logs to follow: kmsg.Device, or recordings.
	Logs []string
	// Files are the kernel's of the machine, Simulated those of parts that are read in place of this machine's; its zero value is none.
	Files, Simulated sysfs.Tree
	// Fixture and Speed are the part's fields of these names.
	Fixture string
	Speed   int
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	// after makes the timers of limits; nil is time.After. Tests let one run out.
	after func(what string, d time.Duration) <-chan time.Time
}

// Load is what a stressor is asked for.
type Load struct {
	Stress string
	// For is how long the load is to last, in the machine's own time.
	For time.Duration
	// Speed is how much faster than the clock that time goes, at least 1.
	Speed int
	// Passes and Bytes are the most that a part is to do: a machine that is not there does as much as is of use, and says what time that took. 0 is as much
	// as fits into the time.
	Passes, Bytes int64
	Round         int
	// Before is the machine as it was read.
	Before *fleet.Inventory
}

// Wall is how long the load is to last by the clock.
func (l Load) Wall() time.Duration { return l.For / time.Duration(max(l.Speed, 1)) }

// Func is a stressor. It loads until its context ends, or until Load.For has passed: on a machine whose time goes faster the context may end later. It tells what it measured while it measures: a value replaces the one that
// was told of the same check, component and engine before, so that a stressor which is stopped or gets stuck has told what it knew. The context's
// end is no error of its own.
type Func func(ctx context.Context, l Load, say *Sink) error

// Sampler reads values of now.
type Sampler struct {
	Name string
	Read func(context.Context) ([]fleet.Sample, error)
}

// Limits of what keeps a stage waiting.
const (
	// letGo is how long after the end of a load a stressor may take to return. What is stuck for longer is left behind.
	letGo = 4 * time.Second
	// tidyUp is how long it may take where the stage was not aborted: drives are made as clean as they were.
	tidyUp    = 5 * time.Minute
	readLimit = 10 * time.Minute
	// overtime is what stressors of a machine that is not there may take longer: what they tell does not depend on how fast this one is.
	overtime = time.Minute
)

// Stage runs a stage of a profile: it reads the machine, starts the stage's stressors side by side, watches, and reads the machine again. It stops early where a
// stressor found wrong data or the kernel told of something fatal. It returns within 5 s of ctx's end, whatever a stressor does, and then has an error beside what was
// measured until then. progress may be nil; it is told seconds. The part's Profile is the caller's to fill.
func Stage(ctx context.Context, m Machine, s fleet.BurnStage, round int, progress func(what string, done, total int64)) (fleet.BurnPart, error) {
	r := newRun(m, s, round, progress)
	r.openLogs(ctx)
	defer r.closeLogs()
	before, err := r.readMachine(ctx)
	if err != nil {
		return r.part, fmt.Errorf("burn %s: read the machine before: %w", s.Name, err)
	}
	r.part.Before = before
	loaded, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r.sink.stop = stop
	watched := r.watch(loaded)
	r.load(ctx, loaded)
	stop(nil)
	r.settle(watched)
	if ctx.Err() == nil {
		after, err := r.readMachine(ctx)
		if err != nil && ctx.Err() == nil {
			r.sink.Untold(fleet.Untold{Check: "inventory", Component: "node", Cause: causeOf(err), Words: "the machine could not be read after the load: " + err.Error()})
		}
		r.part.After = after
	}
	r.finish(loaded)
	if err := ctx.Err(); err != nil {
		r.part.Stopped = fleet.StoppedAborted
		if errors.Is(err, context.DeadlineExceeded) {
			r.part.Stopped = fleet.StoppedLimit
		}
		return r.part, fmt.Errorf("burn %s: %w", s.Name, err)
	}
	return r.part, nil
}

// stopped is why a load ends before its time.
type stopped struct{ why string }

func (s *stopped) Error() string { return s.why }

// run is a stage that runs.
type run struct {
	m       Machine
	stage   fleet.BurnStage
	round   int
	sink    *Sink
	began   time.Time // by the clock
	logs    []*follower
	samples *recorder
	tell    func(string, int64, int64)
	part    fleet.BurnPart
}

func newRun(m Machine, s fleet.BurnStage, round int, progress func(string, int64, int64)) *run {
	if m.Now == nil {
		m.Now = time.Now
	}
	if m.after == nil {
		m.after = func(_ string, d time.Duration) <-chan time.Time { return time.After(d) }
	}
	m.Speed = max(m.Speed, 1)
	if m.Files == (sysfs.Tree{}) {
		m.Files = sysfs.New("")
	}
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	r := &run{m: m, stage: s, round: round, began: m.Now(), tell: progress}
	r.part = fleet.BurnPart{Version: fleet.BurnPartVersion, Stage: s.Name, Round: round, BeganAt: r.began.UTC(), EndedAt: r.began.UTC(), Fixture: m.Fixture, Planned: s.Seconds}
	if m.Speed > 1 {
		r.part.Speed = m.Speed
	}
	r.sink = newSink()
	r.samples = newRecorder()
	return r
}

// now is the machine's own time.
func (r *run) now() time.Time {
	return r.began.Add(r.m.Now().Sub(r.began) * time.Duration(r.m.Speed)).UTC()
}

// readMachine reads the machine; a reader that does not come back is left behind.
func (r *run) readMachine(ctx context.Context) (*fleet.Inventory, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reading struct {
		inv fleet.Inventory
		err error
	}
	done := make(chan reading, 1)
	go func() {
		var got reading
		got.err = fleet.Catch(func() (err error) { got.inv, err = r.m.Read(ctx); return err })
		done <- got
	}()
	select {
	case got := <-done:
		if got.err != nil {
			return nil, got.err
		}
		return &got.inv, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.m.after("read", readLimit):
		return nil, &hung{fmt.Sprintf("it did not come back within %s", readLimit)}
	}
}

type hung struct{ words string }

func (h *hung) Error() string { return h.words }

// causeOf is the word for Untold.Cause.
func causeOf(err error) string {
	var stuck *hung
	var panicked *fleet.Panic
	switch {
	case errors.As(err, &stuck):
		return "hung"
	case errors.As(err, &panicked):
		return "crashed"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "aborted"
	}
	return "other"
}

// finish puts together what was told.
func (r *run) finish(loaded context.Context) {
	for _, l := range r.logs {
		r.part.Kernel = append(r.part.Kernel, l.list(r)...)
	}
	r.part.EndedAt = r.now()
	r.part.Measured, r.part.Untold, r.part.Ran = r.sink.take()
	r.part.Measured = append(r.part.Measured, r.samples.measured()...)
	r.part.Series = r.samples.series()
	var why *stopped
	if errors.As(context.Cause(loaded), &why) {
		r.part.Stopped = why.why
	}
}
