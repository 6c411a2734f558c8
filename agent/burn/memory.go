package burn

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// MemoryNode is the memory of one NUMA node.
type MemoryNode struct {
	ID int
	// Total is what the node has, Free what may be taken of it now, in bytes: a reserve is left out.
	Total, Free int64
	// Workers is how many goroutines are to work on it; each calls Bind once and ends with its work.
	Workers int
	Bind    func() error
	Map     func(bytes int64) (*Block, error)
	// Clock is a time that passes while the memory works.
	Clock func() time.Duration
	// Short says why memory must be given back at once, "" while it need not be; nil is never.
	Short func() string
}

// Block is memory that was taken.
type Block struct {
	Words []uint64
	// Bytes is how much memory Words stand for.
	Bytes int64
	// Settle is called between writing and verifying: pause is how long the memory is to be left alone.
	Settle func(ctx context.Context, pause time.Duration)
	// Worked is told how many bytes were read or written; nil where the clock goes by itself.
	Worked func(bytes int64)
	// Address names word i, for people.
	Address func(i int) string
	Free    func() error
}

// Memory is the stressor of memory: on every node side by side it writes and verifies patterns in all that is free, and measures bandwidth.
func Memory(nodes func() ([]MemoryNode, error)) Func {
	return func(ctx context.Context, l Load, say *Sink) error {
		list, err := nodes()
		if err != nil {
			return fmt.Errorf("which memory there is: %w", err)
		}
		began := time.Now()
		var all sync.WaitGroup
		for _, n := range list {
			all.Go(func() {
				r := &memoryRun{load: l, say: say, node: n, component: fmt.Sprintf("numa/%d", n.ID)}
				if err := fleet.Catch(func() error { return r.run(ctx) }); err != nil {
					say.Untold(fleet.Untold{Check: "memory-mismatches", Component: r.component, Cause: causeOf(err), Words: err.Error()})
				}
			})
		}
		all.Wait()
		if len(list) > 0 {
			say.Ran(fleet.StressRun{Stress: l.Stress, Engine: "builtin", Seconds: time.Since(began).Seconds() * float64(l.Speed)})
		}
		return nil
	}
}

const (
	chunkWords = 1 << 20 // between two looks whether to go on
	minMemory  = 64 << 20
	// fadeFrom is how long a load must be to leave memory alone for a tenth of it, at most fadeMost.
	fadeFrom = 10 * time.Minute
	fadeMost = time.Minute
)

// memoryRun is the load of one node.
type memoryRun struct {
	load      Load
	say       *Sink
	node      MemoryNode
	component string
	block     *Block

	short    atomic.Pointer[string]
	verified atomic.Int64 // words
	covered  int64        // words that the most complete pattern verified
	triad    rate

	mu      sync.Mutex // guards what follows
	wrong   int64
	flipped uint64 // bits that ever differed
	details []string
}

func (r *memoryRun) run(ctx context.Context) (err error) {
	if r.node.Free < minMemory {
		r.say.Untold(fleet.Untold{Check: "memory-mismatches", Component: r.component, Cause: "no-memory",
			Words: fmt.Sprintf("%d MiB of %d MiB may be taken, too little to tell anything", max(0, r.node.Free)>>20, r.node.Total>>20)})
		return nil
	}
	if r.block, err = r.node.Map(r.node.Free); err != nil {
		r.say.Untold(fleet.Untold{Check: "memory-mismatches", Component: r.component, Cause: "no-memory", Words: err.Error()})
		return nil
	}
	defer func() {
		r.tell()
		if e := r.block.Free(); err == nil {
			err = e
		}
	}()
	began := r.node.Clock()
	passes := int64(0)
	more := func() bool {
		return ctx.Err() == nil && r.short.Load() == nil && r.node.Clock()-began < r.load.For && (r.load.Passes == 0 || passes < r.load.Passes)
	}
	for cycle := uint64(0); more(); cycle++ {
		if err := r.bandwidth(ctx); err != nil {
			return err
		}
		for _, p := range patterns(uint64(r.load.Round)<<32|cycle, r.load.For >= fadeFrom) {
			if !more() {
				break
			}
			r.say.Progress(r.load.Stress, r.component+" "+p.name)
			if err := r.pass(ctx, p); err != nil {
				return err
			}
			passes++
			r.tell()
		}
	}
	if why := r.short.Load(); why != nil {
		r.say.Untold(fleet.Untold{Check: "memory-mismatches", Component: r.component, Cause: "no-memory", Words: *why})
	}
	return nil
}

