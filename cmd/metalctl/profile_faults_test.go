//go:build !ramdisk

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/gpu"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/rdma"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fleet"
	judge "github.com/metalctl/metalctl/fleet/verdict"
)

// profileFaults has the one difference that each fault file makes of a profile: code, component, severity and what to do. "" is one that shows under load only.
var profileFaults = map[string]struct{ profile, want string }{
	"gpu-lost":             {"hgx-h200", "MC-GPU-LOST gpu/3 critical cold-cycle"},
	"gpu-unseen":           {"hgx-h200", "MC-GPU-UNSEEN gpu/3 critical cold-cycle"},
	"gpu-absent":           {"hgx-h200", "MC-GPU-MISSING gpu/3 critical cold-cycle"},
	"gpu-crash":            {"hgx-h200", "MC-GPU-LOST gpu/3 critical cold-cycle"},
	"gpu-refused":          {"hgx-h200", "MC-GPU-LOST gpu/3 critical cold-cycle"},
	"gpu-ecc":              {"hgx-h200", "MC-GPU-ECC gpu/3 critical reset"},
	"gpu-sram":             {"hgx-h200", "MC-GPU-SRAM gpu/3 critical replace"},
	"gpu-remap-pending":    {"hgx-h200", "MC-GPU-REMAP-PENDING gpu/3 critical reset"},
	"gpu-remap-failed":     {"hgx-h200", "MC-GPU-REMAP-FAILED gpu/3 critical replace"},
	"gpu-remapped-many":    {"hgx-h200", "MC-GPU-LIMIT gpu/3 critical replace"},
	"gpu-spares-spent":     {"hgx-h200", "MC-GPU-REMAP-SPENT gpu/3 warning retest"},
	"gpu-inforom":          {"hgx-h200", "MC-GPU-INFOROM gpu/3 critical replace"},
	"gpu-ecc-off":          {"hgx-h200", "MC-GPU-ECC-MODE gpu/3 critical configure"},
	"gpu-mig":              {"hgx-h200", "MC-GPU-MIG gpu/3 critical configure"},
	"gpu-process":          {"hgx-h200", "MC-GPU-RESIDUE gpu/3 critical reboot"},
	"gpu-memory-taken":     {"hgx-h200", "MC-GPU-RESIDUE gpu/3 critical reset"},
	"gpu-thermal":          {"hgx-h200", "MC-GPU-SLOWDOWN gpu/3 critical reseat"},
	"gpu-hot":              {"hgx-h200", "MC-GPU-HOT gpu/3 critical reseat"},
	"gpu-warm":             {"hgx-h200", "MC-GPU-SLOWDOWN gpu/3 warning retest"},
	"power-brake":          {"hgx-h200", "MC-GPU-SLOWDOWN system/power critical reseat"},
	"gpu-power-limit":      {"hgx-h200", "MC-GPU-POWER-LIMIT gpu/3 critical configure"},
	"gpu-compute-mode":     {"hgx-h200", "MC-GPU-COMPUTE-MODE gpu/3 warning configure"},
	"gpu-vbios":            {"hgx-h200", "MC-FIRMWARE-MIXED gpu/3 warning update"},
	"gpu-recovery":         {"hgx-h200", "MC-GPU-RECOVERY gpu/3 critical reset"},
	"gpu-narrow":           {"hgx-h200", "MC-PCIE-WIDTH gpu/3 critical reseat"},
	"nvlink-down":          {"hgx-h200", "MC-NVLINK-DOWN gpu/3/nvlink/7 critical reset"},
	"nvlinks-down":         {"dgx-a100", "MC-NVLINK-DOWN gpu/3/nvlink critical reset"},
	"nvlink-slow":          {"hgx-h200", "MC-NVLINK-SLOW gpu/3/nvlink/2 critical reset"},
	"nvlink-errors":        {"hgx-h200", "MC-NVLINK-ERRORS gpu/3/nvlink/2 warning retest"},
	"nvlink-bit-errors":    {"hgx-b200", "MC-NVLINK-ERRORS gpu/3/nvlink/2 critical reset"},
	"nvlink-wiring":        {"hgx-h200", "MC-NVLINK-WIRING gpu/3/nvlink/7 critical reseat"},
	"fabric-in-progress":   {"hgx-h200", "MC-FABRIC-STATE gpu/3/fabric critical reset"},
	"fabric-degraded":      {"hgx-b200", "MC-FABRIC-HEALTH gpu/3/fabric critical reset"},
	"fabric-manager-gone":  {"hgx-h200", "MC-FABRIC-MANAGER fabric critical reboot"},
	"driver-old":           {"hgx-h200", "MC-INVENTORY-UNREAD gpus critical retest"},
	"driver-not-loaded":    {"hgx-h200", "MC-INVENTORY-UNREAD gpus critical retest"},
	"xid-gsp":              {"hgx-h200", "MC-GPU-XID gpu/3 critical reset"},
	"xid-channel":          {"hgx-h200", "MC-GPU-XID gpu/3 critical retest"},
	"gpu-aer":              {"hgx-h200", "MC-PCIE-AER gpu/3 critical reseat"},
	"hca-aer":              {"hgx-h200", "MC-PCIE-AER hca/mlx5_3 warning retest"},
	"hca-port-down":        {"hgx-h200", "MC-HCA-PORT hca/mlx5_3/port/1 critical cable"},
	"hca-slow":             {"hgx-h200", "MC-HCA-RATE hca/mlx5_3/port/1 critical cable"},
	"hca-ethernet":         {"hgx-h200", "MC-HCA-MODE hca/mlx5_3/port/1 critical configure"},
	"hca-partition":        {"hgx-h200", "MC-HCA-PKEY hca/mlx5_3/port/1 critical configure"},
	"hca-symbol-errors":    {"hgx-h200", "MC-HCA-ERRORS hca/mlx5_3/port/1 warning retest"},
	"hca-open":             {"hgx-h200", "MC-HCA-RESIDUE hca/mlx5_3 warning reboot"},
	"hca-absent":           {"hgx-h200", "MC-HCA-MISSING rail/3 critical reseat"},
	"hca-old-slot":         {"hgx-h200", "MC-PCIE-SPEED hca/mlx5_3 critical reseat"},
	"hca-module-hot":       {"hgx-h200", "MC-HCA-ERRORS hca/mlx5_3 warning retest"},
	"drive-absent":         {"hgx-h200", "MC-CLASS-NVME nvme critical reseat"},
	"drive-narrow":         {"hgx-h200", "MC-PCIE-WIDTH disk/nvme4n1 critical reseat"},
	"drive-timeout":        {"hgx-h200", "MC-NVME-ERRORS disk/nvme4n1 warning retest"},
	"dimm-uncorrected":     {"hgx-h200", "MC-DIMM-ERRORS dimm/A5 critical replace"},
	"dimm-corrected":       {"hgx-h200", "MC-DIMM-ERRORS dimm/A5 warning retest"},
	"nvswitch-absent":      {"hgx-h200", "MC-NVSWITCH-MISSING nvswitches critical cold-cycle"},
	"nvswitch-sxid":        {"hgx-h200", "MC-NVSWITCH-SXID nvswitch/1 critical reset"},
	"switch-uplink":        {"hgx-h200", "MC-PCIE-WIDTH pci/0000:99:00.0 critical reseat"},
	"machine-check":        {"hgx-h200", "MC-CPU-ERROR cpu/0/bank/4 critical replace"},
	"burn-gpu-bit":         {"hgx-h200", ""},
	"burn-gpu-sm":          {"hgx-h200", ""},
	"burn-gpu-sm-rarely":   {"hgx-h200", ""},
	"burn-gpu-slow-memory": {"hgx-h200", ""},
	"burn-gpu-slow":        {"hgx-h200", ""},
	"burn-gpu-copy":        {"hgx-h200", ""},
	"burn-gpu-peer":        {"hgx-h200", ""},
	"burn-gpu-hot":         {"hgx-h200", ""},
	"burn-gpu-crash":       {"hgx-h200", ""},
	"burn-gpu-fabric":      {"hgx-h200", ""},
}

