package cleaning

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

var t0 = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func raw(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// machine is a run that erased two disks, with another one that nobody accepted.
func machine(t *testing.T) Traces {
	t.Helper()
	run := func(name string, params, evidence any) fleet.StepRun {
		return fleet.StepRun{Name: name, State: fleet.StepFinished, StartedAt: t0, FinishedAt: t0.Add(time.Minute), Params: raw(t, params), Evidence: raw(t, evidence)}
	}
	params := step.EraseParams{Accepted: []fleet.AcceptedDevice{{Serial: "A", Model: "DISK"}, {Serial: "B", Model: "DISK"}}, Level: "purge"}
	return Traces{
		Node: fleet.Node{ID: "id1", Name: "n1", Class: "hgx", Dirty: "lease-1", BMC: fleet.BMC{Vendor: "V", Model: "M"}, Boot: fleet.BootRecord{Program: "v1"}},
		Operation: fleet.Operation{ID: "op1", Use: "clean", Plan: "sha256:1", Generation: 3, StartedAt: t0, Steps: []fleet.StepRun{
			run(step.CompareClass, nil, nil),
			run(step.EraseDisks, params, map[string]any{"blob": "sha256:aa", "erased": []map[string]any{{"serial": "A"}, {"serial": "B"}}}),
			run(step.VerifyErase, params, map[string]any{"verified": []map[string]any{{"serial": "A", "sampled_bytes": 4096, "reads_as": "zeros"}, {"serial": "B", "sampled_bytes": 1, "reads_as": "what it leaves"}}}),
			run(step.CleanBoot, nil, map[string]any{"removed": []string{"Boot0001 system"}, "left": []string{"Boot0000 UiApp"}}),
		}},
		Attachments: map[string]json.RawMessage{"sha256:aa": raw(t, map[string]any{"evidence": []map[string]any{
			{"serial": "A", "path": "/dev/sda", "method": "zeros", "claim": "clear", "canaries_written": 1024, "sampled_bytes": 8192, "sampled_places": 2, "sampled_zero": true, "finished": t0},
			{"serial": "B", "path": "/dev/nvme0n1", "method": "nvme sanitize: block erase", "claim": "purge", "cdw10": "0x000002", "log_after": "ffff0100", "canaries_written": 1, "sampled_bytes": 1, "sampled_places": 1, "finished": t0},
		}})},
		Inventory: &fleet.Inventory{System: fleet.System{Serial: "S1", BIOS: "1.2"}, TPM: &fleet.TPM{Version: "2.0"},
			Disks: []fleet.Disk{{Serial: "A", SizeBytes: 1}, {Serial: "C", SizeBytes: 1}, {Name: "sr0", SizeBytes: 1, Removable: true}, {Name: "sr1"}, {Name: "sdz", Serial: "Z", SizeBytes: 1, BootMedium: true}},
			GPUs:  []fleet.GPU{{Index: 0, Serial: "G1", ModuleID: 5, Model: "NVIDIA H200"}}, HCAs: []fleet.HCA{{Name: "mlx5_0", NodeGUID: "0x1"}}},
		Now: t0.Add(time.Hour),
	}
}

func find(t *testing.T, r fleet.CleaningRecord, component string) fleet.CleanedComponent {
	t.Helper()
	for _, x := range r.Components {
		if x.Component == component {
			return x
		}
	}
	t.Fatalf("the record has no %s: %+v", component, r.Components)
	return fleet.CleanedComponent{}
}

func TestARecordNamesEveryComponent(t *testing.T) {
	got := Compose(machine(t))
	want := map[string]fleet.CleanResult{
		"disk/A": fleet.CleanDone, "disk/B": fleet.CleanDone, "disk/C": fleet.CleanNotDone, "disk/sr0": fleet.CleanNotDone, "disk/Z": fleet.CleanNotDone,
		"firmware/boot-entries": fleet.CleanDone, "firmware/variables": fleet.CleanNotDone, "firmware/versions": fleet.CleanNotDone,
		"gpu/5": fleet.CleanNotDone, "gpu-memory": fleet.CleanNotDone, "hca/mlx5_0": fleet.CleanNotDone, "tpm": fleet.CleanNotDone, "memory": fleet.CleanNotDone, "bmc": fleet.CleanNotDone,
	}
	results := map[string]fleet.CleanResult{}
	for _, x := range got.Components {
		results[x.Component] = x.Result
		if x.Result == fleet.CleanNotDone && x.Why == "" {
			t.Errorf("%s was not dealt with, and nothing says why", x.Component)
		}
	}
	if d := cmp.Diff(results, want); d != "" {
		t.Error(d)
	}
	wantDisk := fleet.CleanedComponent{Component: "disk/B", Identity: "B", Model: "DISK", Result: fleet.CleanDone, Asked: "erased, at least purge", Method: "nvme sanitize: block erase", Level: "purge",
		Said: "took the command 0x000002; sanitize completed by its log", ReadBack: "0 of 1 marker blocks found; 1 bytes at 1 place read as constant or random; 1 byte read again as what it leaves",
		Step: step.EraseDisks, At: t0}
	if d := cmp.Diff(find(t, got, "disk/B"), wantDisk); d != "" {
		t.Error(d)
	}
	if got.Data != "lease-1" || got.Serial != "S1" || got.Operation != "op1" || got.Agent != "v1" || !got.Complete {
		t.Errorf("head %+v", got)
	}
	if want := "2026-11-01T13:00:00Z: 3 cleaned, 11 not done"; got.Summary() != want {
		t.Errorf("summary %q, want %q", got.Summary(), want)
	}
}

func TestWhatIsNotShownIsNotCleaned(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(*Traces)
		component string
		result    fleet.CleanResult
		why       string
	}{
		"a disk failed": {func(x *Traces) {
			x.Attachments["sha256:aa"] = raw(t, map[string]any{"evidence": []map[string]any{{"serial": "B", "method": "zeros"}}})
			s := &x.Operation.Steps[1]
			s.State, s.Error = fleet.StepFailed, &fleet.Problem{Code: "MC-X", Detail: "one of two", Faults: []fleet.Fault{{Component: "disk/A", Evidence: "I/O error"}}}
		}, "disk/A", fleet.CleanFailed, "I/O error"},
		"erased, and never read again": {func(x *Traces) {
			x.Operation.Steps[2] = fleet.StepRun{Name: step.VerifyErase, State: fleet.StepPending}
		}, "disk/A", fleet.CleanFailed, "erased, and not read again: the plan ended before verify-erase"},
		"read again, and data are left": {func(x *Traces) {
			s := &x.Operation.Steps[2]
			s.State, s.Error = fleet.StepFailed, &fleet.Problem{Faults: []fleet.Fault{{Component: "disk/A", Evidence: "an old file system"}}}
		}, "disk/A", fleet.CleanFailed, "an old file system"},
		"the erasing never began": {func(x *Traces) {
			x.Operation.Steps[1].State, x.Operation.Steps[1].Evidence = fleet.StepPending, nil
		}, "disk/A", fleet.CleanNotDone, "the plan ended before erase-disks"},
		"the end of the erasing was not seen": {func(x *Traces) {
			x.Operation.Steps[1].State, x.Operation.Steps[1].Evidence = fleet.StepStarted, nil
		}, "disk/A", fleet.CleanNotDone, "nobody saw erase-disks end"},
		"no UEFI": {func(x *Traces) {
			x.Operation.Steps[3].Evidence = raw(t, map[string]string{"skipped": "no EFI"})
		}, "firmware/boot-entries", fleet.CleanNotDone, "no EFI"},
		"the firmware refuses": {func(x *Traces) {
			s := &x.Operation.Steps[3]
			s.State, s.Error = fleet.StepFailed, &fleet.Problem{Faults: []fleet.Fault{{Component: "firmware/boot-entries", Evidence: "read-only"}}}
		}, "firmware/boot-entries", fleet.CleanFailed, "read-only"},
		"no inventory": {func(x *Traces) { x.Inventory, x.Unread = nil, "it is gone" }, "inventory", fleet.CleanNotDone, "nobody knows which further components the machine has: it is gone"},
		"another BIOS than the class's": {func(x *Traces) {
			x.Class = fleet.Class{Name: "hgx", Expect: fleet.ClassExpect{Firmware: fleet.ExpectFirmware{BIOS: "1.3"}}}
		}, "firmware/versions", fleet.CleanFailed, "BIOS is 1.2, class hgx wants 1.3"},
		"the class's BIOS": {func(x *Traces) {
			x.Class = fleet.Class{Name: "hgx", Expect: fleet.ClassExpect{Firmware: fleet.ExpectFirmware{BIOS: "1.2"}}}
		}, "firmware/versions", fleet.CleanChecked, ""},
	} {
		t.Run(name, func(t *testing.T) {
			x := machine(t)
			c.change(&x)
			got := find(t, Compose(x), c.component)
			if got.Result != c.result || !strings.Contains(got.Why, c.why) {
				t.Errorf("%s is %q: %q; want %q: %q", c.component, got.Result, got.Why, c.result, c.why)
			}
		})
	}
}

