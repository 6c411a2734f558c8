package burn

import (
	"context"
	"unsafe"
)

const (
	// triadWords is how long each of a worker's three arrays is: longer than its share of any cache.
	triadWords = 8 << 20
	triadRuns  = 5
)

// bandwidth measures a[i] = b[i] + s*c[i] over all workers, in the node's own memory; it counts 24 bytes for each i, as STREAM does.
func (r *memoryRun) bandwidth(ctx context.Context) error {
	n := min(triadWords, len(r.block.Words)/3/r.node.Workers)
	if n == 0 {
		return nil
	}
	arrays := func(worker int) (a, b, c []float64) {
		w := r.block.Words[worker*3*n : (worker+1)*3*n]
		f := unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(w))), len(w))
		return f[:n], f[n : 2*n], f[2*n:]
	}
	if err := r.together(r.node.Workers, func(worker int) {
		a, b, c := arrays(worker)
		for i := range a {
			a[i], b[i], c[i] = 0, 1, 2
		}
		r.worked(int64(n) * 24)
	}); err != nil {
		return err
	}
	for range triadRuns {
		if ctx.Err() != nil || r.runsShort() {
			return nil
		}
		began := r.node.Clock()
		if err := r.together(r.node.Workers, func(worker int) {
			a, b, c := arrays(worker)
			b, c = b[:len(a)], c[:len(a)]
			for i := range a {
				a[i] = b[i] + 3*c[i]
			}
			r.worked(int64(n) * 24)
		}); err != nil {
			return err
		}
		r.triad.add(int64(n)*24*int64(r.node.Workers)*max(1, r.block.Bytes/8/int64(len(r.block.Words))), r.node.Clock()-began)
	}
	return nil
}
