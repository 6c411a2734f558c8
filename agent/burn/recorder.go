package burn

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// maxSeries bounds what samplers can make a part hold.
const maxSeries = 2000

// derived are measured values that samples come to while GPUs are loaded.
var derived = []struct {
	sample, check string
	of            func(bucket) float64
}{
	{"temperature", "gpu-temperature-max", most},
	{"memory-temperature", "gpu-memory-temperature-max", most},
	{"power", "gpu-power-load", mean},
	{"sm-clock", "gpu-sm-clock-load", mean},
	{"pcie-generation", "gpu-pcie-generation-load", least},
	{"pcie-width", "gpu-pcie-width-load", least},
}

func most(b bucket) float64  { return b.most }
func least(b bucket) float64 { return b.least }
func mean(b bucket) float64  { return b.sum / float64(b.n) }

// recorder keeps the samples of a stage; it may be used by many goroutines.
type recorder struct {
	mu     sync.Mutex // guards what follows
	all    map[[2]string]*series
	loaded map[[2]string]*bucket // of GPUs, while they were loaded
	from   time.Time             // samples after this are of loaded GPUs; zero: none are
	closed bool
}

func newRecorder() *recorder {
	return &recorder{all: map[[2]string]*series{}, loaded: map[[2]string]*bucket{}}
}

// warm is how long GPUs take to come to load: clocks and links are not up at once.
const warm = 5 * time.Second

// under says that the load begins, in the machine's time. Only what stresses GPUs counts as theirs.
func (r *recorder) under(now time.Time, stress []string) {
	if !slices.ContainsFunc(stress, func(name string) bool { s, ok := fleet.FindStressor(name); return ok && s.Part == "gpu" }) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from = now.Add(warm)
}

// over says that the load has ended.
func (r *recorder) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from = time.Time{}
}

func (r *recorder) add(at time.Time, samples []fleet.Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	for _, x := range samples {
		key := [2]string{x.Name, x.Component}
		s := r.all[key]
		if s == nil {
			if len(r.all) == maxSeries {
				continue
			}
			s = &series{name: x.Name, component: x.Component, unit: x.Unit, length: period}
			r.all[key] = s
		}
		s.add(at, x.Value)
		if r.from.IsZero() || at.Before(r.from) || !strings.HasPrefix(x.Component, "gpu/") {
			continue
		}
		if r.loaded[key] == nil {
			r.loaded[key] = &bucket{}
		}
		r.loaded[key].add(bucket{x.Value, x.Value, x.Value, 1})
	}
}

// series ends the recording.
func (r *recorder) series() []fleet.Series {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	var out []fleet.Series
	for _, s := range r.all {
		if len(s.buckets) > 0 {
			out = append(out, s.series())
		}
	}
	slices.SortFunc(out, func(a, b fleet.Series) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Component, b.Component))
	})
	return out
}

// measured is what the samples under load come to.
func (r *recorder) measured() []fleet.Measured {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []fleet.Measured
	for _, d := range derived {
		c, _ := fleet.FindMeasured(d.check)
		for key, b := range r.loaded {
			if key[0] == d.sample {
				out = append(out, fleet.Measured{Check: d.check, Component: key[1], Value: d.of(*b), Unit: c.Unit, N: int64(b.n), Min: b.least, Max: b.most})
			}
		}
	}
	slices.SortFunc(out, func(a, b fleet.Measured) int {
		return cmp.Or(strings.Compare(a.Check, b.Check), strings.Compare(a.Component, b.Component))
	})
	return out
}
