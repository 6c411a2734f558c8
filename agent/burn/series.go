package burn

import (
	"math"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// maxBuckets is how many buckets a series has at most; then two become one, of twice the length.
const maxBuckets = 600

// bucket is what the samples of one stretch of time come to.
type bucket struct {
	sum, least, most float64
	n                int
}

func (b *bucket) add(o bucket) {
	if o.n == 0 {
		return
	}
	if b.n == 0 {
		*b = o
		return
	}
	b.sum, b.n = b.sum+o.sum, b.n+o.n
	b.least, b.most = min(b.least, o.least), max(b.most, o.most)
}

// series gathers samples of one value.
type series struct {
	name, component, unit string
	start                 time.Time
	length                time.Duration
	buckets               []bucket
}

func (s *series) add(at time.Time, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return // JSON has no word for it, and neither has a machine
	}
	if len(s.buckets) == 0 {
		s.start = at
	}
	i := max(0, int(at.Sub(s.start)/s.length))
	for i >= maxBuckets {
		s.halve()
		i = max(0, int(at.Sub(s.start)/s.length))
	}
	for len(s.buckets) <= i {
		s.buckets = append(s.buckets, bucket{})
	}
	s.buckets[i].add(bucket{v, v, v, 1})
}

func (s *series) halve() {
	half := s.buckets[:0]
	for i := 0; i < len(s.buckets); i += 2 {
		b := s.buckets[i]
		if i+1 < len(s.buckets) {
			b.add(s.buckets[i+1])
		}
		half = append(half, b)
	}
	s.buckets, s.length = half, 2*s.length
}

func (s *series) series() fleet.Series {
	out := fleet.Series{Name: s.name, Component: s.component, Unit: s.unit, Start: s.start.UTC(), Bucket: s.length.Seconds()}
	n := len(s.buckets)
	out.Mean, out.Min, out.Max = make([]*float64, n), make([]*float64, n), make([]*float64, n)
	for i, b := range s.buckets {
		if b.n > 0 {
			mean := b.sum / float64(b.n)
			out.Mean[i], out.Min[i], out.Max[i] = &mean, &b.least, &b.most
		}
	}
	return out
}
