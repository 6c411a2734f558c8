package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/agent/gpu"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// gpuHelper is the child that opens NVIDIA's library, so that a call that hangs or crashes takes no agent along.
func gpuHelper(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "gpu-helper", Short: "Ask NVIDIA's library for the agent that started this", Args: exactly(), Hidden: true,
		Example: "  metalctl agent gpu-helper",
		RunE:    func(*cobra.Command, []string) error { return gpu.Serve(p.stdin, p.stdout) },
	}
}

// readGPUs reads GPUs: on this machine with the library that a pack brought, else the system's; in a recording with one that answers as its nvml.conf says.
func readGPUs(ctx context.Context, files sysfs.Tree, pci []fleet.PCI) (*fleet.GPUDriver, []fleet.GPU, []fleet.Missing) {
	opts, done, missing := gpuOptions(ctx, files)
	defer func() { _ = done() }() // a folder that stays behind is no finding about a machine
	r := gpu.Read(ctx, opts, pci)
	return r.Driver, r.GPUs, append(r.Missing, missing...)
}

// cleanGPUs puts GPUs back, found as by readGPUs.
func cleanGPUs(ctx context.Context, root string, pci []fleet.PCI, want fleet.CleanGPUs) fleet.GPUCleaning {
	opts, done, missing := gpuOptions(ctx, sysfs.New(root))
	if len(missing) > 0 {
		return fleet.GPUCleaning{Unseen: missing[0].Why}
	}
	out := gpu.Clean(ctx, opts, pci, want)
	if err := done(); err != nil {
		out.Unseen = fmt.Sprintf("what was set cannot be kept: %v", err)
	}
	return out
}

// gpuOptions says which library answers for the GPUs, and what has to be done after it was asked.
func gpuOptions(ctx context.Context, files sysfs.Tree) (opts gpu.Options, done func() error, missing []fleet.Missing) {
	opts, done = gpu.Options{Files: files}, func() error { return nil }
	if files.Live() {
		opts.Library = packLibrary(agent.DefaultPacks)
	} else {
		var err error
		if opts.Library, done, err = fixtureLibrary(ctx, files.Path()); err != nil {
			missing = append(missing, fleet.Missing{What: "gpus nvml.conf", Why: err.Error()})
		}
	}
	// A recording without a library must not be answered for by this machine's GPUs.
	if gpu.WithNVIDIA && (files.Live() || opts.Library != "") {
		opts.Helper = []string{"/proc/self/exe", "agent", "gpu-helper"}
	}
	return opts, done, missing
}

// packLibrary finds NVIDIA's library in the packs, at their root or where distributions have it, or "".
func packLibrary(packs string) string {
	for _, dir := range []string{"", "lib", "usr/lib", "usr/lib64", "usr/lib/x86_64-linux-gnu"} {
		if found, err := filepath.Glob(filepath.Join(packs, "*", dir, "libnvidia-ml.so.1")); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
}
