package gpu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fixtures/nvml"
	"github.com/metalctl/metalctl/fleet"
)

// TestMain becomes the helper where a test starts this binary as one: go-nvml has one library a process.
func TestMain(m *testing.M) {
	if os.Getenv("METALCTL_TEST_GPU_HELPER") != "" {
		if err := Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// board is a machine of eight GPUs of a kind, as its PCI shows them and with what NVML says; faults are lines of its file.
func board(t testing.TB, device, driver, faults string) (Options, []fleet.PCI) {
	t.Helper()
	if !WithNVIDIA {
		t.Skip("hardware: built without cgo")
	}
	modules := []int{2, 4, 1, 3, 7, 5, 6, 8}
	var ids []nvml.Identity
	var pci []fleet.PCI
	for i := range 8 {
		address := fmt.Sprintf("0000:%02x:00.0", 0x18+0x10*i)
		ids = append(ids, nvml.Identity{PCI: address, Device: device, Subsystem: "10de:16c1", Module: modules[i], Serial: fmt.Sprint(1650000000 + i),
			UUID: fmt.Sprintf("GPU-00000000-0000-0000-0000-00000000000%d", i), Model: "NVIDIA of eight", Part: "692-0", VBIOS: "96.00", MemoryMiB: 81559, Generation: 5, Width: 16})
		pci = append(pci, fleet.PCI{Address: address, Vendor: "10de", Device: device[5:], Class: "030200", NUMANode: i / 4, Speed: "32.0 GT/s PCIe", MaxSpeed: "32.0 GT/s PCIe", Width: 16, MaxWidth: 16})
	}
	switches := []string{"0000:05:00.0", "0000:06:00.0", "0000:07:00.0", "0000:08:00.0"}
	if device == "10de:20b2" {
		switches = append(switches, "0000:09:00.0", "0000:0a:00.0")
	}
	conf, err := nvml.Compose(driver, ids, switches)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lib, err := nvml.Serve(t.Context(), dir, append(conf, faults...))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("METALCTL_TEST_GPU_HELPER", "1")
	return Options{Files: sysfs.New(t.TempDir()), Helper: []string{"/proc/self/exe"}, Library: lib, CallTimeout: 90 * time.Second, OpenTimeout: 90 * time.Second}, pci
}

// hanging makes the clock of one call for one GPU run out at once, and no other.
func hanging(address, function string) func(string, string, time.Duration) (<-chan time.Time, func() bool) {
	return func(who, call string, d time.Duration) (<-chan time.Time, func() bool) {
		if who == address && call == function {
			c := make(chan time.Time, 1)
			c <- time.Time{}
			return c, func() bool { return true }
		}
		t := time.NewTimer(d)
		return t.C, t.Stop
	}
}

// read is Read with a bound that says the test's name.
func read(t *testing.T, opts Options, pci []fleet.PCI) Reading {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	r := Read(ctx, opts, pci)
	if err := ctx.Err(); err != nil {
		t.Fatalf("%v; so far %+v", err, r)
	}
	return r
}

func TestReadBoards(t *testing.T) {
	for _, c := range []struct{ name, device, driver string }{
		{"a100", "10de:20b2", "550.163.01"}, {"h100", "10de:2330", "570.172.08"}, {"h200", "10de:2335", "570.172.08"}, {"b200", "10de:2901", "595.91.07"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts, pci := board(t, c.device, c.driver, "")
			r := read(t, opts, pci)
			got := struct {
				Driver  *fleet.GPUDriver
				First   fleet.GPU
				Missing []fleet.Missing
			}{r.Driver, r.GPUs[0], r.Missing}
			golden(t, c.name, got)
			ends := map[string]int{}
			for i, g := range r.GPUs {
				if g.Index != i || g.Lost != "" || g.NUMANode != i/4 || len(g.P2P) != 7 || g.P2P[fmt.Sprint((i+1)%8)] != "ok" {
					t.Errorf("GPU %d: index %d, lost %q, numa %d, p2p %v", i, g.Index, g.Lost, g.NUMANode, g.P2P)
				}
				for _, l := range g.NVLinks {
					if l.Remote != nil && l.Remote.Port != nil {
						ends[fmt.Sprint(l.Remote.PCIAddress, *l.Remote.Port)]++
					}
				}
			}
			if want := map[string]int{"a100": 96, "h100": 144, "h200": 144}[c.name]; len(ends) != want {
				t.Errorf("links lead to %d ports, want %d", len(ends), want)
			}
		})
	}
}

func golden(t *testing.T, name string, got any) {
	t.Helper()
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".json")
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(b)+"\n", string(want)); diff != "" {
		t.Errorf("%s (-got +want):\n%s", file, diff)
	}
}

func TestNoCallTwice(t *testing.T) {
	calls := filepath.Join(t.TempDir(), "calls")
	opts, pci := board(t, "10de:2330", "570.172.08", "calls = "+calls+"\n")
	if r := read(t, opts, pci); len(r.GPUs) != 8 {
		t.Fatalf("%d GPUs", len(r.GPUs))
	}
	b, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	count, processes := map[string]int{}, map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			t.Fatalf("%q", line)
		}
		processes[f[0]] = true
		if strings.HasPrefix(f[1], "nvmlInit") || strings.HasPrefix(f[1], "nvmlDeviceGetHandle") {
			f[1] = f[0] + " " + f[1] // each process opens for itself, once
		}
		count[strings.Join(f[1:], " ")]++
	}
	for call, n := range count {
		if n > 1 {
			t.Errorf("%d times %s", n, call)
		}
	}
	if len(processes) != 9 || count["nvmlDeviceGetFieldValues 3 118"] != 1 {
		t.Errorf("%d processes; the fields were not asked in one call: %v", len(processes), slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool { return !strings.Contains(l, "FieldValues") }))
	}
}

