package gpu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

func TestFindingsOfTheMachine(t *testing.T) {
	for name, c := range map[string]struct {
		faults, hangs string
		library       string // instead of the fixture's
		why           string
	}{
		"no library":              {library: "/nowhere/libnvidia-ml.so.1", why: "NVIDIA's library cannot be opened"},
		"another library":         {library: "libm.so.6", why: "has no nvmlInit"},
		"no driver":               {faults: "fault.nvmlInit_v2 = return 9", why: "kernel driver is not loaded"},
		"versions differ":         {faults: "fault.nvmlInit_v2 = return 18", why: "of different versions"},
		"starting hangs":          {faults: "fault.nvmlInit_v2 = sleep 3600000", hangs: "nvmlInit_v2", why: "no answer in nvmlInit_v2"},
		"starting crashes":        {faults: "fault.nvmlInit_v2 = crash", why: "the helper ended in nvmlInit_v2: exit status 2 (SIGSEGV"},
		"a driver before NVML 4":  {faults: "absent = nvmlInit_v2 nvmlInit", why: "has no nvmlInit"},
		"starting means anything": {faults: "fault.nvmlInit_v2 = return 4242", why: "nvmlInit_v2: return code 4242"},
	} {
		t.Run(name, func(t *testing.T) {
			opts, pci := board(t, "10de:2330", "570.172.08", c.faults+"\n")
			if c.library != "" {
				opts.Library = c.library
			}
			if c.hangs != "" {
				opts.after = hanging("", c.hangs)
			}
			r := read(t, opts, pci)
			if why := missing(r, "gpus"); !strings.Contains(why, c.why) {
				t.Errorf("it says %q, want %q (%v)", why, c.why, r.Missing)
			}
			if len(r.GPUs) != 8 || r.GPUs[7].Index != -1 || r.GPUs[7].PCIe == nil || r.GPUs[7].PCIe.Generation != 5 || r.GPUs[7].Lost != "" {
				t.Errorf("GPUs by PCI: %+v", r.GPUs)
			}
		})
	}
}

func TestAnOldDriver(t *testing.T) {
	absent := []string{"nvmlDeviceGetModuleId", "nvmlDeviceGetMemoryInfo_v2", "nvmlSystemGetConfComputeState", "nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetTemperatureV",
		"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetSramEccErrorStatus", "nvmlDeviceGetPciInfo_v3"}
	opts, pci := board(t, "10de:2330", "450.80.02", "gpu.0.ecc.volatile.sram.corrected = 4\nabsent = "+strings.Join(absent, " ")+"\n")
	r := read(t, opts, pci)
	for what, symbol := range map[string]string{"gpus module_id": absent[0], "gpus memory used": absent[1], "gpus confidential_compute": absent[2], "gpus ecc sram_threshold_exceeded": absent[6]} {
		if why := missing(r, what); why != "the driver is too old for it: its library has no "+symbol {
			t.Errorf("%s: %q", what, why)
		}
	}
	g := r.GPUs[0]
	if g.Lost != "" || g.ModuleID != 0 || g.MemoryBytes != 81559<<20 || g.MemoryUsedBytes != nil || g.Fabric == nil || g.Fabric.State != "completed" ||
		g.Temperatures == nil || *g.Temperatures.GPU != 32 || !slices.Equal(g.ClockReasons, []string{"idle"}) || g.ECC.Volatile.SRAMCorrected != 4 {
		t.Errorf("what older functions tell is not there: %+v", g)
	}
}

