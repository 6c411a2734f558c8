package gpu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/agent/gpu/cuda"
	"github.com/metalctl/metalctl/fleet"
)

// Engine is what does the work of every stress here.
const Engine = "builtin-ptx"

// tidyUp is how long a child may take to end its load when it was told to; then it is killed. It must be less than the 5 s that an abort may take.
const tidyUp = 3 * time.Second

// slack is how much longer than asked for a load may take: one turn, and what it takes to say what was found.
const slack = 2 * time.Minute

// Target is a GPU that is loaded or sampled.
type Target struct {
	// Component is what it is called: gpu/3.
	Component string
	PCI       string
}

// Stress is what GPUs are asked to do.
type Stress struct {
	// Name is one of fleet's that begin with gpu-.
	Name string
	// For is how long, by the clock.
	For     time.Duration
	Targets []Target
	// Machine is what tells this machine from all others: its pulses are none of theirs.
	Machine string
}

// Sink takes what is found, while it is found: a value replaces an earlier one of the same check and component.
type Sink interface {
	Measured(fleet.Measured)
	Untold(fleet.Untold)
	// Wrong is told after a component's wrong data was Measured.
	Wrong(component, words string)
}

// checks are what each stress measures of a GPU, and of a way to another.
var checks = map[string][]string{
	fleet.StressGPUMemory:  {"gpu-memory-mismatches", "gpu-memory-tested", "gpu-memory-bandwidth"},
	fleet.StressGPUCompute: {"gpu-mismatches", "gpu-int32", "gpu-fp32", "gpu-fp64"},
	fleet.StressGPUTensor:  {"gpu-mismatches", "gpu-bf16", "gpu-int8"},
	fleet.StressGPUPulse:   {"gpu-mismatches"},
	fleet.StressGPUCopy:    {"gpu-copy-mismatches", "gpu-h2d", "gpu-d2h"},
	stressPeers:            {"gpu-peer-mismatches", "gpu-peer"},
}

// skipTool is the cause where a GPU's kind does not have what a stress loads: it is left out, as foreseen.
const skipTool = "no-tool"

// stressPeers is the part of gpu-copy that needs all GPUs in one process.
const stressPeers = "gpu-copy-peers"

// Burn loads GPUs side by side, each by a child of its own, and returns what ran. It ends with its time, or within 5 s of ctx's end: children that do not heed
// are left behind. What a GPU could not be asked is told as untold; no error of a platform is one of a GPU.
func Burn(ctx context.Context, opts Options, s Stress, say Sink) fleet.StressRun {
	b := &burn{opts: opts.filled(), stress: s, say: say, began: time.Now(), reports: map[string]*loadReport{}, wrong: map[string]bool{}}
	ran := fleet.StressRun{Stress: s.Name, Engine: Engine}
	switch {
	case len(s.Targets) == 0:
		b.untoldAll("node", checks[s.Name], true, "no-device", "this machine has no GPU of NVIDIA's")
		return ran
	case opts.Helper == nil:
		b.untoldAll("node", checks[s.Name], false, "no-library", "nothing here answers as NVIDIA's driver library")
		return ran
	}
	if s.Name == fleet.StressGPUCopy && len(s.Targets) > 1 {
		// One after the other: they would take each other's bandwidth. Half of the time each.
		b.stress.For /= 2
		b.eachGPU(ctx)
		if ctx.Err() == nil {
			b.allGPUs(ctx)
		}
	} else {
		b.eachGPU(ctx)
	}
	ran.Version, ran.Seconds = b.cuda, time.Since(b.began).Seconds()
	return ran
}

// burn is a stress that runs.
type burn struct {
	opts   Options
	stress Stress
	say    Sink
	began  time.Time

	mu      sync.Mutex // guards what follows
	cuda    string
	reports map[string]*loadReport // by component
	wrong   map[string]bool        // components that were told wrong
}

// worker is a child and what it loads.
type worker struct {
	stress  string
	targets []Target
	child   *child
	ready   *ready
	failed  bool
}

// name is the component, or "node" where a child has several.
func (w *worker) name() string {
	if len(w.targets) == 1 {
		return w.targets[0].Component
	}
	return "node"
}

