package burn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
)

// Sizes of a cycle: an extent is written and read in pieces, several at once; then some blocks at random places of it, one at a time.
const (
	pieceBytes  = 1 << 20
	extentBytes = 1 << 30
	depth       = 8
	timed       = 512
)

const (
	// maxIOErrors is how many errors a drive may have before nothing more is learned from it.
	maxIOErrors = 100
	// stuckAfter is how long a drive may do nothing at the end of its load: the kernel gives a command up after 30 s.
	stuckAfter = 60 * time.Second
	// tidyLimit is within tidyUp.
	tidyLimit = tidyUp - 30*time.Second
)

// diskRun is the load of one disk.
type diskRun struct {
	load      Load
	say       *Sink
	component string
	seed      uint64
	drive     Drive
	extent    int64
	done      chan struct{}
	beats     atomic.Int64 // calls that came back

	mu            sync.Mutex // guards what follows
	wrong, failed int64
	blocks, calls int64
	refused       []string
	kinds         map[string]int64
	details       map[string][]string // by kind, the first few
	unwritten     map[int64]bool      // blocks whose last write was refused: what they hold is no lie of the drive

	read, write       rate
	readTime, putTime histogram
}

// wait waits for the end; after that of the load, a drive that does nothing any more is left behind.
func (r *diskRun) wait(ctx context.Context) {
	select {
	case <-r.done:
		return
	case <-ctx.Done():
	}
	for {
		beats := r.beats.Load()
		select {
		case <-r.done:
			return
		case <-time.After(stuckAfter):
		}
		if r.beats.Load() == beats {
			r.say.Untold(fleet.Untold{Check: "disk-mismatches", Component: r.component, Cause: "hung", Words: fmt.Sprintf("no command came back within %s", stuckAfter)})
			return
		}
	}
}

// run cycles over the disk, extent after extent, until the time is over, and zeroes in the end what it wrote.
func (r *diskRun) run(ctx context.Context, open func() (Drive, error)) (err error) {
	if r.drive, err = open(); err != nil {
		return fmt.Errorf("open the disk: %w", err)
	}
	defer func() { err = errors.Join(err, r.drive.Close()) }()
	if r.extent = min(extentBytes, r.drive.Size()/4/pieceBytes*pieceBytes); r.load.Bytes > 0 {
		r.extent = min(r.extent, max(pieceBytes, r.load.Bytes/8/pieceBytes*pieceBytes))
	}
	if r.extent < pieceBytes {
		return fmt.Errorf("a disk of %d bytes is too small", r.drive.Size())
	}
	if err := r.leftovers(ctx); err != nil {
		return err
	}
	used := map[int64]bool{}
	defer func() {
		r.tell()
		err = errors.Join(err, r.clean(ctx, used))
	}()
	moved, began := int64(0), r.drive.Clock()
	for cycle := 0; ctx.Err() == nil && r.drive.Clock()-began < r.load.For && (r.load.Bytes == 0 || moved < r.load.Bytes); cycle++ {
		at := r.place(cycle)
		used[at] = true
		r.note(cycle)
		if err := r.cycle(ctx, at, passOf(r.load.Round, cycle)); err != nil {
			return err
		}
		moved += 2 * r.extent
		r.tell()
	}
	return nil
}

// place is where a cycle works: both ends first, then extent after extent, from another one in each round.
func (r *diskRun) place(cycle int) int64 {
	return extentOf((r.drive.Size()-blockBytes)/r.extent, r.extent, r.load.Round, cycle)
}

// extentOf is place on a disk of n extents.
func extentOf(n, extent int64, round, cycle int) int64 {
	switch cycle {
	case 0:
		return 0
	case 1:
		return (n - 1) * extent
	}
	first := int64(mix(uint64(round)) % uint64(n))
	return (first + int64(cycle-2)) % n * extent
}

// cycle writes an extent and reads it, then writes and reads some of its blocks again: a write of those that the drive forgets shows the first one.
func (r *diskRun) cycle(ctx context.Context, at int64, pass uint64) error {
	r.say.Progress(r.load.Stress, fmt.Sprintf("%s at %d MiB", r.component, at>>20))
	for _, step := range []func() error{
		func() error {
			return r.sweep(ctx, at, &r.write, func(b []byte, off int64) error { return r.put(b, off, pass) })
		},
		func() error {
			return r.sweep(ctx, at, &r.read, func(b []byte, off int64) error { return r.check(b, off, pass) })
		},
		func() error {
			return r.few(ctx, at, &r.putTime, func(b []byte, off int64) error { return r.put(b, off, pass|1) })
		},
		func() error {
			return r.few(ctx, at, &r.readTime, func(b []byte, off int64) error { return r.check(b, off, pass|1) })
		},
	} {
		if err := step(); err != nil {
			return err
		}
		if r.gaveUp() {
			return fmt.Errorf("the drive refused %d commands, and was left alone then", maxIOErrors)
		}
		if !r.worked(r.drive.Flush()) {
			return nil // what is durable now nobody knows: nothing can be held against the drive
		}
	}
	return nil
}