func TestGPUs(t *testing.T) {
	used := int64(1 << 20)
	gpu := fleet.GPUCleaned{PCIAddress: "0000:18:00.0", Serial: "G1", Whole: true, MemoryUsedBytes: &used,
		Settings: []fleet.GPUSetting{{Name: "MIG", Before: "on", Asked: "off", Said: "done", After: "off"}, {Name: "persistence", Before: "off", Asked: "off", After: "off"}}}
	for name, c := range map[string]struct {
		change func(*fleet.GPUCleaning)
		result fleet.CleanResult
		text   string
	}{
		"put back":         {func(*fleet.GPUCleaning) {}, fleet.CleanDone, "MIG was on, is off; persistence off; 1048576 bytes in use"},
		"as it should be":  {func(g *fleet.GPUCleaning) { g.GPUs[0].Settings = g.GPUs[0].Settings[1:] }, fleet.CleanChecked, "persistence off; 1048576 bytes in use"},
		"a fault":          {func(g *fleet.GPUCleaning) { g.GPUs[0].Faults = []string{"process 1 uses it"} }, fleet.CleanFailed, "process 1 uses it"},
		"not gone through": {func(g *fleet.GPUCleaning) { g.GPUs[0].Whole = false }, fleet.CleanFailed, "not gone through whole"},
		"no driver":        {func(g *fleet.GPUCleaning) { *g = fleet.GPUCleaning{Unseen: "no driver"} }, fleet.CleanNotDone, "not looked at: no driver"},
		"another address":  {func(g *fleet.GPUCleaning) { g.GPUs[0].PCIAddress = "0000:99:00.0" }, fleet.CleanNotDone, "clean-gpus recorded nothing of it"},
	} {
		t.Run(name, func(t *testing.T) {
			x := machine(t)
			x.Inventory.GPUs[0].PCIAddress = "0000:18:00.0"
			did := fleet.GPUCleaning{Driver: "570", GPUs: []fleet.GPUCleaned{gpu}}
			c.change(&did)
			x.Attachments["g"] = raw(t, did)
			x.Operation.Steps = append(x.Operation.Steps, fleet.StepRun{Name: step.CleanGPUs, State: fleet.StepFinished, Evidence: raw(t, map[string]any{"blob": "g"})})
			got := find(t, Compose(x), "gpu/5")
			if got.Result != c.result || got.ReadBack+got.Why != c.text && !strings.Contains(got.Why, c.text) {
				t.Errorf("%+v, want %s %q", got, c.result, c.text)
			}
		})
	}
}