// pass writes one pattern and verifies it.
func (r *memoryRun) pass(ctx context.Context, p pattern) error {
	before := r.verified.Load()
	if err := r.each(ctx, false, func(w []uint64, i uint64) { p.fill(w, i) }); err != nil {
		return err
	}
	pause := time.Duration(0)
	if p.fade {
		pause = min(r.load.For/10, fadeMost)
	}
	turn, turns := uint64(0), 1
	if p.invert {
		turns = 3
	}
	for n := range turns {
		r.block.Settle(ctx, pause)
		last := n == turns-1
		err := r.each(ctx, n%2 == 1, func(w []uint64, i uint64) {
			for k := p.wrong(w, 0, i, turn); k < len(w); k = p.wrong(w, k+1, i, turn) {
				r.found(p, int(i)+k, p.at(i+uint64(k), turn), w[k])
			}
			if !last {
				for k := range w {
					w[k] = ^w[k]
				}
			}
			r.verified.Add(int64(len(w)))
		})
		if err != nil {
			return err
		}
		turn = ^turn
	}
	r.covered = max(r.covered, min(int64(len(r.block.Words)), (r.verified.Load()-before)/int64(turns)))
	return nil
}

// each gives all workers together every chunk of the block, upwards or downwards.
func (r *memoryRun) each(ctx context.Context, down bool, f func(w []uint64, i uint64)) error {
	words := r.block.Words
	chunks := (len(words) + chunkWords - 1) / chunkWords
	share := (chunks + r.node.Workers - 1) / r.node.Workers
	return r.together(min(r.node.Workers, chunks), func(worker int) {
		for n := range min(share, chunks-worker*share) {
			if ctx.Err() != nil || r.runsShort() {
				return
			}
			c := worker*share + n
			if down {
				c = min(chunks, (worker+1)*share) - 1 - n
			}
			w := words[c*chunkWords : min(len(words), (c+1)*chunkWords)]
			f(w, uint64(c)*chunkWords)
			r.worked(int64(len(w)) * 8)
		}
	})
}

// together runs f on threads of the node side by side.
func (r *memoryRun) together(workers int, f func(worker int)) error {
	errs := make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			errs[i] = fleet.Catch(func() error {
				if err := r.node.Bind(); err != nil {
					return err
				}
				f(i)
				return nil
			})
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *memoryRun) worked(bytes int64) {
	if r.block.Worked != nil {
		r.block.Worked(bytes)
	}
}

// runsShort looks whether the machine needs its memory back.
func (r *memoryRun) runsShort() bool {
	if r.short.Load() != nil {
		return true
	}
	if r.node.Short == nil {
		return false
	}
	if why := r.node.Short(); why != "" {
		r.short.CompareAndSwap(nil, &why)
		return true
	}
	return false
}

// found takes a word that was read other than it was written.
func (r *memoryRun) found(p pattern, i int, want, got uint64) {
	again := "and again " + fmt.Sprintf("%016x", r.block.Words[i])
	switch r.block.Words[i] {
	case got:
		again = "and the same again"
	case want:
		again = "and rightly when read again"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong++
	r.flipped |= want ^ got
	if len(r.details) < maxDetails-1 {
		r.details = append(r.details, fmt.Sprintf("%s: %s: expected %016x, read %016x (%d bits), %s", p.name, r.block.Address(i), want, got, bits.OnesCount64(want^got), again))
	}
}

// tell says what is known until now.
func (r *memoryRun) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	measured := func(m fleet.Measured) {
		m.Component, m.Engine = r.component, "builtin"
		r.say.Measured(m)
	}
	if n := r.verified.Load(); n > 0 {
		details := r.details
		if r.wrong > 0 {
			details = append([]string{fmt.Sprintf("bits that differed: %016x", r.flipped)}, details...)
		}
		measured(fleet.Measured{Check: "memory-mismatches", Value: float64(r.wrong), N: n, Details: details})
		share := float64(r.covered) / float64(len(r.block.Words)) * float64(r.block.Bytes) / float64(r.node.Total)
		measured(fleet.Measured{Check: "memory-tested", Value: 100 * min(1, share)})
	}
	if r.triad.n > 0 {
		measured(fleet.Measured{Check: "memory-bandwidth", Value: float64(r.triad.bytes) / 1e9 / r.triad.took.Seconds(), N: r.triad.n, Min: r.triad.least / 1e3, Max: r.triad.most / 1e3})
	}
	if r.wrong > 0 {
		r.say.Wrong(r.component, fmt.Sprintf("%d words were read other than they were written", r.wrong))
	}
}