// others checks that all GPUs but one were read whole.
func others(t *testing.T, r Reading, but int) {
	t.Helper()
	if len(r.GPUs) != 8 {
		t.Fatalf("%d GPUs", len(r.GPUs))
	}
	for _, g := range r.GPUs {
		if g.PCIAddress == fmt.Sprintf("0000:%02x:00.0", 0x18+0x10*but) {
			continue
		}
		if g.Lost != "" || g.Index < 0 || len(g.NVLinks) != 18 || g.Recovery != "none" || len(g.P2P) != 6 {
			t.Errorf("%s was spoiled: lost %q, index %d, %d links, p2p %v", g.PCIAddress, g.Lost, g.Index, len(g.NVLinks), g.P2P)
		}
	}
}

func missing(r Reading, what string) string {
	for _, m := range r.Missing {
		if m.What == what {
			return m.Why
		}
	}
	return ""
}

func at(t *testing.T, r Reading, address string) fleet.GPU {
	t.Helper()
	for _, g := range r.GPUs {
		if g.PCIAddress == address {
			return g
		}
	}
	t.Fatalf("no GPU at %s", address)
	return fleet.GPU{}
}

func TestFindingsOfOneGPU(t *testing.T) {
	const address = "0000:48:00.0" // GPU 3
	for name, c := range map[string]struct {
		faults    string
		lost, why string
		serial    string // what was read before it happened
	}{
		"lost":                     {"gpu.3.lost = true", fleet.GPULostBus, "nvmlDeviceGetHandleByPciBusId_v2: GPU is lost", ""},
		"lost half-way":            {"gpu.3.fault.nvmlDeviceGetEccMode = return 15", fleet.GPULostBus, "nvmlDeviceGetEccMode: GPU is lost", "1650000003"},
		"unknown to the driver":    {"gpu.3.missing = true", fleet.GPULostUnknown, "PCI shows it, the driver does not have it", ""},
		"opening hangs":            {"gpu.3.fault.nvmlDeviceGetHandleByPciBusId_v2 = sleep 3600000", fleet.GPULostHung, "no answer in nvmlDeviceGetHandleByPciBusId_v2", ""},
		"a call hangs":             {"gpu.3.fault.nvmlDeviceGetRemappedRows = sleep 3600000", fleet.GPULostHung, "no answer in nvmlDeviceGetRemappedRows", "1650000003"},
		"the library crashes":      {"gpu.3.fault.nvmlDeviceGetPowerUsage = crash", fleet.GPULostCrashed, "the helper ended in nvmlDeviceGetPowerUsage: ", "1650000003"},
		"it needs a reset":         {"gpu.3.fault.nvmlDeviceGetHandleByPciBusId_v2 = return 16", fleet.GPULostFailed, "GPU requires reset", ""},
		"it answers with no sense": {"gpu.3.fault.nvmlDeviceGetHandleByPciBusId_v2 = return 77", fleet.GPULostFailed, "return code 77", ""},
	} {
		t.Run(name, func(t *testing.T) {
			opts, pci := board(t, "10de:2330", "570.172.08", c.faults+"\n")
			if function, _, hangs := strings.Cut(strings.TrimPrefix(c.faults, "gpu.3.fault."), " = sleep"); hangs {
				opts.after = hanging(address, function)
			}
			r := read(t, opts, pci)
			others(t, r, 3)
			g := at(t, r, address)
			if !strings.HasPrefix(g.Lost, c.lost+":") || !strings.Contains(g.Lost, c.why) || g.Serial != c.serial || g.NUMANode != 0 {
				t.Errorf("lost %q, want %s: ...%s; serial %q, want %q", g.Lost, c.lost, c.why, g.Serial, c.serial)
			}
			if why := missing(r, "gpu/"+address); !strings.Contains(why, c.why) {
				t.Errorf("missing says %q of it", why)
			}
		})
	}
}

// TestAHungGPUCostsItsOwnDeadlineOnly: the time of the call that hangs runs out only when all others have told everything.
func TestAHungGPUCostsItsOwnDeadlineOnly(t *testing.T) {
	const address, function = "0000:48:00.0", "nvmlDeviceGetRemappedRows"
	opts, pci := board(t, "10de:2330", "570.172.08", "gpu.3.fault."+function+" = sleep 3600000\n")
	var mu sync.Mutex
	told := map[string]bool{}
	over := make(chan time.Time)
	real := opts.filled().after
	opts.after = func(who, call string, d time.Duration) (<-chan time.Time, func() bool) {
		switch {
		case who == address && call == function:
			return over, func() bool { return true }
		case who != "" && who != address && call == "budget": // stopped at the end of an answer
			return nil, func() bool {
				mu.Lock()
				defer mu.Unlock()
				if told[who] = true; len(told) == len(pci)-1 {
					close(over)
				}
				return true
			}
		}
		return real(who, call, d)
	}
	r := read(t, opts, pci)
	others(t, r, 3)
	if g := at(t, r, address); !strings.HasPrefix(g.Lost, fleet.GPULostHung+":") || g.Serial == "" {
		t.Errorf("the one that hangs: lost %q, serial %q", g.Lost, g.Serial)
	}
}