// quickFaults are tried in a hurry, too: of files, of the kernel's log, of the driver, and of a part that is gone.
var quickFaults = []string{"gpu-absent", "nvlink-down", "hca-port-down", "drive-absent", "xid-gsp"}

// gpuPart is what the GPUs' reader told of a healthy machine, for faults that do not touch them: a child for each GPU is dear.
type gpuPart struct {
	driver  *fleet.GPUDriver
	gpus    []byte
	missing []fleet.Missing
}

func (g gpuPart) read(context.Context, sysfs.Tree, []fleet.PCI) (*fleet.GPUDriver, []fleet.GPU, []fleet.Missing) {
	var gpus []fleet.GPU
	if err := json.Unmarshal(g.gpus, &gpus); err != nil {
		return nil, nil, []fleet.Missing{{What: "gpus", Why: err.Error()}}
	}
	return g.driver, gpus, slices.Clone(g.missing)
}

// tried is a machine for many faults: whole is never changed, and work is made like it again before each fault.
type tried struct {
	whole, work string
	folders     []string // of whole, parents before their children
	gpus        gpuPart
}

func newTried(t *testing.T, profile string) *tried {
	t.Helper()
	m := &tried{whole: profileFolder(t, profile), work: smallFiles(t)}
	err := filepath.WalkDir(m.whole, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			m.folders = append(m.folders, strings.TrimPrefix(name, m.whole))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	inv := inspected(t, m.whole)
	gpus, err := json.Marshal(inv.GPUs)
	if err != nil {
		t.Fatal(err)
	}
	m.gpus = gpuPart{inv.GPUDriver, gpus, slices.DeleteFunc(inv.Missing, func(m fleet.Missing) bool { return !strings.HasPrefix(m.What, "gpu") })}
	return m
}

// untouched is the time of a folder in work since nobody changed it: a fault replaces files, and never writes into one.
var untouched = time.Unix(0, 0)

// mend makes work like whole, by new names for its files. A machine has thousands of them, so that only folders that a fault changed are looked into.
func (m *tried) mend() error {
	for _, folder := range m.folders {
		from, to := m.whole+folder, m.work+folder
		info, err := os.Stat(to)
		if err == nil && info.ModTime().Equal(untouched) {
			continue
		}
		if err != nil {
			return err
		}
		entries, err := os.ReadDir(to)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if was, err := os.Lstat(filepath.Join(from, e.Name())); err == nil && e.IsDir() && was.IsDir() {
				continue
			}
			if err := os.RemoveAll(filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
		if entries, err = os.ReadDir(from); err != nil {
			return err
		}
		for _, e := range entries {
			if err := same(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), e); err != nil {
				return err
			}
		}
		if err := os.Chtimes(to, untouched, untouched); err != nil {
			return err
		}
	}
	return nil
}

// same makes what is at from appear at to as well.
func same(from, to string, e fs.DirEntry) error {
	switch {
	case e.IsDir():
		if err := os.Mkdir(to, 0o755); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case e.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return os.Link(from, to)
}

// TestProfileFaults breaks a profile with each fault that ships and reads it as an agent would: exactly the one difference follows, at the right part, with
// its severity and what to do.
func TestProfileFaults(all *testing.T) {
	t := all
	if !gpu.WithNVIDIA {
		t.Skip("hardware: this build knows GPUs by PCI only")
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(profileFaults)), profiles.FaultNames()); diff != "" {
		t.Fatalf("not of every fault it is said what follows from it (-said +shipped):\n%s", diff)
	}
	doc, err := os.ReadFile("../../docs/inventory.md")
	if err != nil {
		t.Fatal(err)
	}
	machines, classes := map[string]*tried{}, map[string]fleet.Class{}
	for _, name := range profiles.FaultNames() {
		t.Run(name, func(t *testing.T) {
			c := profileFaults[name]
			if !strings.Contains(string(doc), "| `"+name+"` |") {
				t.Error("docs/inventory.md does not list it")
			}
			if testing.Short() && !slices.Contains(quickFaults, name) {
				t.Skip("long: some faults of each kind are enough in a hurry")
			}
			faults, err := profiles.ReadFaults(name)
			if err != nil {
				t.Fatal(err)
			}
			m := machines[c.profile]
			if m == nil {
				// Of the whole test: its folders outlive this fault.
				m = newTried(all, c.profile)
				machines[c.profile], classes[c.profile] = m, profileClass(t, c.profile)
			}
			if err := errors.Join(m.mend(), faults.Apply(m.work)); err != nil {
				t.Fatal(err)
			}
			read := m.gpus.read
			if slices.ContainsFunc(faults.Faults, func(f profiles.Fault) bool { return len(f.NVML) > 0 }) {
				read = readGPUs
			}
			inv, err := inspect.Read(t.Context(), inspect.Options{Root: m.work, GPUs: read, HCAs: rdma.Read})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range judge.Judge(inv, classes[c.profile]) {
				got = append(got, fmt.Sprintf("%s %s %s %s", d.Code, d.Component, d.Severity, d.Do))
				t.Log(d.Words)
			}
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
