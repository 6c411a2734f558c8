//go:build cgo

package gpu

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/agent/gpu/cuda"
	"github.com/metalctl/metalctl/fleet"
)

// reportEach is how often a child tells what it knows while it loads its GPUs.
const reportEach = 2 * time.Second

// loader is the side of a child that loads GPUs.
type loader struct {
	h       *helper
	stress  string
	cuda    *cuda.Driver
	gpus    []*cuda.Device
	run     runRequest
	ready   ready
	turns   int64
	all     []*measure
	work    stressor
	compute *compute // the results of a stress that computes
}

// stressor is one way to load GPUs. prepare takes what it needs and warms up; turn does something for at most about a second.
type stressor interface {
	prepare() error
	turn(n int64) error
}

// prepare opens the GPUs of a stress and answers with ready.
func (h *helper) prepare(r *loadRequest) {
	l := &loader{h: h, stress: r.Stress, ready: ready{Step: map[string]int64{}}}
	err := l.open(r)
	if err == nil {
		err = l.work.prepare()
	}
	if err != nil {
		h.failCUDA(err)
		return
	}
	for _, g := range l.gpus {
		l.ready.Seconds = max(l.ready.Seconds, g.Loaded.Seconds())
	}
	h.loader = l
	h.send(message{Ready: &l.ready})
}

func (l *loader) open(r *loadRequest) (err error) {
	var lastCall, lastGPU string
	l.cuda, err = cuda.Open(r.Library, func(call, pci string) {
		// Some calls come in thousands, one like the other; a parent needs to know which does not come back.
		if call != lastCall || pci != lastGPU {
			lastCall, lastGPU = call, pci
			l.h.send(message{Call: call, At: pci})
		}
	})
	if err != nil {
		return err
	}
	if l.ready.CUDA, err = l.cuda.Version(); err != nil {
		return err
	}
	for _, pci := range r.GPUs {
		g, err := l.cuda.Device(pci)
		if err != nil {
			return err
		}
		l.gpus = append(l.gpus, g)
	}
	switch first := l.gpus[0]; r.Stress {
	case fleet.StressGPUMemory:
		l.work = &memory{l: l, g: first}
	case fleet.StressGPUCompute:
		l.compute = &compute{l: l, g: first, module: cuda.Compute}
		l.work = l.compute
	case fleet.StressGPUTensor:
		l.compute = &compute{l: l, g: first, module: cuda.Tensor}
		l.work = l.compute
	case fleet.StressGPUPulse:
		l.compute = &compute{l: l, g: first, module: cuda.Tensor}
		if first.Major < cuda.FirstTensor {
			l.compute.module = cuda.Compute
		}
		l.work = &pulse{compute: l.compute}
	case fleet.StressGPUCopy:
		l.work = &hostCopy{l: l, g: first}
	case stressPeers:
		l.work = &peerCopy{l: l}
	default:
		return fmt.Errorf("there is no stress %q", r.Stress)
	}
	return nil
}

// load runs until the time is over or the parent says stop; one turn is always done.
func (h *helper) load(r *runRequest) {
	l := h.loader
	if l == nil {
		h.fail("other", "nothing was made ready")
		return
	}
	l.run = *r
	limit := time.Duration(r.MS) * time.Millisecond
	began, told := time.Now(), time.Now()
	for l.turns == 0 || time.Since(began) < limit && !h.stop.Load() {
		if err := l.work.turn(l.turns); err != nil {
			l.report()
			h.failCUDA(err)
			return
		}
		l.turns++
		if h.err != nil {
			return
		}
		if time.Since(told) > reportEach {
			told = time.Now()
			l.report()
		}
	}
	l.report()
}

func (l *loader) report() {
	r := loadReport{Turns: l.turns}
	for _, m := range l.all {
		r.Measures = append(r.Measures, *m)
	}
	if l.compute != nil {
		r.Results = l.compute.results()
	}
	l.h.send(message{Load: &r})
}

// measure is the one of a check and a GPU, or of what goes to another.
func (l *loader) measure(check string, from, to *cuda.Device) *measure {
	want := measure{Check: check, From: from.PCI}
	if to != nil {
		want.To = to.PCI
	}
	i := slices.IndexFunc(l.all, func(m *measure) bool { return m.Check == want.Check && m.From == want.From && m.To == want.To })
	if i < 0 {
		i = len(l.all)
		l.all = append(l.all, &want)
	}
	return l.all[i]
}

// words answers with those of a tile.
func (h *helper) words(r *wordsRequest) {
	if h.loader == nil || h.loader.compute == nil {
		h.fail("other", "nothing was computed")
		return
	}
	h.send(message{Words: h.loader.compute.words(r)})
}

// failCUDA tells an error under its cause.
func (h *helper) failCUDA(err error) {
	var e *cuda.Error
	if errors.As(err, &e) {
		h.fail(e.Cause(), "%v", e) // the first one; what was still queued behind it failed of it
		return
	}
	cause := "other"
	if errors.Is(err, errOldTensor) {
		cause = skipTool
	}
	h.fail(cause, "%v", err)
}
