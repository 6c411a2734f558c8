package inspect

import (
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// generations are link speeds as the kernel prints them, from generation 1 on (drivers/pci/probe.c).
var generations = []string{"2.5 GT/s PCIe", "5.0 GT/s PCIe", "8.0 GT/s PCIe", "16.0 GT/s PCIe", "32.0 GT/s PCIe", "64.0 GT/s PCIe"}

// generation is a speed's number, 0 for what is unknown.
func generation(speed string) int { return slices.Index(generations, speed) + 1 }

// pcieLink is a function's link, nil where it has none of its own.
func (r *reading) pcieLink(address string) *fleet.PCIeLink {
	const dir = "sys/bus/pci/devices"
	l := &fleet.PCIeLink{
		Generation: generation(r.linkSpeed(dir, address, "current_link_speed")), Width: r.linkWidth(dir, address, "current_link_width"),
		MaxGeneration: generation(r.linkSpeed(dir, address, "max_link_speed")), MaxWidth: r.linkWidth(dir, address, "max_link_width"),
	}
	if *l == (fleet.PCIeLink{}) {
		return nil
	}
	return l
}

// findSwitches picks the NVSwitches out of the PCI functions: NVIDIA's class 0680, "other bridge". Blackwell boards show none.
func (r *reading) findSwitches() {
	for _, p := range r.inv.PCI {
		if !nvswitch(p) {
			continue
		}
		s := fleet.NVSwitch{PCIAddress: p.Address, PCIDevice: p.Vendor + ":" + p.Device, NUMANode: p.NUMANode, PCIe: r.pcieLink(p.Address)}
		// The driver's own account, such as "UUID: SWX-...".
		text := r.fs.Try("proc/driver/nvidia-nvswitch/devices", p.Address)
		for line := range strings.Lines(text) {
			k, v, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(k) {
			case "UUID":
				s.UUID = strings.TrimSpace(v)
			case "BIOS Version":
				s.Firmware = strings.TrimSpace(v)
			}
		}
		r.inv.NVSwitches = append(r.inv.NVSwitches, s)
	}
}

func nvswitch(p fleet.PCI) bool { return p.Vendor == "10de" && strings.HasPrefix(p.Class, "0680") }
