package gpu

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	fixture "github.com/metalctl/metalctl/fixtures/cuda"
	"github.com/metalctl/metalctl/fleet"
)

// said collects what a load tells; the last value of a check and component counts.
type said struct {
	mu       sync.Mutex
	measured map[string]fleet.Measured
	untold   []fleet.Untold
	wrong    []string
}

func (s *said) Measured(m fleet.Measured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measured[m.Check+" "+m.Component] = m
}

func (s *said) Untold(u fleet.Untold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.untold = append(s.untold, u)
}

func (s *said) Wrong(component, words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, component+": "+words)
}

// loadable is the board with a driver library beside NVIDIA's management library, and its GPUs as targets.
func loadable(t testing.TB, device, faults string) (Options, []Target) {
	t.Helper()
	opts, pci := board(t, device, "570.172.08", faults)
	lib, err := fixture.Serve(t.Context(), filepath.Dir(opts.Library))
	if err != nil {
		t.Fatal(err)
	}
	opts.CUDA = lib
	var targets []Target
	for i, p := range pci {
		targets = append(targets, Target{fmt.Sprintf("gpu/%d", i), p.Address})
	}
	return opts, targets
}

// burned loads GPUs for one turn, and holds what was said against the vocabulary.
func burned(t testing.TB, opts Options, stress string, targets []Target) *said {
	t.Helper()
	s := &said{measured: map[string]fleet.Measured{}}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	ran := Burn(ctx, opts, Stress{Name: stress, For: time.Millisecond, Targets: targets}, s)
	if ctx.Err() != nil {
		t.Fatalf("%v: %+v", ctx.Err(), s)
	}
	if ran.Stress != stress || ran.Engine != Engine {
		t.Errorf("ran %+v", ran)
	}
	for _, m := range s.measured {
		if c, ok := fleet.FindMeasured(m.Check); !ok || c.Unit != m.Unit || m.Engine != Engine || len(m.Details) > 20 {
			t.Errorf("%+v", m)
		}
	}
	return s
}

// healthy are checks with the least and most that a healthy H100 of the stand-in shows.
var healthy = map[string]map[string][2]float64{
	fleet.StressGPUMemory:  {"gpu-memory-mismatches": {0, 0}, "gpu-memory-tested": {95, 100}, "gpu-memory-bandwidth": {2900, 3100}},
	fleet.StressGPUCompute: {"gpu-mismatches": {0, 0}, "gpu-int32": {30, 32}, "gpu-fp32": {59, 61}, "gpu-fp64": {30, 32}},
	fleet.StressGPUTensor:  {"gpu-mismatches": {0, 0}, "gpu-bf16": {610, 630}, "gpu-int8": {1200, 1260}},
	fleet.StressGPUPulse:   {"gpu-mismatches": {0, 0}},
	fleet.StressGPUCopy:    {"gpu-copy-mismatches": {0, 0}, "gpu-h2d": {54, 56}, "gpu-d2h": {54, 56}},
}

func TestHealthyGPUs(t *testing.T) {
	for stress, want := range healthy {
		t.Run(stress, func(t *testing.T) {
			opts, targets := loadable(t, "10de:2330", "")
			s := burned(t, opts, stress, targets)
			if len(s.untold) > 0 || len(s.wrong) > 0 {
				t.Errorf("untold %+v, wrong %v", s.untold, s.wrong)
			}
			for _, target := range targets {
				for check, bounds := range want {
					m, ok := s.measured[check+" "+target.Component]
					if !ok || m.Value < bounds[0] || m.Value > bounds[1] || m.N == 0 && check != "gpu-memory-tested" || len(m.Details) > 0 {
						t.Errorf("%s of %s: %+v, want %v", check, target.Component, m, bounds)
					}
				}
				if m := s.measured["gpu-kernel-load "+target.Component]; m.Value <= 0 {
					t.Errorf("kernels of %s were compiled in %v s", target.Component, m.Value)
				}
			}
			if m := s.measured["gpu-peer gpu/0/peer/1"]; stress == fleet.StressGPUCopy && (m.Value < 370 || m.Value > 390) {
				t.Errorf("%+v", m)
			}
		})
	}
}

