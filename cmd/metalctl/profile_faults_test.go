package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/rdma"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fleet"
	judge "github.com/metalctl/metalctl/fleet/verdict"
)

const faultFiles = "../../fixtures/profiles/faults"

// profileFaults has the one difference that each fault file makes of a profile: code, component, severity and what to do.
var profileFaults = map[string]struct{ profile, want string }{
	"gpu-lost":            {"hgx-h200", "MC-GPU-LOST gpu/3 critical cold-cycle"},
	"gpu-unseen":          {"hgx-h200", "MC-GPU-UNSEEN gpu/3 critical cold-cycle"},
	"gpu-absent":          {"hgx-h200", "MC-GPU-MISSING gpu/3 critical cold-cycle"},
	"gpu-crash":           {"hgx-h200", "MC-GPU-LOST gpu/3 critical cold-cycle"},
	"gpu-refused":         {"hgx-h200", "MC-GPU-LOST gpu/3 critical cold-cycle"},
	"gpu-ecc":             {"hgx-h200", "MC-GPU-ECC gpu/3 critical reset"},
	"gpu-sram":            {"hgx-h200", "MC-GPU-SRAM gpu/3 critical replace"},
	"gpu-remap-pending":   {"hgx-h200", "MC-GPU-REMAP-PENDING gpu/3 critical reset"},
	"gpu-remap-failed":    {"hgx-h200", "MC-GPU-REMAP-FAILED gpu/3 critical replace"},
	"gpu-remapped-many":   {"hgx-h200", "MC-GPU-LIMIT gpu/3 critical replace"},
	"gpu-spares-spent":    {"hgx-h200", "MC-GPU-REMAP-SPENT gpu/3 warning retest"},
	"gpu-inforom":         {"hgx-h200", "MC-GPU-INFOROM gpu/3 critical replace"},
	"gpu-ecc-off":         {"hgx-h200", "MC-GPU-ECC-MODE gpu/3 critical configure"},
	"gpu-mig":             {"hgx-h200", "MC-GPU-MIG gpu/3 critical configure"},
	"gpu-process":         {"hgx-h200", "MC-GPU-RESIDUE gpu/3 critical reboot"},
	"gpu-memory-taken":    {"hgx-h200", "MC-GPU-RESIDUE gpu/3 critical reset"},
	"gpu-thermal":         {"hgx-h200", "MC-GPU-SLOWDOWN gpu/3 critical reseat"},
	"gpu-hot":             {"hgx-h200", "MC-GPU-HOT gpu/3 critical reseat"},
	"gpu-warm":            {"hgx-h200", "MC-GPU-SLOWDOWN gpu/3 warning retest"},
	"power-brake":         {"hgx-h200", "MC-GPU-SLOWDOWN system/power critical reseat"},
	"gpu-power-limit":     {"hgx-h200", "MC-GPU-POWER-LIMIT gpu/3 critical configure"},
	"gpu-compute-mode":    {"hgx-h200", "MC-GPU-COMPUTE-MODE gpu/3 warning configure"},
	"gpu-vbios":           {"hgx-h200", "MC-FIRMWARE-MIXED gpu/3 warning update"},
	"gpu-recovery":        {"hgx-h200", "MC-GPU-RECOVERY gpu/3 critical reset"},
	"gpu-narrow":          {"hgx-h200", "MC-PCIE-WIDTH gpu/3 critical reseat"},
	"nvlink-down":         {"hgx-h200", "MC-NVLINK-DOWN gpu/3/nvlink/7 critical reset"},
	"nvlinks-down":        {"dgx-a100", "MC-NVLINK-DOWN gpu/3/nvlink critical reset"},
	"nvlink-slow":         {"hgx-h200", "MC-NVLINK-SLOW gpu/3/nvlink/2 critical reset"},
	"nvlink-errors":       {"hgx-h200", "MC-NVLINK-ERRORS gpu/3/nvlink/2 warning retest"},
	"nvlink-bit-errors":   {"hgx-b200", "MC-NVLINK-ERRORS gpu/3/nvlink/2 critical reset"},
	"nvlink-wiring":       {"hgx-h200", "MC-NVLINK-WIRING gpu/3/nvlink/7 critical reseat"},
	"fabric-in-progress":  {"hgx-h200", "MC-FABRIC-STATE gpu/3/fabric critical reset"},
	"fabric-degraded":     {"hgx-b200", "MC-FABRIC-HEALTH gpu/3/fabric critical reset"},
	"fabric-manager-gone": {"hgx-h200", "MC-FABRIC-MANAGER fabric critical reboot"},
	"driver-old":          {"hgx-h200", "MC-INVENTORY-UNREAD gpus critical retest"},
	"driver-not-loaded":   {"hgx-h200", "MC-INVENTORY-UNREAD gpus critical retest"},
	"xid-gsp":             {"hgx-h200", "MC-GPU-XID gpu/3 critical reset"},
	"xid-channel":         {"hgx-h200", "MC-GPU-XID gpu/3 critical retest"},
	"gpu-aer":             {"hgx-h200", "MC-PCIE-AER gpu/3 critical reseat"},
	"hca-aer":             {"hgx-h200", "MC-PCIE-AER hca/mlx5_3 warning retest"},
	"hca-port-down":       {"hgx-h200", "MC-HCA-PORT hca/mlx5_3/port/1 critical cable"},
	"hca-slow":            {"hgx-h200", "MC-HCA-RATE hca/mlx5_3/port/1 critical cable"},
	"hca-ethernet":        {"hgx-h200", "MC-HCA-MODE hca/mlx5_3/port/1 critical configure"},
	"hca-partition":       {"hgx-h200", "MC-HCA-PKEY hca/mlx5_3/port/1 critical configure"},
	"hca-symbol-errors":   {"hgx-h200", "MC-HCA-ERRORS hca/mlx5_3/port/1 warning retest"},
	"hca-open":            {"hgx-h200", "MC-HCA-RESIDUE hca/mlx5_3 warning reboot"},
	"hca-absent":          {"hgx-h200", "MC-HCA-MISSING rail/3 critical reseat"},
	"hca-old-slot":        {"hgx-h200", "MC-PCIE-SPEED hca/mlx5_3 critical reseat"},
	"hca-module-hot":      {"hgx-h200", "MC-HCA-ERRORS hca/mlx5_3 warning retest"},
	"drive-absent":        {"hgx-h200", "MC-CLASS-NVME nvme critical reseat"},
	"drive-narrow":        {"hgx-h200", "MC-PCIE-WIDTH disk/nvme4n1 critical reseat"},
	"drive-timeout":       {"hgx-h200", "MC-NVME-ERRORS disk/nvme4n1 warning retest"},
	"dimm-uncorrected":    {"hgx-h200", "MC-DIMM-ERRORS dimm/A5 critical replace"},
	"dimm-corrected":      {"hgx-h200", "MC-DIMM-ERRORS dimm/A5 warning retest"},
	"nvswitch-absent":     {"hgx-h200", "MC-NVSWITCH-MISSING nvswitches critical cold-cycle"},
	"nvswitch-sxid":       {"hgx-h200", "MC-NVSWITCH-SXID nvswitch/1/port/32 critical reset"},
	"switch-uplink":       {"hgx-h200", "MC-PCIE-WIDTH pci/0000:99:00.0 critical reseat"},
	"machine-check":       {"hgx-h200", "MC-CPU-ERROR thread/12 critical replace"},
}

