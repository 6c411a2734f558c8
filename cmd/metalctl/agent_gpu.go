package main

import (
	"context"
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
	opts := gpu.Options{Files: files}
	var missing []fleet.Missing
	if files.Live() {
		opts.Library = packLibrary(agent.DefaultPacks)
	} else {
		library, done, err := fixtureLibrary(ctx, files.Path())
		defer func() { _ = done() }() // a folder that stays behind is no finding about a machine
		if err != nil {
			missing = append(missing, fleet.Missing{What: "gpus nvml.conf", Why: err.Error()})
		}
		opts.Library = library
	}
	// A recording without a library must not be answered for by this machine's GPUs.
	if gpu.WithNVIDIA && (files.Live() || opts.Library != "") {
		opts.Helper = []string{"/proc/self/exe", "agent", "gpu-helper"}
	}
	r := gpu.Read(ctx, opts, pci)
	return r.Driver, r.GPUs, append(r.Missing, missing...)
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
