package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/agent/gpu"
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

// readGPUs reads GPUs with NVIDIA's library: the given one, else one that a pack brought, else the system's.
func readGPUs(library string) func(context.Context, string, []fleet.PCI) (*fleet.GPUDriver, []fleet.GPU, []fleet.Missing) {
	return func(ctx context.Context, root string, pci []fleet.PCI) (*fleet.GPUDriver, []fleet.GPU, []fleet.Missing) {
		opts := gpu.Options{Root: root, Library: library}
		if live := root == "" || root == "/"; live && library == "" {
			opts.Library = packLibrary(agent.DefaultPacks)
		}
		// A recording without a library must not be answered for by this machine's GPUs.
		if gpu.WithNVIDIA && (root == "" || root == "/" || library != "") {
			opts.Helper = []string{"/proc/self/exe", "agent", "gpu-helper"}
		}
		r := gpu.Read(ctx, opts, pci)
		return r.Driver, r.GPUs, r.Missing
	}
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
