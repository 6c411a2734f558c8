//go:build !ramdisk

package main

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/gpu"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/rdma"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fleet"
	judge "github.com/metalctl/metalctl/fleet/verdict"
)

// profileFolder makes a profile's files. A machine has thousands of small ones, and each fault needs its own, so that they are kept in memory where that is to be had.
func profileFolder(t *testing.T, name string) string {
	t.Helper()
	m, err := profiles.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := smallFiles(t)
	if err := m.Materialise(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// smallFiles is a folder of the test's own, in memory if possible.
func smallFiles(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "metalctl-machine-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// inspected is what the agent reads of a machine: its own readers, and NVIDIA's library in the child process.
func inspected(t *testing.T, dir string) fleet.Inventory {
	t.Helper()
	if !gpu.WithNVIDIA {
		t.Skip("hardware: this build knows GPUs by PCI only")
	}
	inv, err := inspect.Read(t.Context(), inspect.Options{Root: dir, GPUs: readGPUs, HCAs: rdma.Read})
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// profileClass is the class that ships beside a profile.
func profileClass(t *testing.T, name string) fleet.Class {
	t.Helper()
	c, err := classTemplateOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return c.class
}

// TestProfilesAreHealthy: what the agent reads of each machine that ships is judged whole, by itself and against the class beside it, so that a fault that
// somebody injects is all that is found.
func TestProfilesAreHealthy(t *testing.T) {
	for _, name := range profiles.Names() {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "hgx-b200" && name != "hgx-h100" {
				t.Skip("long: two profiles are enough in a hurry")
			}
			class := profileClass(t, name)
			inv := inspected(t, profileFolder(t, name))
			if ds := judge.Judge(inv, fleet.Class{}); len(ds) > 0 {
				t.Errorf("by itself: %s", cmp.Diff([]fleet.Difference(nil), ds))
			}
			if ds := judge.Judge(inv, class); len(ds) > 0 {
				t.Errorf("against class %s: %s", name, cmp.Diff([]fleet.Difference(nil), ds))
			}
			if ds := judge.Last(inv, inv); len(ds) > 0 {
				t.Errorf("against itself before: %s", cmp.Diff([]fleet.Difference(nil), ds))
			}
			if inv.GPUDriver == nil || len(inv.GPUs) != 8 || slices.ContainsFunc(inv.GPUs, func(g fleet.GPU) bool { return g.Serial == "" || g.ModuleID == 0 }) {
				t.Errorf("the driver did not tell of eight GPUs: %+v, missing %+v", inv.GPUDriver, inv.Missing)
			}
			learned := fleet.Class{Name: "learned", BurnIn: "none", EraseLevel: "purge", Expect: judge.Learn(inv, "learned from "+name)}
			if ds := append(judge.Judge(inv, learned), judge.Suspicions(inv)...); len(ds) > 0 || len(learned.Validate()) > 0 {
				t.Errorf("against what is learned of it: %+v %+v", ds, learned.Validate())
			}
			if d := cmp.Diff(class.Expect, learned.Expect, cmp.FilterPath(func(p cmp.Path) bool {
				switch p.Last().String() {
				case ".Source", ".Firmware", ".Limits", ".BlueField", ".MemoryBytes", ".SizeBytes": // what a site decides, and sizes that are rounded
					return true
				}
				return false
			}, cmp.Ignore())); d != "" {
				t.Errorf("what ships (-) and what is learned (+):\n%s", d)
			}
			class.Expect.GPUs.Count++ // the judge does look
			if ds := judge.Judge(inv, class); len(ds) != 1 || ds[0].Code != "MC-GPU-MISSING" {
				t.Errorf("with a class of nine GPUs: %+v", ds)
			}
		})
	}
}
