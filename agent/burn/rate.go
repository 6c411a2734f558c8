package burn

import (
	"math"
	"time"
)

// rate gathers bandwidth: all bytes by all time, with the range of single runs.
type rate struct {
	bytes       int64
	took        time.Duration
	n           int64
	least, most float64 // MB/s
}

func (r *rate) add(bytes int64, took time.Duration) {
	if bytes == 0 || took <= 0 {
		return
	}
	v := float64(bytes) / 1e6 / took.Seconds()
	if r.n == 0 || v < r.least {
		r.least = v
	}
	r.most = max(r.most, v)
	r.bytes, r.took, r.n = r.bytes+bytes, r.took+took, r.n+1
}

// histogram counts durations in buckets that are a hundredth wide.
type histogram struct {
	buckets     [2200]int64 // 1 ns to 50 minutes
	n           int64
	least, most float64 // microseconds
}

const bucketWidth = 0.0131 // of the natural logarithm of nanoseconds

func (h *histogram) add(d time.Duration) {
	us := float64(max(d, 1)) / 1e3
	if h.n == 0 || us < h.least {
		h.least = us
	}
	h.most = max(h.most, us)
	h.n++
	h.buckets[min(len(h.buckets)-1, int(math.Log(float64(max(d, 1)))/bucketWidth))]++
}

// percentile is the duration in microseconds that p percent do not exceed, to a hundredth.
func (h *histogram) percentile(p float64) float64 {
	want, seen := int64(math.Ceil(float64(h.n)*p/100)), int64(0)
	for i, n := range h.buckets {
		if seen += n; seen >= want {
			return min(h.most, math.Exp((float64(i)+0.5)*bucketWidth)/1e3)
		}
	}
	return h.most
}