func TestMemory(t *testing.T) {
	off := step.StayedOff{Since: t0, Until: t0.Add(61 * time.Second), Readings: 31}
	done := fleet.StepRun{Name: step.StayOff, State: fleet.StepFinished, Params: raw(t, step.StayOffParams{Seconds: 60}), Evidence: raw(t, off)}
	failed := fleet.StepRun{Name: step.StayOff, State: fleet.StepFailed, Error: &fleet.Problem{Code: "MC-NODE-RUNNING", Detail: "it is On"}}
	for name, c := range map[string]struct {
		run    *fleet.StepRun
		policy string
		result fleet.CleanResult
		text   string
	}{
		"it was off":              {&done, fleet.CleanColdCycle, fleet.CleanDone, "off for 60 s|off from 2026-11-01T12:00:00Z to 2026-11-01T12:01:01Z|off at each of 31 readings; boot 3 came after|"},
		"somebody switched it on": {&failed, fleet.CleanColdCycle, fleet.CleanNotDone, "|||stay-off failed: MC-NODE-RUNNING it is On"},
		"kept":                    {nil, fleet.CleanKeep, fleet.CleanKept, "|||the class says so"},
		"nothing is asked":        {nil, "", fleet.CleanNotDone, "|||the class asks for no cold cycle"},
	} {
		t.Run(name, func(t *testing.T) {
			x := machine(t)
			x.Class.Clean.Memory = c.policy
			if c.run != nil {
				x.Operation.Steps = append([]fleet.StepRun{*c.run}, x.Operation.Steps...)
			}
			got := find(t, Compose(x), "memory")
			if text := got.Asked + "|" + got.Said + "|" + got.ReadBack + "|" + got.Why; got.Result != c.result || text != c.text {
				t.Errorf("%s %q, want %s %q", got.Result, text, c.result, c.text)
			}
		})
	}
}

