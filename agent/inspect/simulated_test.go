package inspect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// TestSimulated: of the simulated machine come its GPUs, NVSwitches and HCAs with the bridges above them and what its kernel says; all else is the machine's own.
func TestSimulated(t *testing.T) {
	own, sim := recording(t, "bios"), recording(t, "hgx")
	const xid = "4,901,5000000,-;NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
	if err := errors.Join(os.WriteFile(filepath.Join(sim, simulatedFile), []byte("hgx-h200\n"), 0o644), os.WriteFile(filepath.Join(sim, kernelLog), []byte(xid), 0o644),
		os.Mkdir(filepath.Join(sim, "sys/bus/pci/devices/0000:19:00.0/infiniband"), 0o755)); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	read := func(opts Options) fleet.Inventory {
		t.Helper()
		opts.Now = func() time.Time { return now }
		inv, err := Read(context.Background(), opts)
		if err != nil {
			t.Fatal(err)
		}
		return inv
	}
	var asked []string
	opts := Options{Root: own, Simulated: sim,
		GPUs: func(_ context.Context, tree sysfs.Tree, pci []fleet.PCI) (*fleet.GPUDriver, []fleet.GPU, []fleet.Missing) {
			asked = append(asked, tree.Path())
			var out []fleet.GPU
			for _, p := range pci {
				if accelerator(p) {
					out = append(out, fleet.GPU{PCIAddress: p.Address, ModuleID: len(out) + 1})
				}
			}
			return nil, out, nil
		},
		HCAs: func(_ context.Context, tree sysfs.Tree) ([]fleet.HCA, []fleet.Missing) {
			asked = append(asked, tree.Path())
			return []fleet.HCA{{Name: "mlx5_0", PCIAddress: "0000:19:00.0"}}, nil
		},
	}
	got, alone, whole := read(opts), read(Options{Root: own}), read(Options{Root: sim})
	if d := cmp.Diff(got, alone, cmpopts.IgnoreFields(fleet.Inventory{}, "Simulated", "PCI", "GPUs", "NVSwitches", "HCAs", "Rails", "KernelFindings", "Missing")); d != "" {
		t.Errorf("parts that are the machine's own (-got +want):\n%s", d)
	}
	if got.Simulated != "hgx-h200" || alone.Simulated != "" || whole.Simulated != "hgx-h200" {
		t.Errorf("marked as %q, its own machine as %q, the other one alone as %q", got.Simulated, alone.Simulated, whole.Simulated)
	}
	if d := cmp.Diff(asked, []string{sim, sim}); d != "" {
		t.Errorf("GPUs and HCAs were read from elsewhere: %s", d)
	}
	if len(got.GPUs) != 8 || len(got.Rails) != 8 || len(got.HCAs) != 1 || got.HCAs[0].Role != fleet.HCARail {
		t.Errorf("%d GPUs, rails %+v, HCAs %+v", len(got.GPUs), got.Rails, got.HCAs)
	}
	if d := cmp.Diff(got.NVSwitches, whole.NVSwitches); d != "" || len(got.NVSwitches) != 4 {
		t.Errorf("NVSwitches: %s", d)
	}
	if len(got.KernelFindings) != 1 || got.KernelFindings[0].Component != "gpu/1" {
		t.Errorf("the kernel's log says %+v", got.KernelFindings)
	}
	var kept []string
	for _, p := range got.PCI {
		kept = append(kept, p.Address)
	}
	for _, p := range alone.PCI {
		if !slices.Contains(kept, p.Address) {
			t.Errorf("the machine's own %s is not there", p.Address)
		}
	}
	for address, want := range map[string]bool{"0000:15:01.0": true, "0000:17:00.0": true, "0000:18:00.0": true, "0000:17:01.0": true, "0000:19:00.0": true, "0000:58:00.0": true, "0000:57:01.0": true,
		"0000:00:14.0": false, "0000:00:1f.0": false, "0000:d0:00.0": false, "0000:c0:02.0": false} {
		if slices.Contains(kept, address) != want {
			t.Errorf("%s of the simulated machine: kept %v, want %v", address, !want, want)
		}
	}
}
