package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// machine lists who was burned in: a report counts for exactly these parts.
func (b *burner) machine() fleet.BurnedNode {
	m := fleet.BurnedNode{Parts: []fleet.BurnedPart{}}
	if b.last == nil {
		return m
	}
	inv := b.last
	m.Vendor, m.Model, m.Serial, m.UUID, m.BIOS, m.Kernel = inv.System.Vendor, inv.System.Model, inv.System.Serial, inv.System.UUID, inv.System.BIOS, inv.System.Kernel
	m.Driver, m.Topology = deref(inv.GPUDriver).Version, inv.Rails
	m.Parts = Parts(inv)
	if b.first != nil && b.first != b.last { // what left while it ran was there, too
		for _, p := range Parts(b.first) {
			if !slices.ContainsFunc(m.Parts, func(o fleet.BurnedPart) bool { return o.Component == p.Component && o.Serial != "" }) {
				m.Parts = slices.DeleteFunc(m.Parts, func(o fleet.BurnedPart) bool { return o.Component == p.Component })
				m.Parts = append(m.Parts, p)
			}
		}
	}
	slices.SortStableFunc(m.Parts, func(x, y fleet.BurnedPart) int { return fleet.CompareNatural(x.Component, y.Component) })
	return m
}

// Parts are the parts of a machine by the names that verdicts give them, with the serials that tell one from another.
func Parts(inv *fleet.Inventory) (out []fleet.BurnedPart) {
	n := nameParts(inv)
	for _, c := range inv.CPUs {
		out = append(out, fleet.BurnedPart{Component: fmt.Sprintf("cpu/%d", c.Socket), Model: c.Model, Firmware: c.Microcode})
	}
	for _, d := range inv.Memory.DIMMs {
		if d.SizeBytes > 0 {
			out = append(out, fleet.BurnedPart{Component: "dimm/" + d.Locator, Model: d.Part, Serial: d.Serial})
		}
	}
	for i, g := range inv.GPUs {
		out = append(out, fleet.BurnedPart{Component: n.gpu[i], Model: g.Model, Serial: cmp.Or(g.Serial, g.UUID), Firmware: g.VBIOS, PCIAddress: g.PCIAddress, NVLinks: len(g.NVLinks)})
	}
	for i, s := range switchesInOrder(inv) {
		out = append(out, fleet.BurnedPart{Component: fmt.Sprintf("nvswitch/%d", i), Model: s.PCIDevice, Serial: s.UUID, Firmware: s.Firmware, PCIAddress: s.PCIAddress})
	}
	for _, h := range inv.HCAs {
		out = append(out, fleet.BurnedPart{Component: "hca/" + h.Name, Model: cmp.Or(h.Part, h.Type), Serial: cmp.Or(h.Serial, string(h.NodeGUID)), Firmware: h.Firmware, PCIAddress: h.PCIAddress})
		for _, p := range h.Ports {
			if p.Module != nil {
				out = append(out, fleet.BurnedPart{Component: fmt.Sprintf("hca/%s/port/%d", h.Name, p.Port), Model: p.Module.Part, Serial: p.Module.Serial})
			}
		}
	}
	for _, d := range inv.Disks {
		if !d.BootMedium && !d.Removable {
			out = append(out, fleet.BurnedPart{Component: "disk/" + d.Name, Model: d.Model, Serial: d.Serial, Firmware: d.Firmware, PCIAddress: d.PCIAddress})
		}
	}
	return out
}

// partOf is the burned-in part that a component is, or is a piece of: gpu/3 for gpu/3/nvlink/7.
func partOf(parts []fleet.BurnedPart, component string) (fleet.BurnedPart, bool) {
	for at := component; at != ""; {
		if i := slices.IndexFunc(parts, func(p fleet.BurnedPart) bool { return p.Component == at }); i >= 0 {
			return parts[i], true
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			break
		}
		at = at[:i]
	}
	return fleet.BurnedPart{}, false
}