// A fault is found at the right GPU, and no other is suspected.
func TestSickGPUs(t *testing.T) {
	for name, c := range map[string]struct {
		stress, faults, check, component string
		details                          string
	}{
		"a bit does not keep":              {fleet.StressGPUMemory, "gpu.3.libcuda.flip.0 = 0x40128 17", "gpu-memory-mismatches", "gpu/3", "address 0x7f3000040128, expected 0x"},
		"a bit does not keep now and then": {fleet.StressGPUMemory, "gpu.5.libcuda.flip.0 = 0x80000 63 every 2", "gpu-memory-mismatches", "gpu/5", "bit 63"},
		"an SM computes wrongly":           {fleet.StressGPUCompute, "gpu.2.libcuda.wrong = 5", "gpu-mismatches", "gpu/2", "SM 5, mc_fp32 tile 5, 4 of its launches, 1 words, thread 7: expected 0x"},
		"it does so now and then":          {fleet.StressGPUTensor, "gpu.6.libcuda.wrong = 1 every 5", "gpu-mismatches", "gpu/6", "SM 1, mc_"},
		"only where load changes":          {fleet.StressGPUPulse, "gpu.1.libcuda.wrong = 3 every 7", "gpu-mismatches", "gpu/1", "SM 3, mc_bf16 tile"},
		"what it gets is wrong":            {fleet.StressGPUCopy, "gpu.4.libcuda.corrupt.h2d = every 1", "gpu-copy-mismatches", "gpu/4", "(host to GPU, turn "},
		"what it gives is wrong":           {fleet.StressGPUCopy, "gpu.4.libcuda.corrupt.d2h = every 1", "gpu-copy-mismatches", "gpu/4", "(GPU to host, turn 1)"},
		"what it sends is wrong":           {fleet.StressGPUCopy, "gpu.7.libcuda.corrupt.peer = every 1 to 0", "gpu-peer-mismatches", "gpu/7/peer/0", "(sent by NVLink or PCIe, turn 1)"},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && (c.stress == fleet.StressGPUTensor || c.stress == fleet.StressGPUPulse) {
				t.Skip("long: an SM that computes wrongly is found by one stress in a hurry")
			}
			opts, targets := loadable(t, "10de:2330", c.faults+"\n")
			s := burned(t, opts, c.stress, targets)
			if len(s.untold) > 0 {
				t.Errorf("untold: %+v", s.untold)
			}
			for key, m := range s.measured {
				check, _ := fleet.FindMeasured(m.Check)
				sick := key == c.check+" "+c.component
				if check.Judge != "zero" {
					continue
				}
				if (m.Value != 0) != sick {
					t.Errorf("%s: %+v", key, m)
				}
				if sick && (len(m.Details) == 0 || !strings.Contains(strings.Join(m.Details, "\n"), c.details)) {
					t.Errorf("details %q, want %q", m.Details, c.details)
				}
			}
			if len(s.wrong) != 1 || !strings.HasPrefix(s.wrong[0], c.component+": ") {
				t.Errorf("wrong: %q", s.wrong)
			}
		})
	}
}

func TestSlowGPUsMeasureSlow(t *testing.T) {
	opts, targets := loadable(t, "10de:2330", "gpu.2.libcuda.bandwidth_gbps = 1500\n")
	s := burned(t, opts, fleet.StressGPUMemory, targets)
	for i := range targets {
		m := s.measured[fmt.Sprintf("gpu-memory-bandwidth gpu/%d", i)]
		if slow := m.Value < 2000; slow != (i == 2) {
			t.Errorf("%+v", m)
		}
	}
}

