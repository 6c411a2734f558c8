//go:build !ramdisk

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/metalctl/metalctl/agent/burn"
	"github.com/metalctl/metalctl/agent/gpu"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fleet"
)

// TestGPUsOfAProfileAreBurnedIn runs a stage on a machine that is made up, with one GPU whose memory does not keep a bit.
func TestGPUsOfAProfileAreBurnedIn(t *testing.T) {
	if !gpu.WithNVIDIA {
		t.Skip("hardware: this build cannot load GPUs")
	}
	dir := t.TempDir()
	if err := profiles.Copy(profileFolder(t, "hgx-h200"), dir); err != nil {
		t.Fatal(err)
	}
	conf, err := os.OpenFile(filepath.Join(dir, profiles.NVMLFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conf.WriteString("gpu.3.libcuda.flip.0 = 0x40000 5\n"); err != nil {
		t.Fatal(err)
	}
	if err := conf.Close(); err != nil {
		t.Fatal(err)
	}
	m := burn.Machine{Fixture: "hgx-h200", Speed: 60, Files: sysfs.New(dir), Read: func(ctx context.Context) (fleet.Inventory, error) {
		return inspect.Read(ctx, inspect.Options{Root: dir, GPUs: readGPUs})
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	end, err := loadGPUs(ctx, m.Files, &m)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	}()
	part, err := burn.Stage(ctx, m, fleet.BurnStage{Name: "gpus", Stress: []string{fleet.StressGPUMemory, fleet.StressGPUCopy}, Seconds: 60}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	value := func(check, component string) float64 {
		i := slices.IndexFunc(part.Measured, func(m fleet.Measured) bool { return m.Check == check && m.Component == component })
		if i < 0 {
			return -1
		}
		return part.Measured[i].Value
	}
	sick := gpuTargets(part.Before)[3].Component
	for _, target := range gpuTargets(part.Before) {
		if wrong := value("gpu-memory-mismatches", target.Component); (wrong > 0) != (target.Component == sick) {
			t.Errorf("%s: %v words, the sick one is %s", target.Component, wrong, sick)
		}
	}
	if len(part.Stopped) == 0 {
		t.Error("wrong data did not stop the stage")
	}
	if !slices.ContainsFunc(part.Series, func(s fleet.Series) bool {
		return s.Name == "power" && s.Component == sick && s.Max[0] != nil && *s.Max[0] == 684
	}) {
		t.Errorf("nobody sampled %s under load", sick)
	}
}
