package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// h100 is what metalctl says of the first GPU of testdata/smi.xml.
func h100() fleet.GPU {
	gpu, memory, margin, slow, shut, no, valid := 32, 41, 55, -2, -8, false, true
	on := fleet.Pending{Now: "on", Next: "on"}
	return fleet.GPU{Index: 0, Vendor: "nvidia", ModuleID: 2, UUID: "GPU-1", Serial: "1650000001", Model: "NVIDIA H100 80GB HBM3", Part: "692-2G520-0200-000", Board: "0x1b00",
		PCIAddress: "0000:1b:00.0", PCIDevice: "10de:2330", PCISubsystem: "10de:16c1", MemoryBytes: 81559 << 20, BAR1Bytes: 131072 << 20, Virtualization: "none",
		VBIOS: "96.00.99.00.01", InfoROM: map[string]string{"image": "G520.0200.00.05", "oem": "2.1", "ecc": "7.16"}, InfoROMValid: &valid, GSP: "570.172.08",
		PCIe: &fleet.PCIeLink{Generation: 5, Width: 16, MaxGeneration: 5, MaxWidth: 16},
		ECC:  &fleet.ECC{Mode: on, Aggregate: fleet.ECCCounts{Corrected: 7, DRAMCorrected: 7}, SRAMThreshold: &no}, Persistence: "on", ComputeMode: "default",
		RemappedRows: &fleet.RemappedRows{Banks: map[string]int64{"max": 2560}}, MIG: &fleet.Pending{Now: "off", Next: "off"}, Recovery: "none",
		Clocks: &fleet.GPUClocks{MaxSM: 1980, MaxMemory: 2619}, Power: &fleet.GPUPower{Draw: 70500, Limit: 700000, Default: 700000}, ClockReasons: []string{"idle"},
		Temperatures: &fleet.Temperatures{GPU: &gpu, Memory: &memory, Margin: &margin, SlowdownLimit: &slow, ShutdownLimit: &shut},
		Fabric:       &fleet.GPUFabric{State: "completed", Status: "success"}}
}

func differences(t *testing.T, gpus ...fleet.GPU) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "inventory.json")
	b, err := json.Marshal(fleet.Inventory{GPUDriver: &fleet.GPUDriver{Name: "nvidia", Version: "570.172.08", CUDA: "12.8"}, GPUs: gpus})
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	n, err := run(&out, "", file, "testdata/smi.xml", false)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != n+2 {
		t.Fatalf("%d differences:\n%s", n, out.String())
	}
	var got []string
	for _, l := range lines[1 : n+1] {
		f := strings.Fields(l)
		got = append(got, f[0]+" "+f[1])
	}
	return got
}

func TestCompare(t *testing.T) {
	second := fleet.GPU{Index: 1, Vendor: "nvidia", Model: "NVIDIA H100 80GB HBM3", PCIAddress: "0000:43:00.0"}
	if got := differences(t, h100(), second); len(got) > 0 {
		t.Errorf("equal ones differ: %v", got)
	}
	worse := h100()
	worse.Serial, worse.RemappedRows.Pending, worse.Power.Limit, *worse.Temperatures.GPU, worse.ClockReasons = "1650000002", true, 500000, 80, []string{"hw-thermal-slowdown"}
	third := fleet.GPU{Index: 2, Vendor: "nvidia", Model: "NVIDIA H100 80GB HBM3", PCIAddress: "0000:52:00.0"}
	got := differences(t, worse, third)
	const at = "0000:1b:00.0 "
	want := []string{at + "serial", at + "remapped_rows/remapped_row_pending", at + "temperature/gpu_temp", at + "gpu_power_readings/current_power_limit",
		at + "clocks_event_reasons/clocks_event_reason_hw_thermal_slowdown", "0000:52:00.0 gpu", "0000:43:00.0 gpu"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("-got +want:\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{"nothing": "", "no XML": "NVIDIA-SMI has failed", "another document": "<a><b>c</b></a>", "cut short": "<nvidia_smi_log><driver_version>5",
		"endless": strings.Repeat("<a>", 100)} {
		if _, err := parse([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`<nvidia_smi_log><driver_version>5</driver_version><gpu id="00000000:1B:00.0"><pci><x>1</x></pci></gpu></nvidia_smi_log>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if log, err := parse(b); err == nil {
			compare(fleet.Inventory{}, log)
		}
	})
}