func TestWhatGPUsSay(t *testing.T) {
	for name, c := range map[string]struct {
		faults string
		check  func(g fleet.GPU) (got, want any)
	}{
		"memory errors": {"gpu.2.ecc.volatile.dram.uncorrected = 1\ngpu.2.ecc.aggregate.sram.parity = 2\ngpu.2.ecc.aggregate.sram.uncorrected = 3\ngpu.2.ecc.sram_threshold_exceeded = true",
			func(g fleet.GPU) (any, any) {
				yes := true
				return *g.ECC, fleet.ECC{Mode: fleet.Pending{Now: "on", Next: "on"}, Volatile: fleet.ECCCounts{Uncorrected: 1, DRAMUncorrected: 1},
					Aggregate: fleet.ECCCounts{Uncorrected: 3, SRAMUncorrected: 3}, SRAMThreshold: &yes}
			}},
		"rows": {"gpu.2.remapped.uncorrectable = 3\ngpu.2.remapped.pending = true\ngpu.2.remapped.failure = true\ngpu.2.remapped.banks = 2550 5 3 1 1", func(g fleet.GPU) (any, any) {
			return *g.RemappedRows, fleet.RemappedRows{Uncorrectable: 3, Pending: true, Failure: true, Banks: map[string]int64{"max": 2550, "high": 5, "partial": 3, "low": 1, "none": 1}}
		}},
		"a link that is down": {"gpu.2.link.7.state = down", func(g fleet.GPU) (any, any) { return g.NVLinks[7].State + g.NVLinks[8].State, "downup" }},
		"a slow link":         {"gpu.2.link.7.speed_mbps = 13281", func(g fleet.GPU) (any, any) { return g.NVLinks[7].SpeedGBps, 13.281 }},
		"wrong wiring": {"gpu.2.link.7.remote = 0000:08:00.0 12", func(g fleet.GPU) (any, any) {
			port := 12
			return *g.NVLinks[7].Remote, fleet.NVLinkEnd{Kind: "switch", PCIAddress: "0000:08:00.0", Port: &port}
		}},
		"errors of a link": {"gpu.2.link.7.errors.crc = 9\ngpu.2.link.7.errors.recovery = 1", func(g fleet.GPU) (any, any) {
			return g.NVLinks[7].Errors, map[string]int64{"crc": 9, "recovery": 1}
		}},
		"throttling": {"gpu.2.clock_reasons = 0x48\ngpu.2.throttled.hw_thermal = 77", func(g fleet.GPU) (any, any) {
			return append(g.ClockReasons, time.Duration(g.ThrottledNS["hw-thermal-slowdown"]).String()), []string{"hw-slowdown", "hw-thermal-slowdown", "77ns"}
		}},
		"fabric": {"gpu.2.fabric.health = 0x12a9\ngpu.2.fabric.status = 999\ngpu.2.fabric.clique = 7\ngpu.2.fabric.cluster = 0123456789abcdef0123456789abcdef", func(g fleet.GPU) (any, any) {
			return *g.Fabric, fleet.GPUFabric{State: "completed", Status: "unknown error", Clique: 7, Cluster: "01234567-89ab-cdef-0123-456789abcdef",
				Unhealthy: []string{"degraded-bandwidth", "incorrect-system-guid"}}
		}},
		"a wish for a reset": {"gpu.2.recovery_action = drain-and-reset", func(g fleet.GPU) (any, any) { return g.Recovery, "drain-and-reset" }},
		"leftovers": {"gpu.2.process.0 = 4711 compute 1048576 python3 train.py\ngpu.2.process.1 = 4712 graphics 5 Xorg\ngpu.2.memory.used_mib = 9", func(g fleet.GPU) (any, any) {
			return append(g.Processes, fleet.GPUProcess{MemoryBytes: *g.MemoryUsedBytes}), []fleet.GPUProcess{
				{PID: 4711, Name: "python3 train.py", Kind: "compute", MemoryBytes: 1 << 20}, {PID: 4712, Name: "Xorg", Kind: "graphics", MemoryBytes: 5}, {MemoryBytes: 9 << 20}}
		}},
		"modes": {"gpu.2.mig.now = on\ngpu.2.persistence = off\ngpu.2.compute_mode = prohibited", func(g fleet.GPU) (any, any) {
			return g.MIG.Now + g.MIG.Next + g.Persistence + g.ComputeMode, "onoffoffprohibited"
		}},
		"InfoROM": {"gpu.2.inforom.valid = false", func(g fleet.GPU) (any, any) { return *g.InfoROMValid, false }},
		"P2P": {"gpu.2.p2p.5 = 4", func(g fleet.GPU) (any, any) {
			return g.P2P["2"] + ", " + g.P2P["1"], "disabled by the driver's settings, ok"
		}},
		"PCIe": {"gpu.2.pcie.width = 8\ngpu.2.pcie.replays = 55", func(g fleet.GPU) (any, any) {
			return *g.PCIe, fleet.PCIeLink{Generation: 5, Width: 8, MaxGeneration: 5, MaxWidth: 16, Replays: 55}
		}},
		"power": {"gpu.2.power.limit = 500000", func(g fleet.GPU) (any, any) { return g.Power.Limit, int64(500000) }},
		"temperature": {"gpu.2.temperature.margin = -3\ngpu.2.temperature.memory = 104", func(g fleet.GPU) (any, any) {
			return []int{*g.Temperatures.Margin, *g.Temperatures.Memory}, []int{-3, 104}
		}},
		"a lying name": {"gpu.2.name = NVIDIA \xe2\x80\xae evil", func(g fleet.GPU) (any, any) { return g.Model + g.Lost, "NVIDIA   evil" }},
	} {
		t.Run(name, func(t *testing.T) {
			keep := []int{2} // fewer are enough
			if name == "P2P" {
				keep = []int{2, 4, 5}
			}
			for i := range 8 {
				if !slices.Contains(keep, i) {
					c.faults += fmt.Sprintf("\ngpu.%d.missing = true", i)
				}
			}
			opts, all := board(t, "10de:2330", "570.172.08", c.faults+"\n")
			var pci []fleet.PCI
			for _, i := range keep {
				pci = append(pci, all[i])
			}
			r := read(t, opts, pci)
			if len(r.GPUs) != len(keep) {
				t.Errorf("%d GPUs, want %d", len(r.GPUs), len(keep))
			}
			got, want := c.check(at(t, r, all[2].Address))
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("-got +want:\n%s", diff)
			}
		})
	}
}