func TestHCAs(t *testing.T) {
	differ := func(component, words string) map[string]any {
		return map[string]any{"differences": []fleet.Difference{{Component: component, Words: words}}}
	}
	for name, c := range map[string]struct {
		evidence  any
		component string
		result    fleet.CleanResult
		text      string
	}{
		"as accepted":                 {map[string]any{"differences": nil}, "hca/mlx5_0", fleet.CleanChecked, "0 contexts, 3 resources of the kernel's own|node GUID 0x1; port 1 0x2; firmware 28|"},
		"another GUID":                {differ("hca/mlx5_0", "its node GUID was 0x0 and is 0x1"), "hca/mlx5_0", fleet.CleanFailed, "0 contexts, 3 resources of the kernel's own|node GUID 0x1; port 1 0x2; firmware 28|its node GUID was 0x0 and is 0x1"},
		"one is gone":                 {differ("hca/mlx5_9", "it is gone"), "hca/mlx5_9", fleet.CleanFailed, "||it is gone"},
		"of another component":        {differ("tpm", "it is gone"), "hca/mlx5_0", fleet.CleanChecked, "0 contexts, 3 resources of the kernel's own|node GUID 0x1; port 1 0x2; firmware 28|"},
		"accepted before it was kept": {map[string]any{"skipped": "nothing was kept"}, "hca/mlx5_0", fleet.CleanNotDone, "||nothing was kept"},
	} {
		t.Run(name, func(t *testing.T) {
			x := machine(t)
			x.Inventory.HCAs = []fleet.HCA{{Name: "mlx5_0", NodeGUID: "0x1", Firmware: "28", Ports: []fleet.HCAPort{{Port: 1, GUID: "0x2"}}, Resources: map[string]int64{"qp": 2, "pd": 1}}}
			x.Operation.Steps = append(x.Operation.Steps, fleet.StepRun{Name: step.CompareAccepted, State: fleet.StepFinished, Evidence: raw(t, c.evidence)})
			got := find(t, Compose(x), c.component)
			if text := got.Said + "|" + got.ReadBack + "|" + got.Why; got.Result != c.result || text != c.text {
				t.Errorf("%s %q, want %s %q", got.Result, text, c.result, c.text)
			}
		})
	}
	x := machine(t)
	if got := find(t, Compose(x), "hca/mlx5_0"); got.Result != fleet.CleanNotDone || got.Why != "the plan has no step compare-accepted" {
		t.Errorf("%+v", got)
	}
	x.Inventory.Missing = []fleet.Missing{{What: "hca resources", Why: "the kernel has no RDMA netlink"}}
	x.Operation.Steps = append(x.Operation.Steps, fleet.StepRun{Name: step.CompareAccepted, State: fleet.StepFinished, Evidence: raw(t, map[string]any{"differences": nil})})
	if got := find(t, Compose(x), "hca/mlx5_0"); got.Said != "what is open was not told: the kernel has no RDMA netlink" {
		t.Errorf("%+v", got)
	}
}