// gpuPart is what the GPUs' reader told of a healthy machine, for faults that do not touch them: a child for each GPU is dear.
type gpuPart struct {
	driver  *fleet.GPUDriver
	gpus    []byte
	missing []fleet.Missing
}

func (g gpuPart) read(context.Context, string, []fleet.PCI) (*fleet.GPUDriver, []fleet.GPU, []fleet.Missing) {
	var gpus []fleet.GPU
	if err := json.Unmarshal(g.gpus, &gpus); err != nil {
		return nil, nil, []fleet.Missing{{What: "gpus", Why: err.Error()}}
	}
	return g.driver, gpus, slices.Clone(g.missing)
}

// TestProfileFaults applies each fault file that ships to a copy of its profile and reads that as an agent would: exactly the one difference follows, at
// the right part, with its severity and what to do.
func TestProfileFaults(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(faultFiles, "*.yaml"))
	if err != nil || len(files) != len(profileFaults) {
		t.Fatalf("%d fault files and %d differences that are expected of them: %v", len(files), len(profileFaults), err)
	}
	doc, err := os.ReadFile("../../docs/inventory.md")
	if err != nil {
		t.Fatal(err)
	}
	folders, healthy := map[string]string{}, map[string]gpuPart{}
	for _, c := range profileFaults {
		if folders[c.profile] != "" || testing.Short() && c.profile != "hgx-h200" {
			continue
		}
		folders[c.profile] = profileFolder(t, c.profile)
		inv := inspected(t, folders[c.profile])
		gpus, err := json.Marshal(inv.GPUs)
		if err != nil {
			t.Fatal(err)
		}
		healthy[c.profile] = gpuPart{inv.GPUDriver, gpus, slices.DeleteFunc(inv.Missing, func(m fleet.Missing) bool { return !strings.HasPrefix(m.What, "gpu") })}
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			c, ok := profileFaults[name]
			if !ok {
				t.Fatal("nobody says what follows from it")
			}
			if !strings.Contains(string(doc), "| `"+name+"` |") {
				t.Error("docs/inventory.md does not list it")
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			faults, err := profiles.ParseFaults(file, b)
			if err != nil {
				t.Fatal(err)
			}
			driver := slices.ContainsFunc(faults.Faults, func(f profiles.Fault) bool { return len(f.NVML) > 0 })
			if testing.Short() && driver && name != "gpu-absent" && name != "nvlink-down" {
				t.Skip("long: two faults of the driver are enough in a hurry")
			}
			dir := smallFiles(t)
			if err := profiles.Copy(folders[c.profile], dir); err != nil {
				t.Fatal(err)
			}
			if err := faults.Apply(dir); err != nil {
				t.Fatal(err)
			}
			read := healthy[c.profile].read
			if driver {
				read = readGPUs
			}
			inv, err := inspect.Read(t.Context(), inspect.Options{Root: dir, GPUs: read, HCAs: rdma.Read})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range judge.Judge(inv, profileClass(t, c.profile)) {
				got = append(got, fmt.Sprintf("%s %s %s %s", d.Code, d.Component, d.Severity, d.Do))
				t.Log(d.Words)
			}
			if diff := cmp.Diff([]string{c.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