func TestGPUsThatOnlyTheDriverHas(t *testing.T) {
	opts, pci := board(t, "10de:2330", "570.172.08", "")
	r := read(t, opts, append(slices.Clone(pci[:5]), pci[6:]...))
	if len(r.GPUs) != 8 {
		t.Fatalf("%d GPUs", len(r.GPUs))
	}
	g := at(t, r, pci[5].Address)
	if g.Index != 5 || g.Serial != "1650000005" || g.NUMANode != -1 || g.Lost != "" || len(g.P2P) != 7 {
		t.Errorf("%+v", g)
	}
	if why := missing(r, "gpu/"+pci[5].Address); why != "the driver has it as GPU 5, PCI does not show it" {
		t.Errorf("it says %q (%v)", why, r.Missing)
	}
}

func TestVendorsWithoutLibrary(t *testing.T) {
	root := t.TempDir()
	amd := filepath.Join(root, "sys/bus/pci/devices/0000:05:00.0")
	for name, text := range map[string]string{"unique_id": "8f3c0a1b2c3d4e5f", "vbios_version": "113-M3000100-102", "mem_info_vram_total": "205822885888",
		"mem_info_vram_used": "294912", "pcie_replay_count": "3", "ras/umc_err_count": "ue: 1\nce: 20", "ras/gfx_err_count": "ue: 0\nce: 2", "serial_number": "692413001234"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(amd, name)), 0o755), os.WriteFile(filepath.Join(amd, name), []byte(text+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "sys/bus/pci/drivers/amdgpu"), 0o755), os.Symlink("../../drivers/amdgpu", filepath.Join(amd, "driver"))); err != nil {
		t.Fatal(err)
	}
	r := Read(t.Context(), Options{Files: sysfs.New(root)}, []fleet.PCI{
		{Address: "0000:00:02.0", Vendor: "8086", Device: "1234", Class: "030000"}, // the CPU's own graphics
		{Address: "0000:03:00.0", Vendor: "1a03", Device: "2000", Class: "030000"}, // a BMC's
		{Address: "0000:05:00.0", Vendor: "1002", Device: "74a1", Class: "120000", NUMANode: 1, Speed: "32.0 GT/s PCIe", MaxSpeed: "32.0 GT/s PCIe", Width: 16, MaxWidth: 16},
		{Address: "0000:06:00.0", Vendor: "1002", Device: "74a1", Class: "120000"},
		{Address: "0000:07:00.0", Vendor: "1da3", Device: "1060", Class: "120000"},
	})
	used := int64(294912)
	counts := fleet.ECCCounts{Corrected: 22, Uncorrected: 1, DRAMCorrected: 20, DRAMUncorrected: 1, SRAMCorrected: 2}
	want := Reading{Driver: &fleet.GPUDriver{Name: "amdgpu"}, GPUs: []fleet.GPU{
		{Index: -1, Vendor: "amd", Model: "1002:74a1", PCIAddress: "0000:05:00.0", PCIDevice: "1002:74a1", NUMANode: 1, UUID: "8f3c0a1b2c3d4e5f", Serial: "692413001234",
			VBIOS: "113-M3000100-102", MemoryBytes: 205822885888, MemoryUsedBytes: &used,
			PCIe: &fleet.PCIeLink{Generation: 5, Width: 16, MaxGeneration: 5, MaxWidth: 16, Replays: 3},
			ECC:  &fleet.ECC{Mode: fleet.Pending{Now: "on", Next: "on"}, Volatile: counts, Aggregate: counts}},
		{Index: -1, Vendor: "amd", Model: "1002:74a1", PCIAddress: "0000:06:00.0", PCIDevice: "1002:74a1"},
		{Index: -1, Vendor: "1da3", Model: "1da3:1060", PCIAddress: "0000:07:00.0", PCIDevice: "1da3:1060"},
	}, Missing: []fleet.Missing{{What: "gpu/0000:06:00.0", Why: "no amdgpu driver is bound to it"}}}
	if diff := cmp.Diff(r, want); diff != "" {
		t.Errorf("-got +want:\n%s", diff)
	}
}

