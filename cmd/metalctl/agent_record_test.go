//go:build !ramdisk

package main

import (
	"errors"
	"io/fs"
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
)

// timeless is an inventory without the times that follow from when it was read.
func timeless(inv fleet.Inventory) fleet.Inventory {
	inv.TakenAt = time.Time{}
	for i := range inv.KernelFindings {
		inv.KernelFindings[i].First, inv.KernelFindings[i].Last = time.Time{}, time.Time{}
	}
	return inv
}

// TestRecording: a machine that was recorded while it was read is read alike from its recording, and faults find its parts there.
func TestRecording(t *testing.T) {
	if !gpu.WithNVIDIA {
		t.Skip("hardware: this build knows GPUs by PCI only")
	}
	cases := []struct{ profile, fault string }{{"hgx-h200", "gpu-lost"}, {"hgx-h200", "gpu-crash"}, {"hgx-h200", "gpu-unseen"}, {"hgx-h200", "driver-old"}, {"hgx-h200", "driver-not-loaded"},
		{"hgx-h200", "gpu-process"}, {"hgx-b200", "nvlink-bit-errors"}, {"hgx-b200", "fabric-degraded"}, {"hgx-h200", "nvswitch-sxid"}}
	for _, name := range profiles.Names() {
		cases = append(cases, struct{ profile, fault string }{name, ""})
	}
	for _, c := range cases {
		t.Run(strings.TrimSuffix(c.profile+" "+c.fault, " "), func(t *testing.T) {
			if testing.Short() && c.fault != "gpu-crash" && c.profile != "hgx-b200" {
				t.Skip("long: a few recordings are enough in a hurry")
			}
			dir := profileFolder(t, c.profile)
			if c.fault != "" {
				faults, err := profiles.ReadFaults(c.fault)
				if err := errors.Join(err, faults.Apply(dir)); err != nil {
					t.Fatal(err)
				}
			}
			var r sysfs.Recorder
			inv, err := inspect.Read(t.Context(), inspect.Options{Root: dir, GPUs: readGPUs, HCAs: rdma.Read, Record: &r})
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(smallFiles(t), "recording")
			if err := record(to, &r, &inv); err != nil {
				t.Fatal(err)
			}
			again := inspected(t, to)
			if diff := cmp.Diff(timeless(inv), timeless(again)); diff != "" {
				t.Errorf("the recording is read otherwise (-machine +recording):\n%s", diff)
			}
			down, err := profiles.ReadFaults("hca-port-down")
			if err != nil {
				t.Fatal(err)
			}
			if c.profile != "hgx-h200" || c.fault != "" {
				return
			}
			if err := down.Apply(to); err != nil {
				t.Fatal(err)
			}
			if again = inspected(t, to); again.HCAs[slices.IndexFunc(again.HCAs, func(h fleet.HCA) bool { return h.Name == "mlx5_3" })].Ports[0].State != "DOWN" {
				t.Error("the fault is not seen in the recording")
			}
		})
	}
}

// TestRecordingKeepsToItself: what is nobody's business is not in a recording, and one that is not whole has not its name.
func TestRecordingKeepsToItself(t *testing.T) {
	dir := profileFolder(t, "hgx-h200")
	const secret = "hunter2-swordfish"
	add := func(name, text string) {
		t.Helper()
		at := filepath.Join(dir, name)
		old, err := os.ReadFile(at)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, append(old, text...), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	add("kmsg", "6,900,1000000,-;Kernel command line: token="+secret+"\n")
	add("proc/cmdline", "token="+secret+"\n")
	add("proc/77/comm", secret+"\n")
	add("proc/77/environ", secret+"\n")
	add("sys/module/x/parameters/key", secret+"\n")
	table := filepath.Join(dir, "sys/firmware/dmi/tables/DMI")
	b, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	strings11 := append([]byte{11, 5, 0xff, 0, 1}, "io.systemd.credential:x="+secret+"\x00\x00"...)
	if err := os.WriteFile(table, append(strings11, b...), 0o644); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(smallFiles(t), "recording")
	var r sysfs.Recorder
	inv, err := inspect.Read(t.Context(), inspect.Options{Root: dir, HCAs: rdma.Read, Record: &r})
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Memory.DIMMs) == 0 {
		t.Fatal("the table with the free texts is not read")
	}
	if err := os.Mkdir(sysfs.Partial(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := record(to, &r, &inv); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over one that was broken off: %v", err)
	}
	if _, err := newRecorder(to); err == nil || !strings.Contains(err.Error(), ".partial is there already") {
		t.Errorf("over one that was broken off: %v", err)
	}
	if err := os.Remove(sysfs.Partial(to)); err != nil {
		t.Fatal(err)
	}
	if err := record(to, &r, &inv); err != nil {
		t.Fatal(err)
	}
	if _, err := newRecorder(to); err == nil {
		t.Error("over another recording: no error")
	}
	files := 0
	err = filepath.WalkDir(to, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(name)
		if strings.Contains(string(b), secret) {
			t.Errorf("%s holds the secret", name)
		}
		return err
	})
	if err != nil || files < 1000 {
		t.Errorf("%d files: %v", files, err)
	}
	again, err := inspect.Read(t.Context(), inspect.Options{Root: to, HCAs: rdma.Read})
	if diff := cmp.Diff(timeless(inv), timeless(again)); err != nil || diff != "" {
		t.Errorf("%v, the recording is read otherwise (-machine +recording):\n%s", err, diff)
	}
}
