package gpu

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func after(g fleet.GPUCleaned) map[string]string {
	out := map[string]string{}
	for _, s := range g.Settings {
		out[s.Name] = s.After
	}
	return out
}

// What a tenant set is put back, read back, and stays so for whoever looks next.
func TestCleanPutsBackWhatATenantSet(t *testing.T) {
	opts, pci := board(t, "10de:2330", "570.172.08", `
gpu.0.mig.now = on
gpu.0.mig.next = on
gpu.0.compute_mode = prohibited
gpu.0.persistence = on
gpu.0.power.limit = 400000
gpu.0.clocks.default_sm = 1500
gpu.0.clocks.default_memory = 2619
gpu.0.clocks.application_sm = 600
gpu.0.clocks.application_memory = 2619
`)
	for try := range 2 {
		got := Clean(t.Context(), opts, pci, fleet.CleanGPUs{Persistence: "off"})
		if got.Unseen != "" || got.Driver != "570.172.08" || len(got.GPUs) != 8 {
			t.Fatalf("%+v", got)
		}
		for _, g := range got.GPUs {
			if len(g.Faults) > 0 || !g.Whole || g.Serial == "" || g.ModuleID == 0 {
				t.Errorf("try %d: %+v", try, g)
			}
		}
		g := got.GPUs[0]
		want := map[string]string{"MIG": "off", "ECC": "on", "compute mode": "default", "persistence": "off", "SM application clock": "1500 MHz", "memory application clock": "2619 MHz",
			"locked SM clock": "", "locked memory clock": "", "power limit": "700000 mW"}
		if d := cmp.Diff(after(g), want); d != "" {
			t.Errorf("try %d: %s", try, d)
		}
		for _, s := range g.Settings {
			changed := s.Before != "" && s.Before != s.Asked
			if expect := try == 0 && slices.Contains([]string{"MIG", "compute mode", "persistence", "SM application clock", "power limit"}, s.Name); changed != expect {
				t.Errorf("try %d: %s changed: %v, want %v: %+v", try, s.Name, changed, expect, s)
			}
		}
	}
	if r := read(t, opts, pci); r.GPUs[0].MIG.Now != "off" || r.GPUs[0].ComputeMode != "default" || r.GPUs[0].Power.Limit != 700000 {
		t.Errorf("the next one to look sees %+v", r.GPUs[0])
	}
}

func TestAGPUThatIsNotPutBackHasAFault(t *testing.T) {
	for name, c := range map[string]struct{ conf, want string }{
		"the driver refuses":               {"gpu.2.persistence = on\ngpu.2.fault.nvmlDeviceSetPersistenceMode = return 4", "persistence is on, and was to be off (nvmlDeviceSetPersistenceMode: no permission)"},
		"the driver says so and does not":  {"gpu.2.compute_mode = prohibited\ngpu.2.fault.nvmlDeviceSetComputeMode = ignore", "compute mode is prohibited, and was to be default (nvmlDeviceSetComputeMode: done)"},
		"it acts at the next reset":        {"gpu.2.ecc.now = off\ngpu.2.ecc.next = off", "ECC is off, on after the next reset, and was to be on"},
		"MIG acts at the next reset":       {"gpu.2.mig.at_reset = true\ngpu.2.mig.now = on\ngpu.2.mig.next = on", "MIG is on, off after the next reset, and was to be off"},
		"a process is left":                {"gpu.2.process.0 = 4711 compute 1024 python", "process 4711 uses it"},
		"memory is in use":                 {"gpu.2.memory.used_mib = 65", "68157440 bytes of its memory are in use"},
		"nobody can tell who uses it":      {"gpu.2.fault.nvmlDeviceGetComputeRunningProcesses_v3 = return 999", "who uses it cannot be read (nvmlDeviceGetComputeRunningProcesses_v3: unknown error)"},
		"nobody can tell the memory":       {"absent = nvmlDeviceGetMemoryInfo_v2", "the memory in use cannot be read"},
		"a setting cannot be read":         {"gpu.2.fault.nvmlDeviceGetMigMode = return 999", "MIG cannot be read (nvmlDeviceGetMigMode: unknown error)"},
		"it is lost":                       {"gpu.2.lost = true", "GPU is lost"},
		"the driver has no such GPU":       {"gpu.2.missing = true", "not found"},
		"a call takes its process along":   {"gpu.2.fault.nvmlDeviceGetPersistenceMode = crash", "the helper ended in nvmlDeviceGetPersistenceMode"},
		"locked clocks cannot be unlocked": {"gpu.2.fault.nvmlDeviceResetGpuLockedClocks = return 4", "locked SM clock cannot be reset"},
	} {
		t.Run(name, func(t *testing.T) {
			opts, pci := board(t, "10de:2330", "570.172.08", c.conf+"\n")
			got := Clean(t.Context(), opts, pci[2:4], fleet.CleanGPUs{Persistence: "off"})
			if len(got.GPUs) != 2 || !strings.Contains(strings.Join(got.GPUs[0].Faults, "; "), c.want) {
				t.Fatalf("got %+v, want %q", got, c.want)
			}
			if other := got.GPUs[1]; !strings.HasPrefix(c.conf, "absent") && (len(other.Faults) > 0 || !other.Whole) {
				t.Errorf("the one beside it: %+v", other)
			}
		})
	}
}

