// Package inspect reads the machine it runs on into an inventory.
package inspect

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

// InventoryVersion is the version of the inventories that Read makes.
const InventoryVersion = 1

// Parts of an inventory, for Options.Only.
const (
	PartSystem = "system"
	PartCPU    = "cpu"
	PartNUMA   = "numa"
	PartMemory = "memory"
	PartPCI    = "pci"
	PartGPU    = "gpu"
	PartDisk   = "disk"
	PartNIC    = "nic"
	PartHCA    = "hca"
	PartRails  = "rails" // needs PartPCI, and PartHCA and PartDisk for their share
	PartKernel = "kernel"
	PartTPM    = "tpm"
	PartBMC    = "bmc"
	PartVars   = "variables" // needs PartSystem
)

// Options say what to read and from where. The zero value reads all of this machine, without waiting for LLDP.
type Options struct {
	// Root is "" or "/" for this machine, or a folder with a recording of /sys, /proc and /dev.
	Root string
	// Simulated is the folder of a machine whose GPUs, NVSwitches and RDMA devices are read in place of this machine's: an emulated machine has none of them.
	// "" is none.
	Simulated string
	// LLDPWait is how long to listen for neighbours; switches speak every 30 s by default. 0: not at all. Recordings are never listened to.
	LLDPWait time.Duration
	// Only names the parts to read; nil means all.
	Only []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger

	// System, Disks and NICs stand in for what would be read where they are not nil: an agent that is a process has the identity, file-backed disks and
	// ports that its rack gave it.
	System *fleet.System
	Disks  []fleet.Disk
	NICs   []fleet.NIC

	// Variables is the folder of the firmware's variables; "" is the tree's, or none beside System.
	Variables string

	// Sanitize asks a disk how it can erase itself; nil leaves that out. Its errors go into Missing.
	Sanitize func(context.Context, fleet.Disk) ([]string, error)
	// GPUs reads the accelerators among the functions of PCI: opening a vendor's library is another room's business. nil leaves them out.
	GPUs func(ctx context.Context, files sysfs.Tree, pci []fleet.PCI) (*fleet.GPUDriver, []fleet.GPU, []fleet.Missing)
	// SmartLog reads the log page 02h of an NVMe disk; nil leaves that out. A recording has it as a file.
	SmartLog func(context.Context, fleet.Disk) ([]byte, error)
	// HCAs reads the RDMA devices; nil: they are left out. What could not be read is in its second result.
	HCAs func(ctx context.Context, files sysfs.Tree) ([]fleet.HCA, []fleet.Missing)
	// Record keeps what is read, so that a recording can be made of it; nil keeps nothing. Of the kernel's log only findings are kept, of the firmware's table
	// only what is decoded, and of GPUs nothing that NVIDIA's library tells.
	Record *sysfs.Recorder
	// Progress is told what is being read; may be nil.
	Progress func(part string)
}

// reading is an inventory in the making. Every reader is one file; it fills its part and says what it could not read.
type reading struct {
	opts Options
	fs   sysfs.Tree
	inv  *fleet.Inventory
	dmi  *dmi     // nil where there is no table
	sim  *reading // of Options.Simulated, or nil
}

// missing records that something could not be read. What is not there at all on this kind of machine is no miss.
func (r *reading) missing(what string, err error) {
	why := r.fs.Plain(err)
	for _, m := range r.inv.Missing {
		if m.What == what && m.Why == why {
			return
		}
	}
	r.inv.Missing = append(r.inv.Missing, fleet.Missing{What: what, Why: why})
}

func (r *reading) missingf(what, format string, args ...any) {
	r.missing(what, fmt.Errorf(format, args...))
}

// Read reads the machine. What cannot be read is in the inventory's Missing, with the reason; the error is only ctx's end.
func Read(ctx context.Context, opts Options) (fleet.Inventory, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	inv := &fleet.Inventory{
		Version: InventoryVersion, TakenAt: opts.Now().UTC(),
		CPUs: []fleet.CPU{}, NUMANodes: []fleet.NUMANode{}, PCI: []fleet.PCI{}, NICs: []fleet.NIC{}, Disks: []fleet.Disk{}, Missing: []fleet.Missing{},
	}
	inv.Memory.DIMMs = []fleet.DIMM{}
	r := &reading{opts: opts, fs: sysfs.New(opts.Root).Recorded(opts.Record), inv: inv}
	r.openSimulated()
	r.readDMI()
	for _, part := range r.parts() {
		if opts.Only != nil && !slices.Contains(opts.Only, part.name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return *inv, fmt.Errorf("inspect %s: %w", part.name, err)
		}
		if opts.Progress != nil {
			opts.Progress(part.name)
		}
		r.guard(ctx, part.name, func() { part.read(ctx) })
	}
	if err := ctx.Err(); err != nil {
		return *inv, fmt.Errorf("inspect: %w", err)
	}
	r.settleFabricManager()
	slices.SortStableFunc(inv.Missing, func(a, b fleet.Missing) int { return strings.Compare(a.What, b.What) })
	return *inv, nil
}

// part is one reader.
type part struct {
	name string
	read func(context.Context)
}

// parts are all readers in their order: later ones look at what earlier ones found.
func (r *reading) parts() []part {
	return []part{
		{PartSystem, r.readSystem}, {PartCPU, r.readCPUs}, {PartNUMA, r.readNUMA}, {PartMemory, r.readMemory}, {PartPCI, r.readAllPCI},
		{PartGPU, r.readGPUs}, {PartDisk, r.readDisks}, {PartNIC, r.readNICs}, {PartHCA, r.readHCAs}, {PartRails, r.readRails}, {PartKernel, r.readKernelLog}, {PartTPM, r.readTPM}, {PartBMC, r.readBMC},
		{PartVars, r.readVariables},
	}
}

// Parts is how many parts Progress is told of when everything is read.
func Parts() int { return len((&reading{}).parts()) }

// guard keeps a reader that trips over odd firmware from taking the others along: one part is then missing, with the reason.
func (r *reading) guard(ctx context.Context, part string, read func()) {
	defer func() {
		if p := recover(); p != nil {
			r.missingf(part, "the reader tripped: %v", p)
			r.opts.Log.ErrorContext(ctx, "a reader tripped", "part", part, "panic", fmt.Sprint(p))
		}
	}()
	read()
}