// sweep works over an extent, several pieces at once, and measures how fast.
func (r *diskRun) sweep(ctx context.Context, at int64, to *rate, do func(b []byte, off int64) error) error {
	began := r.drive.Clock()
	var next, moved atomic.Int64
	errs := make([]error, depth)
	var all sync.WaitGroup
	for i := range depth {
		all.Go(func() {
			errs[i] = fleet.Catch(func() error {
				b := disk.AlignedBytes(pieceBytes)
				for {
					off := at + next.Add(pieceBytes) - pieceBytes
					if off >= at+r.extent || ctx.Err() != nil || r.gaveUp() {
						return nil
					}
					if r.worked(do(b, off)) {
						moved.Add(pieceBytes)
					}
				}
			})
		})
	}
	all.Wait()
	if ctx.Err() == nil {
		to.add(moved.Load(), r.drive.Clock()-began)
	}
	return errors.Join(errs...)
}

// few works on blocks at random places of an extent, one at a time, and measures how long each takes.
func (r *diskRun) few(ctx context.Context, at int64, to *histogram, do func(b []byte, off int64) error) error {
	b := disk.AlignedBytes(blockBytes)
	blocks := uint64(r.extent / blockBytes)
	for i := range uint64(timed) {
		if ctx.Err() != nil || r.gaveUp() {
			return nil
		}
		off := at + int64((mix(r.seed)+i*(blocks/timed*2+1))%blocks)*blockBytes
		began := r.drive.Clock()
		if r.worked(do(b, off)) {
			to.add(r.drive.Clock() - began)
		}
	}
	return nil
}

// put writes the blocks of a pass.
func (r *diskRun) put(b []byte, off int64, pass uint64) error {
	for i := 0; i < len(b); i += blockBytes {
		fillBlock(b[i:i+blockBytes], off+int64(i), pass, r.seed)
	}
	_, err := r.drive.WriteAt(b, off)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 0; i < len(b) && (err != nil || len(r.unwritten) > 0); i += blockBytes {
		if err != nil {
			r.unwritten[off+int64(i)] = true
		} else {
			delete(r.unwritten, off+int64(i))
		}
	}
	return err
}

// check reads blocks and compares them with those of a pass.
func (r *diskRun) check(b []byte, off int64, pass uint64) error {
	if _, err := r.drive.ReadAt(b, off); err != nil {
		return err
	}
	var want [blockBytes]byte
	for i := 0; i < len(b); i += blockBytes {
		fillBlock(want[:], off+int64(i), pass, r.seed)
		r.compared(b[i:i+blockBytes], want[:], off+int64(i))
	}
	return nil
}

// compared takes a block that was read, unless it was never written.
func (r *diskRun) compared(got, want []byte, off int64) {
	kind, detail := wrongBlock(got, want)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unwritten[off] {
		return
	}
	r.blocks++
	if kind == "" {
		return
	}
	r.wrong++
	r.kinds[kind]++
	if len(r.details[kind]) < 4 { // neighbours are alike
		r.details[kind] = append(r.details[kind], kind+": "+detail)
	}
}

// worked reports whether a call did, and counts those that did not.
func (r *diskRun) worked(err error) bool {
	r.beats.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if err == nil {
		return true
	}
	r.failed++
	if len(r.refused) < maxDetails {
		r.refused = append(r.refused, err.Error())
	}
	return false
}

func (r *diskRun) gaveUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed >= maxIOErrors
}

// tell says what is known until now.
func (r *diskRun) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	measured := func(m fleet.Measured) {
		m.Component, m.Engine = r.component, "builtin"
		r.say.Measured(m)
	}
	if r.blocks > 0 {
		measured(fleet.Measured{Check: "disk-mismatches", Value: float64(r.wrong), N: r.blocks, Details: r.evidence()})
	}
	if r.calls > 0 {
		measured(fleet.Measured{Check: "disk-io-errors", Value: float64(r.failed), N: r.calls, Details: r.refused})
	}
	for check, x := range map[string]*rate{"disk-read": &r.read, "disk-write": &r.write} {
		if x.n > 0 {
			measured(fleet.Measured{Check: check, Value: float64(x.bytes) / 1e6 / x.took.Seconds(), N: x.n, Min: x.least, Max: x.most})
		}
	}
	for check, h := range map[string]*histogram{"disk-read-latency": &r.readTime, "disk-write-latency": &r.putTime} {
		if h.n > 0 {
			measured(fleet.Measured{Check: check, Value: h.percentile(99), N: h.n, Min: h.least, Max: h.most})
		}
	}
	if r.wrong > 0 {
		r.say.Wrong(r.component, r.evidence()[0])
	}
}

// evidence says of what kinds the wrong blocks are, and of each kind where the first were, beginning with the kind that tells most.
func (r *diskRun) evidence() []string {
	var sums, out []string
	for _, kind := range []string{blockMisplaced, blockStale, blockFlipped, blockForeign} {
		if n := r.kinds[kind]; n > 0 {
			sums, out = append(sums, fmt.Sprintf("%d %s", n, kind)), append(out, r.details[kind]...)
		}
	}
	if len(sums) == 0 {
		return nil
	}
	return append([]string{strings.Join(sums, ", ") + " blocks"}, out...)
}

// clean leaves the disk as clean as it was: what was written reads as zeros.
func (r *diskRun) clean(ctx context.Context, used map[int64]bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyLimit)
	defer cancel()
	for at := range used {
		if err := r.drive.Zero(ctx, at, r.extent); err != nil {
			return fmt.Errorf("zero what was written: %w", err)
		}
		r.beats.Add(1)
	}
	return r.forget(ctx)
}
