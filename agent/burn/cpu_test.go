package burn

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

func TestKernelsAreDeterministic(t *testing.T) {
	seen := map[uint64]string{}
	for _, k := range Kernels {
		for seed := range uint64(3) {
			a := k.Run(seed, 2)
			if b := k.Run(seed, 2); a != b {
				t.Errorf("%s of %d is %x and %x", k.Name, seed, a, b)
			}
			if was := seen[a]; was != "" {
				t.Errorf("%s of %d is as %s", k.Name, seed, was)
			}
			seen[a] = k.Name
		}
	}
}

func TestBallot(t *testing.T) {
	type result struct {
		core   int
		digest uint64
	}
	for situation, c := range map[string]struct {
		results []result
		wrong   string // core that is named
		values  map[string]float64
		unclear []string
	}{
		"all alike":                              {[]result{{0, 1}, {1, 1}, {0, 1}}, "", map[string]float64{"core/0": 0, "core/1": 0}, nil},
		"one of three differs":                   {[]result{{2, 9}, {0, 1}, {1, 1}}, "core/2", map[string]float64{"core/0": 0, "core/1": 0, "core/2": 1}, nil},
		"one of two contradicts itself":          {[]result{{0, 1}, {1, 1}, {1, 9}}, "core/1", map[string]float64{"core/0": 0, "core/1": 1}, nil},
		"the only one contradicts itself":        {[]result{{0, 1}, {0, 9}}, "core/0", map[string]float64{"core/0": 2}, nil},
		"two of two, each true to itself":        {[]result{{0, 1}, {1, 9}, {0, 1}, {1, 9}}, "", nil, []string{"core/0", "core/1"}},
		"the first that spoke need not be right": {[]result{{0, 9}, {0, 9}, {0, 9}, {1, 1}, {2, 1}}, "core/0", map[string]float64{"core/0": 3, "core/1": 0, "core/2": 0}, nil},
	} {
		t.Run(situation, func(t *testing.T) {
			s := newSink()
			wrong := ""
			s.stop = func(err error) {
				if wrong == "" {
					wrong = err.Error()
				}
			}
			b := &ballot{say: s, boxes: map[box][]vote{}, blamed: map[int]*blame{}}
			cores := map[int]bool{}
			for i, r := range c.results {
				cores[r.core] = true
				b.cast(r.core, int64(i), "sha", 7, r.digest)
			}
			var list []int
			for n := range cores {
				list = append(list, n)
			}
			slices.Sort(list)
			b.close(list)
			measured, untold, _ := s.take()
			got := map[string]float64{}
			for _, m := range measured {
				got[m.Component] = m.Value
			}
			for name, v := range c.values {
				if w, ok := got[name]; !ok || w != v {
					t.Errorf("%s has %g mismatches (%t), want %g", name, w, ok, v)
				}
			}
			if len(got) != len(c.values) || (c.wrong == "") != (wrong == "") || !strings.Contains(wrong, c.wrong) {
				t.Errorf("measured %v, wrong %q, want %q", measured, wrong, c.wrong)
			}
			var unclear []string
			for _, u := range untold {
				unclear = append(unclear, u.Component)
			}
			if !slices.Equal(unclear, c.unclear) {
				t.Errorf("untold %+v, want of %v", untold, c.unclear)
			}
		})
	}
}

func TestThisCPU(t *testing.T) {
	if testing.Short() {
		t.Skip("long: loads all cores for seconds")
	}
	s := newSink()
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = func(err error) { t.Error(err); cancel() }
	cores, err := ThisCPU().Cores()
	if err != nil || len(cores) == 0 {
		t.Fatal(cores, err)
	}
	if err := CPU(ThisCPU())(ctx, Load{Stress: fleet.StressCPU, For: time.Second, Speed: 1}, s); err != nil {
		t.Fatal(err)
	}
	measured, untold, ran := s.take()
	if len(measured) != 2*len(cores) || len(untold) > 0 || len(ran) != 1 {
		t.Errorf("of %d cores: %+v, %+v, %+v", len(cores), measured, untold, ran)
	}
	for _, m := range measured {
		if m.Check == "cpu-mismatches" && m.Value != 0 || m.Check == "cpu-rate" && m.Value <= 0 || m.N == 0 {
			t.Errorf("%+v", m)
		}
	}
}

func BenchmarkKernels(b *testing.B) {
	if os.Getenv("METALCTL_BENCH") != "1" {
		b.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
	for _, k := range Kernels {
		b.Run(k.Name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				k.Run(uint64(i), fullScale)
			}
		})
	}
}
