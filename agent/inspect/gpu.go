package inspect

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// readGPUs has the accelerators read by whoever knows their drivers, and enters at the NVSwitches which link meets which port.
func (r *reading) readGPUs(ctx context.Context) {
	if r.opts.GPUs == nil {
		return
	}
	side := r.gpuSide()
	pci := side.inv.PCI
	if r.opts.Only != nil && !slices.Contains(r.opts.Only, PartPCI) {
		alone := &reading{opts: r.opts, fs: side.fs, inv: &fleet.Inventory{}}
		alone.readPCI(ctx)
		pci = alone.inv.PCI
		r.inv.Missing = append(r.inv.Missing, alone.inv.Missing...)
	}
	var missing []fleet.Missing
	r.inv.GPUDriver, r.inv.GPUs, missing = r.opts.GPUs(ctx, side.fs, pci)
	r.inv.Missing = append(r.inv.Missing, missing...)
	for i := range r.inv.NVSwitches {
		s := &r.inv.NVSwitches[i]
		for _, g := range r.inv.GPUs {
			for _, l := range g.NVLinks {
				if l.Remote != nil && l.Remote.Port != nil && l.Remote.PCIAddress == s.PCIAddress {
					s.Ports = append(s.Ports, fleet.SwitchPort{Port: *l.Remote.Port, Module: g.ModuleID, Link: l.Link})
				}
			}
		}
		slices.SortFunc(s.Ports, func(a, b fleet.SwitchPort) int { return a.Port - b.Port })
	}
}

// settleFabricManager drops what was found of a fabric manager on a machine that needs none of its own: one without NVSwitches on PCI, and without the functions
// by which it reaches those of a Blackwell board. GPUs may all the same be part of a fabric that another system manages.
func (r *reading) settleFabricManager() {
	d := r.inv.GPUDriver
	if d == nil || len(r.inv.NVSwitches) > 0 || slices.ContainsFunc(r.inv.HCAs, func(h fleet.HCA) bool { return h.Role == fleet.HCAFabric }) {
		return
	}
	d.FabricManager = ""
}
