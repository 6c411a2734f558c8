package gpu

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSamples(t *testing.T) {
	opts, targets := loadable(t, "10de:2330", "gpu.2.power.draw = 654321\ngpu.3.ecc.volatile.dram.uncorrected = 4\ngpu.5.throttled.hw_thermal = 77\n")
	s := NewSampler(opts, targets)
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	for range 2 { // the second time of the same children
		got, err := s.Sample(ctx)
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, v := range got {
			values[v.Component+" "+v.Name+" "+v.Unit] = v.Value
		}
		if len(got) != len(values) || len(values) != 8*13 {
			t.Errorf("%d values, %d of them different: %v", len(got), len(values), got)
		}
		want := map[string]float64{"gpu/2 power W": 654.321, "gpu/3 ecc-uncorrected errors": 4, "gpu/5 throttled-hw-thermal-slowdown ns": 77, "gpu/0 pcie-width lanes": 16}
		for name := range want {
			if d := cmp.Diff(values[name], want[name]); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
}

// A GPU that hangs is told about and not asked again; the others go on.
func TestSamplesOfAGPUThatHangs(t *testing.T) {
	opts, targets := loadable(t, "10de:2330", "gpu.4.fault.nvmlDeviceGetPowerUsage = sleep 3600000\n")
	opts.after = hanging(targets[4].PCI, "nvmlDeviceGetPowerUsage")
	s := NewSampler(opts, targets)
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	for range 2 {
		got, err := s.Sample(ctx)
		if err == nil || !strings.Contains(err.Error(), "gpu/4: no answer in nvmlDeviceGetPowerUsage") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
		seen := map[string]bool{}
		for _, v := range got {
			seen[v.Component] = true
		}
		if len(seen) != 7 || seen["gpu/4"] {
			t.Errorf("%v", seen)
		}
	}
}