func TestCleanHangsOnOneGPUOnly(t *testing.T) {
	opts, pci := board(t, "10de:2330", "570.172.08", "gpu.1.fault.nvmlDeviceGetEccMode = sleep 3600000\n")
	opts.after = hanging(pci[1].Address, "nvmlDeviceGetEccMode")
	got := Clean(t.Context(), opts, pci[:3], fleet.CleanGPUs{})
	for i, g := range got.GPUs {
		if bad := len(g.Faults) > 0; bad != (i == 1) || g.Whole == bad {
			t.Errorf("GPU %d: %+v", i, g)
		}
	}
}

func TestSettingsThatAreKept(t *testing.T) {
	opts, pci := board(t, "10de:2330", "570.172.08", "gpu.0.mig.now = on\ngpu.0.mig.next = on\ngpu.0.persistence = on\n")
	got := Clean(t.Context(), opts, pci[:1], fleet.CleanGPUs{MIG: "keep"})
	g := got.GPUs[0]
	if _, there := after(g)["ECC"]; len(g.Faults) > 0 || !there {
		t.Errorf("%+v", g)
	}
	for _, name := range []string{"MIG", "persistence"} {
		if _, there := after(g)[name]; there {
			t.Errorf("%s was looked at", name)
		}
	}
	if r := read(t, opts, pci[:1]); r.GPUs[0].MIG.Now != "on" || r.GPUs[0].Persistence != "on" {
		t.Errorf("%+v", r.GPUs[0])
	}
}

func TestWithoutADriverNobodyLooked(t *testing.T) {
	opts, pci := board(t, "10de:2330", "570.172.08", "fault.nvmlInit_v2 = return 9\n")
	if got := Clean(t.Context(), opts, pci, fleet.CleanGPUs{}); len(got.GPUs) > 0 || !strings.Contains(got.Unseen, "kernel driver is not loaded") {
		t.Errorf("%+v", got)
	}
	amd := []fleet.PCI{{Address: "0000:01:00.0", Vendor: "1002", Class: "120000"}}
	for want, list := range map[string][]fleet.PCI{"only NVIDIA's GPUs": amd, "PCI shows no GPU": nil} {
		if got := Clean(t.Context(), opts, list, fleet.CleanGPUs{}); !strings.Contains(got.Unseen, want) {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
	opts.Helper = nil
	if got := Clean(t.Context(), opts, pci, fleet.CleanGPUs{}); got.Unseen == "" {
		t.Errorf("%+v", got)
	}
}