// What keeps a GPU from telling is told as such, and costs no other GPU its result.
func TestGPUsThatDoNotTell(t *testing.T) {
	for name, c := range map[string]struct {
		stress, faults, cause, words string
		all                          bool
	}{
		"the fabric is not ready":          {fleet.StressGPUMemory, "libcuda.fault.cuInit = return 802", "fabric-not-ready", "CUDA_ERROR_SYSTEM_NOT_READY (802): the GPUs wait for the fabric manager", true},
		"NVML says that it is not":         {fleet.StressGPUMemory, "gpu.*.fabric.state = in-progress", "fabric-not-ready", "802", true},
		"library and driver differ":        {fleet.StressGPUMemory, "libcuda.fault.cuInit = return 803", "driver-mismatch", "803", true},
		"the library is too new":           {fleet.StressGPUMemory, "libcuda.fault.cuInit = return 804", "driver-mismatch", "804", true},
		"there is no kernel driver":        {fleet.StressGPUMemory, "fault.nvmlInit_v2 = return 9", "no-device", "CUDA_ERROR_NO_DEVICE (100)", true},
		"nobody knows":                     {fleet.StressGPUMemory, "libcuda.fault.cuInit = return 999", "other", "nvidia-uvm", true},
		"the driver is too old":            {fleet.StressGPUMemory, "libcuda.fault.cuModuleLoadDataEx = return 222", "driver-mismatch", "222", true},
		"the GPU is lost":                  {fleet.StressGPUMemory, "gpu.3.lost = true", "no-device", "cuDeviceGetByPCIBusId: CUDA_ERROR_INVALID_DEVICE (101)", false},
		"somebody has it for himself":      {fleet.StressGPUMemory, "gpu.3.libcuda.fault.cuDevicePrimaryCtxRetain = return 46", "denied", "46", false},
		"its memory is taken":              {fleet.StressGPUMemory, "gpu.3.libcuda.fault.cuMemAlloc_v2 = return 2 after 1", "no-memory", "free", false},
		"a kernel reads where nothing is":  {fleet.StressGPUCompute, "gpu.3.libcuda.fault.cuStreamSynchronize = return 700 after 9", "other", "cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS (700)", false},
		"it crashes":                       {fleet.StressGPUTensor, "gpu.3.libcuda.fault.cuLaunchKernel = crash after 7", "crashed", "the helper ended in cuLaunchKernel", false},
		"its tensor cores are too old":     {fleet.StressGPUTensor, "gpu.3.compute_capability = 7.0", "no-tool", "tensor", false},
		"it crashes while others send too": {fleet.StressGPUCopy, "gpu.3.libcuda.fault.cuMemcpyPeerAsync = crash", "crashed", "the helper ended in cuMemcpyPeerAsync", false},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && (c.stress == fleet.StressGPUTensor || c.stress == fleet.StressGPUCompute) {
				t.Skip("long: the quick stresses tell as much in a hurry")
			}
			opts, targets := loadable(t, "10de:2330", c.faults+"\n")
			s := burned(t, opts, c.stress, targets)
			found := map[string]bool{}
			for _, u := range s.untold {
				if u.Cause == "aborted" && c.stress == fleet.StressGPUCopy { // of the others that its process had
					continue
				}
				found[u.Component] = true
				if u.Cause != c.cause || !strings.Contains(u.Words, c.words) {
					t.Errorf("%+v, want %s: %s", u, c.cause, c.words)
				}
			}
			for i, target := range targets {
				if want := c.all || i == 3; found[target.Component] != want {
					t.Errorf("%s untold: %v, want %v", target.Component, !want, want)
				}
				if _, told := s.measured[checks[c.stress][0]+" "+target.Component]; !told && !c.all && i != 3 {
					t.Errorf("%s told nothing", target.Component)
				}
			}
			if len(s.wrong) > 0 {
				t.Errorf("wrong: %q", s.wrong)
			}
		})
	}
}

