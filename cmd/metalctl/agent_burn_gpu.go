package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/agent/burn"
	"github.com/metalctl/metalctl/agent/gpu"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
	judge "github.com/metalctl/metalctl/fleet/verdict"
)

// gpuLoad loads and samples the GPUs of a machine that is burned in.
type gpuLoad struct {
	opts gpu.Options
	done func() error

	mu      sync.Mutex // guards what follows
	sampler *gpu.Sampler
}

// loadGPUs adds GPUs to what a stage runs on: with the libraries that a pack brought, else the system's; of a recording with those that answer as its nvml.conf
// says. What it returns ends it.
func loadGPUs(ctx context.Context, files sysfs.Tree, m *burn.Machine) (end func() error, err error) {
	g := &gpuLoad{opts: gpu.Options{Files: files}, done: func() error { return nil }}
	if files.Live() {
		g.opts.Library = packLibrary(agent.DefaultPacks)
		g.opts.CUDA = cudaBeside(g.opts.Library)
	} else if g.opts.Library, g.done, err = fixtureUnderLoad(ctx, files.Path()); err != nil {
		return nil, err
	} else {
		g.opts.CUDA = cudaBeside(g.opts.Library)
	}
	// A recording without libraries must not be loaded by this machine's GPUs.
	if gpu.WithNVIDIA && (files.Live() || g.opts.CUDA != "") {
		g.opts.Helper = []string{"/proc/self/exe", "agent", "gpu-helper"}
	}
	read := m.Read
	m.Read = func(ctx context.Context) (fleet.Inventory, error) {
		inv, err := read(ctx)
		if err == nil {
			g.saw(&inv)
		}
		return inv, err
	}
	if m.Stressors == nil {
		m.Stressors = map[string]burn.Func{}
	}
	for _, s := range fleet.Stressors {
		if s.Part == "gpu" {
			m.Stressors[s.Name] = g.burn
		}
	}
	m.Samplers = append(m.Samplers, burn.Sampler{Name: "gpu", Read: g.sample})
	return g.end, nil
}

// gpuTargets are NVIDIA's GPUs by the names that verdicts give them.
func gpuTargets(inv *fleet.Inventory) (targets []gpu.Target) {
	for i, g := range inv.GPUs {
		if g.Vendor == "nvidia" && g.PCIAddress != "" {
			targets = append(targets, gpu.Target{Component: judge.Component(inv, i), PCI: g.PCIAddress})
		}
	}
	return targets
}

// saw starts a sampler for the GPUs of the first inventory; those that a stage loses are still asked, and say so.
func (g *gpuLoad) saw(inv *fleet.Inventory) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if targets := gpuTargets(inv); g.sampler == nil && len(targets) > 0 && g.opts.Helper != nil {
		g.sampler = gpu.NewSampler(g.opts, targets)
	}
}

func (g *gpuLoad) sample(ctx context.Context) ([]fleet.Sample, error) {
	g.mu.Lock()
	s := g.sampler
	g.mu.Unlock()
	if s == nil {
		return nil, nil
	}
	return s.Sample(ctx)
}

func (g *gpuLoad) burn(ctx context.Context, l burn.Load, say *burn.Sink) error {
	stress := gpu.Stress{Name: l.Stress, For: l.For, Targets: gpuTargets(l.Before), Machine: l.Before.System.UUID + l.Before.System.Serial}
	if l.Speed > 1 {
		stress.For /= time.Duration(l.Speed)
	}
	say.Ran(gpu.Burn(ctx, g.opts, stress, say))
	return nil
}

// noGPUs loads the GPUs of a machine that has none.
func noGPUs(ctx context.Context, l burn.Load, say *burn.Sink) error {
	gpu.Burn(ctx, gpu.Options{}, gpu.Stress{Name: l.Stress}, say)
	return nil
}

func (g *gpuLoad) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sampler != nil {
		g.sampler.Close()
	}
	return g.done()
}

// cudaBeside is CUDA's driver library beside NVIDIA's management library, or "".
func cudaBeside(library string) string {
	if library == "" {
		return ""
	}
	path := filepath.Join(filepath.Dir(library), "libcuda.so.1")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}