// eachGPU loads every GPU by a child of its own.
func (b *burn) eachGPU(ctx context.Context) {
	var workers []*worker
	for _, t := range b.stress.Targets {
		workers = append(workers, &worker{stress: b.stress.Name, targets: []Target{t}})
	}
	b.load(ctx, workers)
}

// allGPUs loads all of them by one child, which copies between them.
func (b *burn) allGPUs(ctx context.Context) {
	b.load(ctx, []*worker{{stress: stressPeers, targets: b.stress.Targets}})
}

// load starts children, waits until all are ready, and lets them go at the same time.
func (b *burn) load(ctx context.Context, workers []*worker) {
	var all sync.WaitGroup
	for _, w := range workers {
		all.Go(func() { b.prepare(ctx, w) })
	}
	all.Wait()
	run := runRequest{MS: b.stress.For.Milliseconds(), Steps: steps(workers), Start: cuda.Monotonic() + (100 * time.Millisecond).Nanoseconds()}
	if b.stress.Name == fleet.StressGPUPulse {
		late, stretch := beat(b.stress.Machine)
		run.Start, run.Stretch = run.Start+late.Nanoseconds(), stretch
	}
	for _, w := range workers {
		if !w.failed {
			all.Go(func() { b.run(ctx, w, run) })
		}
	}
	all.Wait()
	b.vote(ctx, workers)
	for _, w := range workers {
		if w.child != nil {
			w.child.end()
		}
	}
}

// steps makes a launch of each kernel as long as suits the fastest GPU: all must compute the same.
func steps(workers []*worker) map[string]uint32 {
	const long, most = 10 * time.Millisecond, 1 << 16
	out := map[string]uint32{}
	for _, w := range workers {
		if w.ready == nil {
			continue
		}
		for kernel, ns := range w.ready.Step {
			out[kernel] = max(out[kernel], uint32(max(1, min(most, long.Nanoseconds()/max(ns, 1)))))
		}
	}
	return out
}

// prepare starts a child and has it open its GPUs.
func (b *burn) prepare(ctx context.Context, w *worker) {
	c, err := startChild(b.opts)
	if err != nil {
		b.fail(w, "other", fmt.Sprintf("the helper cannot be started: %v", err))
		return
	}
	w.child = c
	var at []string
	for _, t := range w.targets {
		at = append(at, t.PCI)
	}
	c.who = at[0]
	err = c.askFor(ctx, request{Load: &loadRequest{Stress: w.stress, Library: b.opts.CUDA, GPUs: at}}, bounds{gpuBudget, maxMessages}, func(m message) error {
		switch {
		case m.Ready != nil:
			w.ready = m.Ready
		case m.Failed != nil:
			b.fail(w, m.Failed.Kind, m.Failed.Why)
		default:
			return errors.New("a message that does not belong to a load")
		}
		return nil
	})
	if err != nil {
		b.lost(ctx, w, err)
		return
	}
	if w.ready == nil || w.failed {
		if !w.failed {
			b.fail(w, "other", "the helper said nothing")
		}
		return
	}
	b.mu.Lock()
	b.cuda = "CUDA " + w.ready.CUDA
	b.mu.Unlock()
	if len(w.targets) == 1 {
		b.measured(fleet.Measured{Check: "gpu-kernel-load", Component: w.name(), Value: w.ready.Seconds, N: 1})
	}
}

// run lets a child go, and takes what it reports until it ends. When ctx ends, the child may say once more what it found.
func (b *burn) run(ctx context.Context, w *worker, r runRequest) {
	patient, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		if w.child.say(request{Stop: true}) != nil {
			giveUp() // it is gone
		}
		late, stop := b.opts.after(w.child.who, "stop", tidyUp)
		defer stop()
		select {
		case <-done:
		case <-late:
			giveUp()
		}
	}()
	err := w.child.askFor(patient, request{Run: &r}, bounds{b.stress.For + slack, math.MaxInt}, func(m message) error {
		switch {
		case m.Load != nil:
			b.take(w, m.Load)
		case m.Failed != nil:
			b.fail(w, m.Failed.Kind, m.Failed.Why)
		default:
			return errors.New("a message that does not belong to a load")
		}
		return nil
	})
	if err != nil {
		b.lost(ctx, w, err)
	}
}

