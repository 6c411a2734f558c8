package main

import (
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

func printInventory(p *program, inv fleet.Inventory) error {
	switch p.flags.output {
	case "", "table", "wide":
	default:
		v := view[fleet.Inventory]{name: func(i fleet.Inventory) string { return i.System.Serial }}
		return v.print(p, []fleet.Inventory{inv}, true)
	}
	var rows partRows
	add := rows.add
	if inv.Simulated != "" {
		add("simulated", inv.Simulated, "GPUs, NVSwitches and HCAs are made up by this profile")
	}
	s := inv.System
	add("system", s.Vendor, s.Model, "serial "+orDash(s.Serial), s.UUID)
	add("firmware", orDash(s.BIOS), s.FirmwareMode, "secure boot "+s.SecureBoot, "kernel "+s.Kernel)
	for _, c := range inv.CPUs {
		add("cpu", fmt.Sprint(c.Socket), c.Model, fmt.Sprintf("%d cores", c.Cores), fmt.Sprintf("%d threads", c.Threads))
	}
	for _, n := range inv.NUMANodes {
		add("numa", fmt.Sprint(n.ID), bytesText(n.MemoryBytes), "cpus "+n.CPUs, fmt.Sprint(n.Distances))
	}
	add("memory", bytesText(inv.Memory.TotalBytes), fmt.Sprintf("%d modules", len(inv.Memory.DIMMs)))
	for _, g := range inv.GPUs {
		add("gpu", gpuName(g), orDash(g.Serial), bytesText(g.MemoryBytes), g.Model+" ("+gpuNote(g)+")")
	}
	for _, w := range inv.NVSwitches {
		add("nvswitch", w.PCIAddress, orDash(w.UUID), fmt.Sprintf("%d ports", len(w.Ports)), w.PCIDevice)
	}
	for _, h := range inv.HCAs {
		add("hca", h.Name, hcaPlace(h), "firmware "+orDash(h.Firmware), hcaPorts(h))
	}
	for _, rail := range inv.Rails {
		add("rail", fmt.Sprint(rail.Rail), "GPU "+rail.GPU, "HCA "+orDash(rail.HCA), strings.TrimSpace(strings.Join(rail.NVMe, " ")+" "+rail.Distance))
	}
	for _, d := range inv.Disks {
		note := d.Transport
		if d.BootMedium {
			note += ", boot medium"
		}
		add("disk", d.Name, d.Serial, bytesText(d.SizeBytes), d.Model+" ("+note+")")
	}
	for _, n := range inv.NICs {
		peer := "no LLDP neighbour"
		if n.LLDP != nil {
			peer = "at " + n.LLDP.SystemName + " " + n.LLDP.PortID
		}
		add("nic", n.Name, string(n.MAC), n.Driver, peer)
	}
	for _, f := range inv.KernelFindings {
		add("kernel", f.Kind, orDash(f.Component), fmt.Sprintf("%d times", f.Count), f.Line)
	}
	for _, m := range inv.Missing {
		add("missing", m.What, m.Why)
	}
	return rows.print(p.stdout)
}

// gpuName is a GPU's place on the board, or else its address.
func gpuName(g fleet.GPU) string {
	if g.ModuleID > 0 {
		return fmt.Sprintf("module %d", g.ModuleID)
	}
	return g.PCIAddress
}

// gpuNote is what is wrong with a GPU, or how it is connected.
func gpuNote(g fleet.GPU) string {
	if g.Lost != "" {
		return g.Lost
	}
	up := 0
	for _, l := range g.NVLinks {
		if l.State == fleet.LinkUp {
			up++
		}
	}
	note := "at " + g.PCIAddress
	if len(g.NVLinks) > 0 {
		note += fmt.Sprintf(", %d of %d NVLinks up", up, len(g.NVLinks))
	}
	return note
}

// hcaPlace is what an HCA is for.
func hcaPlace(h fleet.HCA) string {
	if h.Rail != nil {
		return fmt.Sprintf("rail %d", *h.Rail)
	}
	return h.Role
}

// hcaPorts is the state of an HCA's ports.
func hcaPorts(h fleet.HCA) string {
	var ports []string
	for _, p := range h.Ports {
		ports = append(ports, fmt.Sprintf("%s %s %g Gb/s %s", p.LinkLayer, p.State, p.RateGbps, p.GUID))
	}
	return strings.Join(ports, ", ")
}

// bytesText prints a size with three digits and a decimal unit.
func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	v, u := float64(n), 0
	for v >= 1000 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", v, units[u])
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