// TestAChildThatCannotBeKilled: nothing of a reading waits for it, not even for its pipes.
func TestAChildThatCannotBeKilled(t *testing.T) {
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, theirErrs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirOut.Close()
	defer theirErrs.Close()
	in, theirIn := io.Pipe()
	go func() { _, _ = io.Copy(io.Discard, in) }()
	if _, err := theirOut.WriteString(`{"call":"nvmlInit_v2"}` + "\n"); err != nil {
		t.Fatal(err)
	}
	killed := 0
	c := newChild(Options{after: hanging("", "nvmlInit_v2")}.filled(), theirIn, out, errs, func() { killed++ }, make(chan error))
	var g *gone
	if err := c.ask(t.Context(), request{Survey: true}, func(message) error { return nil }); !errors.As(err, &g) || !g.Hung || g.Call != "nvmlInit_v2" {
		t.Errorf("got %v", err)
	}
	c.end()
	c.end()
	for range c.lines { // its reader let go
	}
	<-c.tail.ended()
	if killed != 1 {
		t.Errorf("killed %d times", killed)
	}
}

func TestAReadingEndsWithItsContext(t *testing.T) {
	opts, pci := board(t, "10de:2330", "570.172.08", "gpu.*.fault.nvmlDeviceGetName = sleep 3600000\n")
	ctx, cancel := context.WithCancel(t.Context())
	opts.after = func(_, call string, d time.Duration) (<-chan time.Time, func() bool) {
		if call == "nvmlDeviceGetName" {
			cancel()
		}
		timer := time.NewTimer(d)
		return timer.C, timer.Stop
	}
	r := Read(ctx, opts, pci)
	if len(r.GPUs) != 8 || missing(r, "gpu/"+pci[0].Address) == "" {
		t.Errorf("%d GPUs, %v", len(r.GPUs), r.Missing)
	}
}

func TestNothingOfNVIDIAs(t *testing.T) {
	r := Read(t.Context(), Options{Files: sysfs.New(t.TempDir()), Helper: []string{"/nowhere/helper"}}, []fleet.PCI{{Address: "0000:00:1f.0", Vendor: "8086", Class: "060100"}})
	if r.Driver != nil || len(r.GPUs)+len(r.Missing) != 0 {
		t.Errorf("%+v", r)
	}
	root := t.TempDir()
	files := map[string]string{"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.172.08  Release Build\nGCC version: 12\n"}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755), os.WriteFile(filepath.Join(root, name), []byte(files[name]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	r = Read(t.Context(), Options{Files: sysfs.New(root), Helper: []string{"/nowhere/helper"}}, nil)
	if r.Driver == nil || r.Driver.Version != "570.172.08" || !strings.Contains(missing(r, "gpus"), "cannot be started") {
		t.Errorf("a driver without helper: %+v", r)
	}
}
