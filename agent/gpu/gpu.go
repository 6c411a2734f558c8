// Package gpu reads a machine's accelerators; NVIDIA's library is opened in a child process only, which may hang or crash without taking the agent along.
package gpu

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// Limits of calls into NVIDIA's library. Opening a GPU that nothing holds open starts it up, which takes seconds.
const (
	CallTimeout = 10 * time.Second
	OpenTimeout = 60 * time.Second
	gpuBudget   = 3 * time.Minute // for all calls of one GPU
)

// Options say where to read. The zero value with Helper reads this machine.
type Options struct {
	// Files are those of this machine, or of a recording.
	Files sysfs.Tree
	// Helper is the command line that becomes the child: this program with the verb that calls Serve. nil: NVIDIA's GPUs by PCI only.
	Helper []string
	// Library is NVIDIA's management library; "" is libnvidia-ml.so.1 where the loader finds it.
	Library string
	// CUDA is the driver library that loads GPUs; "" is libcuda.so.1 where the loader finds it.
	CUDA string
	// CallTimeout and OpenTimeout bound each call; 0 means the constants of that name.
	CallTimeout, OpenTimeout time.Duration
	// Log may be nil.
	Log *slog.Logger

	// after makes the timers; tests let one call's run out and no other's.
	after func(who, call string, d time.Duration) (<-chan time.Time, func() bool)
}

// Reading is what was found. Missing says what could not be read, and why.
type Reading struct {
	Driver  *fleet.GPUDriver
	GPUs    []fleet.GPU
	Missing []fleet.Missing
}

// PCI vendors of accelerators that have a reader.
const (
	vendorNVIDIA = "10de"
	vendorAMD    = "1002"
)

// accelerator reports whether a function is one: 3D controllers and processing accelerators of any vendor, NVIDIA's with a display, AMD's display class
// without a screen. A BMC's or a CPU's own graphics are none.
func accelerator(p fleet.PCI) bool {
	switch {
	case strings.HasPrefix(p.Class, "0302"), strings.HasPrefix(p.Class, "1200"):
		return true
	case p.Vendor == vendorNVIDIA:
		return strings.HasPrefix(p.Class, "0300")
	case p.Vendor == vendorAMD:
		return strings.HasPrefix(p.Class, "0380")
	}
	return false
}

// Read reads all accelerators among the functions of PCI, and those that only NVIDIA's driver knows. It returns when ctx ends, whatever a driver does.
func Read(ctx context.Context, opts Options, pci []fleet.PCI) Reading {
	opts = opts.filled()
	var r Reading
	for _, p := range pci {
		if !accelerator(p) {
			continue
		}
		g := byPCI(p)
		if p.Vendor == vendorAMD {
			r.readAMD(opts.Files, &g)
		}
		r.GPUs = append(r.GPUs, g)
	}
	r.readNVIDIA(ctx, opts)
	// By address, which is the driver's order, too: one that is lost keeps its place among the others.
	slices.SortStableFunc(r.GPUs, func(a, b fleet.GPU) int { return strings.Compare(a.PCIAddress, b.PCIAddress) })
	return r
}

func (o Options) filled() Options {
	if o.CallTimeout == 0 {
		o.CallTimeout = CallTimeout
	}
	if o.OpenTimeout == 0 {
		o.OpenTimeout = OpenTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Files == (sysfs.Tree{}) {
		o.Files = sysfs.New("")
	}
	if o.after == nil {
		o.after = func(_, _ string, d time.Duration) (<-chan time.Time, func() bool) {
			t := time.NewTimer(d)
			return t.C, t.Stop
		}
	}
	return o
}

// byPCI is what PCI alone tells.
func byPCI(p fleet.PCI) fleet.GPU {
	vendor := map[string]string{vendorNVIDIA: "nvidia", vendorAMD: "amd"}[p.Vendor]
	if vendor == "" {
		vendor = p.Vendor
	}
	id := p.Vendor + ":" + p.Device
	g := fleet.GPU{Index: -1, Vendor: vendor, Model: id, PCIAddress: p.Address, PCIDevice: id, PCISubsystem: p.Subsystem, NUMANode: p.NUMANode}
	if p.MaxWidth > 0 || p.Width > 0 {
		g.PCIe = &fleet.PCIeLink{Generation: generation(p.Speed), Width: p.Width, MaxGeneration: generation(p.MaxSpeed), MaxWidth: p.MaxWidth}
	}
	return g
}

// generation of a link by the kernel's words, such as "32.0 GT/s PCIe"; 0 is unknown.
func generation(speed string) int {
	number, _, _ := strings.Cut(speed, " ")
	return map[string]int{"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "8": 3, "16.0": 4, "16": 4, "32.0": 5, "32": 5, "64.0": 6, "64": 6}[number]
}

func (r *Reading) missing(what, format string, args ...any) {
	m := fleet.Missing{What: what, Why: fmt.Sprintf(format, args...)}
	if !slices.Contains(r.Missing, m) {
		r.Missing = append(r.Missing, m)
	}
}