func TestNoLibrary(t *testing.T) {
	opts, targets := loadable(t, "10de:2330", "")
	for path, words := range map[string]string{
		"/nowhere/libcuda.so.1": "cannot be opened",
		opts.Library:            "has no cuInit",
	} {
		opts.CUDA = path
		s := burned(t, opts, fleet.StressGPUCompute, targets[:1])
		if len(s.untold) != 4 || s.untold[0].Cause != "no-library" || s.untold[0].Skipped || !strings.Contains(s.untold[0].Words, words) {
			t.Errorf("%s: %+v", path, s.untold)
		}
	}
	opts.Helper = nil
	if s := burned(t, opts, fleet.StressGPUCompute, targets[:1]); len(s.untold) != 4 || s.untold[0].Cause != "no-library" {
		t.Errorf("%+v", s.untold)
	}
	if s := burned(t, opts, fleet.StressGPUCompute, nil); len(s.untold) != 4 || !s.untold[0].Skipped {
		t.Errorf("%+v", s.untold)
	}
}

// TestAHungLoadIsLeftBehind: the one call's time runs out at once, and no other's.
func TestAHungLoadIsLeftBehind(t *testing.T) {
	opts, targets := loadable(t, "10de:2330", "gpu.3.libcuda.fault.cuEventElapsedTime = sleep 3600000\n")
	opts.after = hanging(targets[3].PCI, "cuEventElapsedTime")
	s := burned(t, opts, fleet.StressGPUMemory, targets)
	for i, target := range targets {
		_, told := s.measured["gpu-memory-bandwidth "+target.Component]
		if told != (i != 3) {
			t.Errorf("%s told: %v", target.Component, told)
		}
	}
	if len(s.untold) != 3 || s.untold[0].Component != "gpu/3" || s.untold[0].Cause != "hung" || !strings.Contains(s.untold[0].Words, "cuEventElapsedTime") {
		t.Errorf("%+v", s.untold)
	}
}

// TestALoadIsStopped: a load of an hour ends with its context, and says what it had found.
func TestALoadIsStopped(t *testing.T) {
	opts, targets := loadable(t, "10de:2330", "gpu.1.libcuda.wrong = 2\n")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	opts.after = func(_, call string, d time.Duration) (<-chan time.Time, func() bool) {
		if call == "stop" { // of a machine that is very slow
			d = 90 * time.Second
		}
		timer := time.NewTimer(d)
		return timer.C, timer.Stop
	}
	s := &stopper{said: said{measured: map[string]fleet.Measured{}}, stop: cancel}
	Burn(ctx, opts, Stress{Name: fleet.StressGPUCompute, For: time.Hour, Targets: targets}, s)
	if ctx.Err() != context.Canceled {
		t.Fatal(ctx.Err())
	}
	if m := s.measured["gpu-mismatches gpu/1"]; m.Value == 0 || len(m.Details) == 0 || !strings.Contains(m.Details[0], "SM 2") {
		t.Errorf("%+v", m)
	}
	if slices.ContainsFunc(s.untold, func(u fleet.Untold) bool { return u.Component == "gpu/1" }) {
		t.Errorf("%+v", s.untold)
	}
}

type stopper struct {
	said
	stop func()
}

func (s *stopper) Wrong(component, words string) { s.said.Wrong(component, words); s.stop() }