// take tells what a child reports.
func (b *burn) take(w *worker, r *loadReport) {
	for i := range r.Measures {
		m := &r.Measures[i]
		from, to := b.component(w, m.From), b.component(w, m.To)
		if c, ok := fleet.FindMeasured(m.Check); !ok || from == "" || (to != "") != (c.Part == "peer") {
			continue // it was not asked for that
		}
		if to != "" {
			from += "/peer/" + strings.TrimPrefix(to, "gpu/")
		}
		b.measured(fleet.Measured{Check: m.Check, Component: from, Value: m.value(), N: m.N, Min: m.Min, Max: m.Max, Details: m.Details})
	}
	if len(w.targets) == 1 && len(r.Results) > 0 {
		b.mu.Lock()
		b.reports[w.name()] = r
		b.mu.Unlock()
		b.compare()
	}
}

func (b *burn) component(w *worker, pci string) string {
	for _, t := range w.targets {
		if t.PCI == pci {
			return t.Component
		}
	}
	return ""
}

// measured tells a value; wrong data is said once more, as nothing matters more.
func (b *burn) measured(m fleet.Measured) {
	c, _ := fleet.FindMeasured(m.Check)
	m.Unit, m.Engine = c.Unit, Engine
	b.say.Measured(m)
	if c.Judge != "zero" || m.Value == 0 {
		return
	}
	b.mu.Lock()
	told := b.wrong[m.Component]
	b.wrong[m.Component] = true
	b.mu.Unlock()
	if !told {
		words := fmt.Sprintf("%.0f %s (%s)", m.Value, m.Unit, m.Check)
		if len(m.Details) > 0 {
			words += ": " + m.Details[0]
		}
		b.say.Wrong(m.Component, words)
	}
}

// lost says how a child was lost.
func (b *burn) lost(ctx context.Context, w *worker, err error) {
	var g *gone
	switch {
	case ctx.Err() != nil:
		b.fail(w, "aborted", "it was stopped, and did not say in time what it had found")
	case errors.As(err, &g) && g.Hung:
		b.fail(w, "hung", g.Error())
	case errors.As(err, &g):
		b.fail(w, "crashed", g.Error())
	default:
		b.fail(w, "other", err.Error())
	}
}

// fail tells all that a child was to measure as untold.
func (b *burn) fail(w *worker, cause, why string) {
	w.failed = true
	at := ""
	if w.child != nil && cause != "aborted" {
		at = b.component(w, w.child.at) // the one that its last call was for
	}
	for _, t := range w.targets {
		cause, why := cause, why
		if at != "" && at != t.Component {
			cause, why = "aborted", fmt.Sprintf("it ended with %s: %s", at, why)
		}
		b.untoldAll(t.Component, checks[w.stress], cause == skipTool, cause, why)
	}
}

func (b *burn) untoldAll(component string, checks []string, skipped bool, cause, why string) {
	for _, c := range checks {
		b.say.Untold(fleet.Untold{Check: c, Component: component, Skipped: skipped, Cause: cause, Words: why})
	}
}

// compare votes over what has come until now.
func (b *burn) compare() {
	b.mu.Lock()
	reports := maps.Clone(b.reports)
	b.mu.Unlock()
	found := compareResults(reports, nil)
	for _, m := range found.measured() {
		b.measured(m)
	}
}

// vote compares what all GPUs computed, now with the words themselves.
func (b *burn) vote(ctx context.Context, workers []*worker) {
	if !slices.Contains(checks[workers[0].stress], "gpu-mismatches") {
		return
	}
	b.mu.Lock()
	reports := maps.Clone(b.reports)
	b.mu.Unlock()
	ask := func(component string, r wordsRequest) (words []uint64) {
		for _, w := range workers {
			if w.name() != component || w.failed {
				continue
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyUp/2)
			err := w.child.ask(ctx, request{Words: &r}, func(m message) error {
				if m.Words != nil {
					words = m.Words.Words
				}
				return nil
			})
			cancel()
			w.failed = err != nil // what it measured stays; it is only not asked again
		}
		return words
	}
	found := compareResults(reports, ask)
	for _, m := range found.measured() {
		b.measured(m)
	}
	for _, u := range found.untold() {
		b.say.Untold(u)
	}
}
