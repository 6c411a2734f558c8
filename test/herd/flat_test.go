package herd

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// warm is how old a server must be before its size is judged: by then it has opened every BMC.
const warm = 90 * time.Second

// drift is the median of the slopes between all pairs of points (Theil and Sen), in units per minute: a few outliers do not move it.
func drift(at []time.Duration, v []float64) float64 {
	var slopes []float64
	for i := range at {
		for j := range i {
			if d := (at[i] - at[j]).Minutes(); d > 0 {
				slopes = append(slopes, (v[i]-v[j])/d)
			}
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	slices.Sort(slopes)
	return slopes[len(slopes)/2]
}

// flat judges whether the server grows. Within one life: the median slope of memory of its own, heap, goroutines and descriptors after the warm-up, over the
// lives' samples together, may not come to more than a third of the median, and a slack, in ten minutes. From life to life: the median of the last third of the lives
// may not be more than a fourth above that of the first third, so that what the store gathers is seen, too.
func flat(t *testing.T, all []sample) {
	t.Helper()
	for _, what := range []struct {
		name string
		of   func(sample) float64
		// slack is what may come and go without being growth.
		slack float64
	}{
		{"MiB of its own", func(s sample) float64 { return s.own }, 60},
		{"MiB heap goal", func(s sample) float64 { return s.heap }, 60},
		{"goroutines", func(s sample) float64 { return s.goroutines }, 400},
		{"descriptors", func(s sample) float64 { return s.descriptors }, 400},
	} {
		var slopes, values []float64
		lives := map[int][]sample{}
		for _, s := range all {
			if s.age >= warm {
				lives[s.server] = append(lives[s.server], s)
				values = append(values, what.of(s))
			}
		}
		var order []int
		for server, life := range lives {
			order = append(order, server)
			if len(life) < 4 {
				continue
			}
			var at []time.Duration
			var v []float64
			for _, s := range life {
				at, v = append(at, s.age), append(v, what.of(s))
			}
			slopes = append(slopes, drift(at, v))
		}
		if len(slopes) == 0 {
			fmt.Printf("soak: too few samples after %s of a server's life to judge %s\n", warm, what.name)
			continue
		}
		slices.Sort(slopes)
		slices.Sort(values)
		slices.Sort(order)
		mid, slope := values[len(values)/2], slopes[len(slopes)/2]
		third := max(1, len(order)/3)
		first, last := middle(lives, order[:third], what.of), middle(lives, order[len(order)-third:], what.of)
		fmt.Printf("soak: %-14s median %6.0f, at most %6.0f; within a life %+.1f a minute (median of %d lives), from the first lives to the last %.0f → %.0f\n",
			what.name, mid, values[len(values)-1], slope, len(slopes), first, last)
		if slope*10 > mid/3+what.slack {
			t.Errorf("%s grow within a life by %.1f a minute", what.name, slope)
		}
		if len(order) >= 3 && last > first*1.25+what.slack {
			t.Errorf("%s grow from life to life: %.0f → %.0f", what.name, first, last)
		}
	}
}

func middle(lives map[int][]sample, which []int, of func(sample) float64) float64 {
	var v []float64
	for _, server := range which {
		for _, s := range lives[server] {
			v = append(v, of(s))
		}
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// sample is the server's size at a moment of its life.
type sample struct {
	server int // which of the servers
	age    time.Duration
	// own is what the process alone has in memory, without what it maps of its store and its program; MiB. heap is the collector's goal, MiB,
	// which follows what is alive and does not swing with each collection.
	own, heap               float64
	goroutines, descriptors float64
}

func (s *soak) sample(server int, age time.Duration) sample {
	u, m := s.usage(), s.metrics()
	x := sample{server: server, age: age, own: float64(u.own) / mib, heap: m["go_memstats_next_gc_bytes"] / mib, goroutines: m["go_goroutines"], descriptors: float64(s.descriptors())}
	if os.Getenv("METALCTL_SOAK_SAMPLES") != "" {
		fmt.Printf("soak: server %d, %s old: %.0f MiB of its own, %.0f MiB heap goal, %.0f goroutines, %.0f descriptors\n", server, age.Round(time.Second), x.own, x.heap, x.goroutines, x.descriptors)
	}
	return x
}

// TestFlat: what grows is told from what only wavers.
func TestFlat(t *testing.T) {
	at := []time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute}
	for name, tc := range map[string]struct {
		v    []float64
		want float64
	}{
		"steady":              {[]float64{5, 5, 5, 5, 5}, 0},
		"growing":             {[]float64{10, 12, 14, 16, 18}, 2},
		"wavering":            {[]float64{10, 14, 10, 14, 10}, 0},
		"one outlier":         {[]float64{10, 10, 90, 10, 10}, 0},
		"growing and outlier": {[]float64{10, 12, 90, 16, 18}, 2},
	} {
		if got := drift(at, tc.v); got != tc.want {
			t.Errorf("%s: %.1f a minute, want %.1f", name, got, tc.want)
		}
	}
}
