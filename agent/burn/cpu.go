package burn

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Compute does one kernel from a seed on the core that it was made for, and says how long the core took for it.
type Compute func(k Kernel, seed uint64) (digest uint64, took time.Duration)

// Processor has the cores that are to compute: the kernel's CPUs, each a thread of a core.
type Processor interface {
	Cores() ([]int, error)
	// Bind ties the calling goroutine to a core, for good: it ends with its work.
	Bind(core int) (Compute, error)
}

// CPU is the stressor of processors: all cores do the same passes, and their results are compared with each other and with those of earlier passes, so that a
// core that computes wrongly is named.
func CPU(p Processor) Func {
	return func(ctx context.Context, l Load, say *Sink) error {
		cores, err := p.Cores()
		if err != nil {
			return fmt.Errorf("which cores there are: %w", err)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		began := time.Now()
		b := &ballot{say: say, boxes: map[box][]vote{}, blamed: map[int]*blame{}}
		var all sync.WaitGroup
		for _, core := range cores {
			all.Go(func() {
				err := fleet.Catch(func() error { return work(ctx, l, say, p, core, b) })
				if err != nil {
					say.Untold(fleet.Untold{Check: "cpu-mismatches", Component: coreName(core), Cause: causeOf(err), Words: err.Error()})
				}
			})
		}
		all.Wait()
		b.close(cores)
		say.Ran(fleet.StressRun{Stress: l.Stress, Engine: "builtin", Seconds: time.Since(began).Seconds() * float64(l.Speed)})
		return nil
	}
}

func coreName(core int) string { return fmt.Sprintf("core/%d", core) }

// seeds is how many different passes there are: each comes again, so that a core is compared with itself, too.
const seeds = 64

// work is one core's: passes over all kernels until the time is over.
func work(ctx context.Context, l Load, say *Sink, p Processor, core int, b *ballot) error {
	compute, err := p.Bind(core)
	if err != nil {
		return fmt.Errorf("run on the core: %w", err)
	}
	busy, passes, fastest, slowest := time.Duration(0), int64(0), math.Inf(1), 0.0
	tell := func() {
		if passes > 0 {
			say.Measured(fleet.Measured{Check: "cpu-rate", Component: coreName(core), Value: float64(passes) / busy.Seconds(), N: passes, Min: 1 / slowest, Max: 1 / fastest, Engine: "builtin"})
		}
	}
	defer tell()
	for ; busy < l.For && (l.Passes == 0 || passes < l.Passes); passes++ {
		pass := time.Duration(0)
		for _, k := range Kernels {
			if ctx.Err() != nil {
				return nil
			}
			seed := uint64(passes % seeds)
			digest, took := compute(k, seed)
			pass += took
			b.cast(core, passes, k.Name, seed, digest)
		}
		busy += pass
		fastest, slowest = min(fastest, pass.Seconds()), max(slowest, pass.Seconds())
		if passes%64 == 0 {
			tell()
		}
	}
	return nil
}