func TestNamespaces(t *testing.T) {
	x := machine(t)
	x.Operation.Steps = append(x.Operation.Steps, fleet.StepRun{Name: step.RestoreNS, State: fleet.StepFailed, Evidence: raw(t, map[string]any{"blob": "n"}), Error: &fleet.Problem{
		Faults: []fleet.Fault{{Component: "disk/C", Evidence: "it refuses"}}}})
	x.Attachments["n"] = raw(t, map[string]any{"namespaces": []map[string]any{
		{"serial": "A", "after": []map[string]any{{"size_bytes": 8, "block_bytes": 512}}},
		{"serial": "B", "did": []string{"attached namespace 1"}, "after": []map[string]any{{"size_bytes": 8, "block_bytes": 4096}}},
		{"serial": "C", "did": []string{"failed: it refuses"}},
	}})
	got := Compose(x)
	for serial, want := range map[string]string{"A": "checked||8 bytes in blocks of 512|", "B": "cleaned|attached namespace 1|8 bytes in blocks of 4096|", "C": "failed|failed: it refuses||it refuses"} {
		c := find(t, got, "disk/"+serial+"/namespaces")
		if text := strings.Join([]string{string(c.Result), c.Said, c.ReadBack, c.Why}, "|"); text != want {
			t.Errorf("%s: %q, want %q", serial, text, want)
		}
	}
}

func TestVariables(t *testing.T) {
	found := map[string]any{"differences": []fleet.Difference{{Component: "firmware/variables/PK-1", Want: "1 bytes", Got: "absent", Words: "PK is gone"}}, "remove_variables": map[string][]string{"g": {"X"}}}
	for name, c := range map[string]struct {
		compared, cleaned any // nil: no such step
		failed            bool
		component         string
		result            fleet.CleanResult
		text              string
	}{
		"none is new":       {map[string]any{"remove_variables": map[string]any{}}, map[string]any{"removed": []string{}}, false, "firmware/variables", fleet.CleanChecked, "no new one||"},
		"one is removed":    {found, map[string]any{"removed": []string{"X-g"}}, false, "firmware/variables", fleet.CleanDone, "|gone: X-g|"},
		"one is gone":       {found, map[string]any{"removed": []string{"X-g"}}, false, "firmware/variables/PK-1", fleet.CleanFailed, "|absent|PK is gone"},
		"one stays":         {found, map[string]any{"removed": []string{}}, true, "firmware/variables", fleet.CleanFailed, "||clean-variables failed: MC-X it stays"},
		"nobody could tell": {map[string]any{"variables_unknown": "no idea"}, map[string]any{"skipped": "nobody said"}, false, "firmware/variables", fleet.CleanNotDone, "||no idea"},
		"no UEFI":           {found, map[string]any{"skipped": "not by UEFI"}, false, "firmware/variables", fleet.CleanNotDone, "||not by UEFI"},
		"an older plan":     {nil, nil, false, "firmware/variables", fleet.CleanNotDone, "||the plan has no step compare-accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			x := machine(t)
			if c.compared != nil {
				x.Operation.Steps = append(x.Operation.Steps, fleet.StepRun{Name: step.CompareAccepted, State: fleet.StepFinished, Evidence: raw(t, c.compared)})
			}
			if c.cleaned != nil {
				r := fleet.StepRun{Name: step.CleanVars, State: fleet.StepFinished, Evidence: raw(t, c.cleaned)}
				if c.failed {
					r.State, r.Error = fleet.StepFailed, &fleet.Problem{Code: "MC-X", Detail: "it stays"}
				}
				x.Operation.Steps = append(x.Operation.Steps, r)
			}
			got := find(t, Compose(x), c.component)
			if text := got.Said + "|" + got.ReadBack + "|" + got.Why; got.Result != c.result || text != c.text {
				t.Errorf("%s %q, want %s %q", got.Result, text, c.result, c.text)
			}
		})
	}
}

