package inspect

import (
	"cmp"
	"context"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// simulatedFile names, in the folder of a machine that never was, what it is made of.
const simulatedFile = "simulated"

// openSimulated begins the reading of what stands in for parts of this machine, and marks the inventory of one that is not real.
func (r *reading) openSimulated() {
	if !r.fs.Live() {
		r.inv.Simulated = r.fs.Try(simulatedFile)
	}
	if r.opts.Simulated == "" {
		return
	}
	r.sim = &reading{opts: r.opts, fs: sysfs.New(r.opts.Simulated), inv: &fleet.Inventory{TakenAt: r.inv.TakenAt}}
	r.inv.Simulated = cmp.Or(r.sim.fs.Try(simulatedFile), "unnamed")
}

// gpuSide is the reading that has the GPUs and their fabrics.
func (r *reading) gpuSide() *reading {
	if r.sim != nil {
		return r.sim
	}
	return r
}

// treeOf is where the kernel's files of a function lie.
func (r *reading) treeOf(address string) sysfs.Tree {
	if r.sim != nil && r.sim.fs.Exists("sys/bus/pci/devices", address) {
		return r.sim.fs
	}
	return r.fs
}

// readAllPCI reads this machine's functions and, of the simulated one, those that its GPUs, NVSwitches and RDMA devices are or hang on. The other parts of
// that one are not here: its drives and network cards would be none that anybody could use.
func (r *reading) readAllPCI(ctx context.Context) {
	r.readPCI(ctx)
	if r.sim == nil {
		return
	}
	s := r.sim
	s.readPCI(ctx)
	parent, keep := map[string]string{}, map[string]bool{}
	for _, p := range s.inv.PCI {
		parent[p.Address] = p.Parent
	}
	with := func(address string) {
		for ; address != "" && !keep[address]; address = parent[address] {
			keep[address] = true
		}
	}
	for _, p := range s.inv.PCI {
		if accelerator(p) || nvswitch(p) || s.fs.Exists("sys/bus/pci/devices", p.Address, "infiniband") {
			with(p.Address)
		}
	}
	for _, p := range s.inv.PCI {
		if keep[p.Address] {
			r.inv.PCI = append(r.inv.PCI, p)
		}
	}
	r.inv.NVSwitches = append(r.inv.NVSwitches, s.inv.NVSwitches...)
	r.takeMissing(s)
}

// takeMissing moves what another reading could not read to this one.
func (r *reading) takeMissing(from *reading) {
	for _, m := range from.inv.Missing {
		r.missingf(m.What, "%s", m.Why)
	}
	from.inv.Missing = nil
}