// name is how sentences call a component: kind, slot, serial, address.
func (b *burner) name(component string) string {
	kind, rest, _ := strings.Cut(component, "/")
	if b.last == nil {
		return strings.Replace(component, "/", " ", 1)
	}
	p, known := partOf(b.burnedParts(), component)
	s := strings.Replace(component, "/", " ", 1)
	switch kind {
	case "gpu":
		place, more, _ := strings.Cut(rest, "/")
		s = "GPU " + place
		if link, ok := strings.CutPrefix(more, "nvlink/"); ok {
			s = "NVLink " + link + " of " + s
		} else if peer, ok := strings.CutPrefix(more, "peer/"); ok {
			return fmt.Sprintf("GPU %s to GPU %s", place, peer)
		}
	case "dimm":
		s = "memory module " + rest
	case "disk":
		s = "drive " + rest
	case "hca":
		name, port, ok := strings.Cut(rest, "/port/")
		s = "HCA " + name
		if ok {
			s += " port " + port
		}
	case "cpu":
		socket, bank, _ := strings.Cut(rest, "/")
		s = strings.TrimSpace("processor " + socket + " " + strings.Replace(bank, "/", " ", 1))
	case "core":
		s = "core " + rest
		if socket := b.socketOf(rest); socket != "" {
			s += " of socket " + socket
		}
	case "numa":
		s = "NUMA node " + rest
	case "nvswitch":
		s = "NVSwitch " + rest
	}
	if !known {
		return s
	}
	var more []string
	if p.Serial != "" {
		more = append(more, "serial "+p.Serial)
	}
	if p.PCIAddress != "" {
		more = append(more, "at "+p.PCIAddress)
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}

func (b *burner) burnedParts() []fleet.BurnedPart {
	if b.burned == nil {
		b.burned = b.machine().Parts
	}
	return b.burned
}

// socketOf is the socket of a core where cores are numbered through all sockets of one size, "" otherwise.
func (b *burner) socketOf(core string) string {
	cpus := b.last.CPUs
	n := 0
	if _, err := fmt.Sscanf(core, "%d", &n); err != nil || len(cpus) == 0 || cpus[0].Cores == 0 {
		return ""
	}
	socket := n / cpus[0].Cores
	if socket >= len(cpus) || slices.ContainsFunc(cpus, func(c fleet.CPU) bool { return c.Cores != cpus[0].Cores }) {
		return ""
	}
	return fmt.Sprint(cpus[socket].Socket)
}

// replacement names what to send back for a component.
func (b *burner) replacement(component string) string {
	kind, rest, _ := strings.Cut(component, "/")
	switch kind {
	case "core":
		if s := b.socketOf(rest); s != "" {
			return "the processor of socket " + s
		}
		return "the processor with core " + rest
	case "cpu":
		socket, _, _ := strings.Cut(rest, "/")
		return "the processor of socket " + socket
	case "system":
		return "the processor or memory module that the kernel's message names"
	case "numa":
		return "the memory modules of NUMA node " + rest + ", one after the other"
	case "gpu":
		place, _, _ := strings.Cut(rest, "/")
		return b.name("gpu/" + place)
	case "hca":
		name, _, port := strings.Cut(rest, "/port/")
		if p, ok := partOf(b.burnedParts(), component); port && ok && p.Component == component {
			return fmt.Sprintf("the cable or module at %s (serial %s)", strings.Replace(component, "/", " ", 1), orUnknown(p.Serial))
		}
		return b.name("hca/" + name)
	}
	return b.name(component)
}

// root is the part that a component belongs to: gpu/3 of gpu/3/nvlink/7.
func root(component string) string {
	kind, rest, ok := strings.Cut(component, "/")
	if !ok || kind == "pci" || kind == "system" {
		return component
	}
	place, _, _ := strings.Cut(rest, "/")
	return kind + "/" + place
}

// roots are the parts that a component is about: of a pair of GPUs both.
func roots(component string) []string {
	r := []string{root(component)}
	if _, peer, ok := strings.Cut(component, "/peer/"); ok {
		r = append(r, "gpu/"+peer)
	}
	return r
}