func TestTwoNamespacesOfADriveAreTwoLines(t *testing.T) {
	x := machine(t)
	x.Operation.Steps[1].Params = raw(t, step.EraseParams{Level: "clear", Accepted: []fleet.AcceptedDevice{{Serial: "B"}, {Serial: "B"}}})
	x.Operation.Steps[2].Evidence = raw(t, map[string]any{"verified": []map[string]any{{"serial": "B", "reads_as": "zeros"}}})
	x.Attachments["sha256:aa"] = raw(t, map[string]any{"evidence": []map[string]any{{"serial": "B", "path": "/dev/nvme0n1", "method": "zeros"}, {"serial": "B", "path": "/dev/nvme0n2", "method": "zeros"}}})
	var got []fleet.CleanResult
	for _, c := range Compose(x).Components {
		if c.Component == "disk/B" {
			got = append(got, c.Result)
		}
	}
	// The second one was not read again.
	if d := cmp.Diff(got, []fleet.CleanResult{fleet.CleanDone, fleet.CleanFailed}); d != "" {
		t.Error(d)
	}
}

func TestARunThatNeverTouchedAnythingLeavesNoRecord(t *testing.T) {
	op := machine(t).Operation
	if !Began(op) {
		t.Error("a run that erased has nothing to record")
	}
	for i := range op.Steps {
		op.Steps[i].StartedAt = time.Time{}
	}
	op.Steps[0].StartedAt = t0 // compare-class looks only
	if Began(op) {
		t.Error("a run that only looked has something to record")
	}
	op.Steps[1].StartedAt, op.Use = t0, "deploy"
	if Began(op) {
		t.Error("deploying is no cleaning")
	}
}

// What agents send is believed no further than it can be read.
func FuzzCompose(f *testing.F) {
	f.Add(`{"erased":[{"serial":"A"}],"blob":"b"}`, `{"evidence":[{"serial":"A","method":"zeros","log_after":"ffff0100"}]}`)
	f.Add(`{"removed":["x"],"left":null,"skipped":1}`, `[]`)
	f.Fuzz(func(t *testing.T, evidence, attachment string) {
		x := Traces{Attachments: map[string]json.RawMessage{"b": json.RawMessage(attachment)}, Inventory: &fleet.Inventory{}}
		params := raw(t, step.EraseParams{Accepted: []fleet.AcceptedDevice{{Serial: "A"}}})
		for _, name := range touching {
			x.Operation.Steps = append(x.Operation.Steps, fleet.StepRun{Name: name, State: fleet.StepFinished, Params: params, Evidence: json.RawMessage(evidence)})
		}
		for _, c := range Compose(x).Components {
			if (c.Result == fleet.CleanNotDone || c.Result == fleet.CleanFailed) && c.Why == "" {
				t.Errorf("%s is %s, and nothing says why", c.Component, c.Result)
			}
		}
	})
}