func TestVotes(t *testing.T) {
	report := func(digests ...uint64) *loadReport {
		sms := make([][]int, len(digests))
		for i := range sms {
			sms[i] = []int{i}
		}
		return &loadReport{Results: []results{{Kernel: "k", Launches: 8, Digests: digests, SMs: sms}}}
	}
	odd := report(1, 2)
	odd.Results[0].Odd = []oddity{{Tile: 1, Digest: 9, SMs: []int{6}, Count: 3}}
	badFirst := report(9, 2) // its first launch was the wrong one
	badFirst.Results[0].Odd = []oddity{{Tile: 0, Digest: 1, SMs: []int{0}, Count: 7}}
	for name, c := range map[string]struct {
		reports map[string]*loadReport
		wrong   map[string]float64
		open    []string
	}{
		"all agree":                    {map[string]*loadReport{"a": report(1, 2), "b": report(1, 2)}, nil, nil},
		"one of three":                 {map[string]*loadReport{"a": report(1, 2), "b": report(1, 3), "c": report(1, 2)}, map[string]float64{"b": 8}, nil},
		"two of two":                   {map[string]*loadReport{"a": report(1, 2), "b": report(1, 3)}, nil, []string{"a", "b"}},
		"half of four":                 {map[string]*loadReport{"a": report(1), "b": report(1), "c": report(2), "d": report(2)}, nil, []string{"a", "b", "c", "d"}},
		"one against itself":           {map[string]*loadReport{"a": odd}, map[string]float64{"a": 3}, nil},
		"its first was wrong":          {map[string]*loadReport{"a": badFirst, "b": report(1, 2)}, map[string]float64{"a": 1}, nil},
		"one of two against itself":    {map[string]*loadReport{"a": odd, "b": report(1, 2)}, map[string]float64{"a": 3}, nil},
		"a smaller GPU has less tiles": {map[string]*loadReport{"a": report(1, 2), "b": report(1), "c": report(1, 2)}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := compareResults(c.reports, nil)
			for _, m := range f.measured() {
				if m.Value != c.wrong[m.Component] {
					t.Errorf("%+v, want %v", m, c.wrong)
				}
			}
			var open []string
			for _, u := range f.untold() {
				open = append(open, u.Component)
			}
			if !slices.Equal(open, c.open) {
				t.Errorf("untold %v, want %v", open, c.open)
			}
		})
	}
}

// TestPeersOfManyTurns: two GPUs copy by their engines and by kernels, and a copy that is wrong is told of both.
func TestPeersOfManyTurns(t *testing.T) {
	opts, targets := loadable(t, "10de:2330", "gpu.0.libcuda.corrupt.peer = every 1\n")
	s := &said{measured: map[string]fleet.Measured{}}
	// The half of it that is for peers has to last for two turns.
	for try := time.Second; ; try *= 4 {
		Burn(t.Context(), opts, Stress{Name: fleet.StressGPUCopy, For: try, Targets: targets[:2]}, s)
		if s.measured["gpu-peer-mismatches gpu/0/peer/1"].N >= 2 || try > time.Minute {
			break
		}
	}
	m := s.measured["gpu-peer-mismatches gpu/0/peer/1"]
	if text := strings.Join(m.Details, "\n"); !strings.Contains(text, "(sent by NVLink or PCIe, turn 1)") || !strings.Contains(text, "(sent by NVLink or PCIe, by a kernel, turn 2)") {
		t.Errorf("%+v", m)
	}
	if m := s.measured["gpu-peer-mismatches gpu/1/peer/0"]; m.Value != 0 || m.N < 2 {
		t.Errorf("%+v", m)
	}
}

// TestRealGPUs needs some: it runs every stress on them for a second.
func TestRealGPUs(t *testing.T) {
	if kernelDriver(Options{}.filled().Files) == "" {
		t.Skip("hardware: no NVIDIA driver is loaded")
	}
	t.Setenv("METALCTL_TEST_GPU_HELPER", "1")
	opts := Options{Helper: []string{"/proc/self/exe"}}
	var targets []Target
	for i, g := range read(t, opts, realGPUs(t)).GPUs {
		targets = append(targets, Target{fmt.Sprintf("gpu/%d", i), g.PCIAddress})
	}
	for stress := range healthy {
		t.Run(stress, func(t *testing.T) {
			s := &said{measured: map[string]fleet.Measured{}}
			Burn(t.Context(), opts, Stress{Name: stress, For: time.Second, Targets: targets}, s)
			if len(s.untold) > 0 || len(s.wrong) > 0 {
				t.Errorf("untold %+v, wrong %v", s.untold, s.wrong)
			}
			for _, m := range s.measured {
				t.Logf("%s %s: %.2f %s", m.Component, m.Check, m.Value, m.Unit)
			}
		})
	}
}

func realGPUs(t *testing.T) (out []fleet.PCI) {
	t.Helper()
	found, err := filepath.Glob("/proc/driver/nvidia/gpus/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		out = append(out, fleet.PCI{Address: filepath.Base(f), Vendor: vendorNVIDIA, Class: "030200"})
	}
	return out
}
