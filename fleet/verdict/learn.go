package verdict

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Learn is what a machine like this one must be: numbers, kinds, places, links and versions, but nothing that only this one has (serials, addresses, GUIDs).
// What its parts do not agree on, or nobody could read, is left out, so that the machine itself never differs from what was learned of it. Sizes are
// nominal. source says where the numbers are from.
func Learn(inv fleet.Inventory, source string) fleet.ClassExpect {
	n := nameParts(&inv)
	e := fleet.ClassExpect{
		Source: source,
		CPUs:   len(inv.CPUs), NUMANodes: len(inv.NUMANodes), MemoryBytes: nominalMemory(inv.Memory), DIMMs: learnDIMMs(inv.Memory.DIMMs),
		NICs: len(inv.NICs), NVSwitches: len(inv.NVSwitches), ACS: learnACS(n),
		GPUs: learnGPUs(&inv, n), InfiniBand: learnRails(&inv, n), Topology: learnTopology(&inv), Firmware: learnFirmware(&inv),
	}
	e.Disks, e.NVMe.Count = drives(&inv)
	e.NVMe.SizeBytes = leastDrive(inv.Disks)
	e.NVMe.PCIe = learnPCIe(&inv, n, func(c string) bool { return strings.HasPrefix(c, "disk/") })
	e.Limits = learnLimits(inv.GPUs, source)
	return e
}

// Suspicions are what speaks against learning from a machine: all that is wrong with it by itself, and counters that a new one has at zero.
func Suspicions(inv fleet.Inventory) []fleet.Difference {
	const source = "a machine to learn from has none"
	out := Judge(inv, fleet.Class{})
	known := func(d fleet.Difference) bool {
		return slices.ContainsFunc(out, func(o fleet.Difference) bool { return o.Component == d.Component })
	}
	var more []fleet.Difference
	for _, d := range Judge(inv, fleet.Class{Name: "golden", Expect: fleet.ClassExpect{Limits: []fleet.Limit{
		{Check: "gpu-corrected-errors", Unit: "errors", Source: source}, {Check: "gpu-pcie-replays", Unit: "replays", Source: source}, {Check: "gpu-remapped-rows", Unit: "rows", Source: source},
	}}}) {
		if d.Code != "MC-GPU-LIMIT" || known(d) {
			continue
		}
		d.Severity, d.Blocks, d.Against = fleet.Warning, fleet.BlocksNothing, fleet.AgainstSelf
		more = append(more, d)
	}
	return sorted(append(out, more...))
}

// same is the value that all agree on; the zero value where they do not, or where there is none.
func same[T comparable](values []T) (v T) {
	for i, x := range values {
		if i > 0 && x != values[0] {
			return v
		}
	}
	if len(values) > 0 {
		v = values[0]
	}
	return v
}

// least is the smallest; 0 where one is not known.
func least[T int | int64 | float64](values []T) (v T) {
	if len(values) > 0 {
		v = slices.Min(values)
	}
	return max(v, 0)
}

func each[P, V any](parts []P, get func(P) V) []V {
	out := make([]V, 0, len(parts))
	for _, p := range parts {
		out = append(out, get(p))
	}
	return out
}

func plugged(ds []fleet.DIMM) []fleet.DIMM {
	return slices.DeleteFunc(slices.Clone(ds), func(d fleet.DIMM) bool { return d.SizeBytes == 0 })
}

// nominalMemory is what the modules have in all; without their word, what the kernel sees with the sixteenth at most that firmware and kernel keep.
func nominalMemory(m fleet.Memory) int64 {
	sum := int64(0)
	for _, d := range m.DIMMs {
		sum += d.SizeBytes
	}
	if t := m.TotalBytes; t >= sum-sum/16 && t <= sum+sum/16 || t <= 0 {
		return sum
	}
	step := int64(1) << max(0, bits.Len64(uint64(m.TotalBytes))-5)
	return (m.TotalBytes + step - 1) / step * step
}

func learnDIMMs(ds []fleet.DIMM) fleet.ExpectDIMMs {
	ds = plugged(ds)
	return fleet.ExpectDIMMs{Count: len(ds), SizeBytes: same(each(ds, func(d fleet.DIMM) int64 { return d.SizeBytes })), SpeedMTs: least(each(ds, func(d fleet.DIMM) int { return d.SpeedMTs }))}
}

// leastDrive is the size of the smallest NVMe drive with three figures, as drives of the same nominal size differ in the rest.
func leastDrive(ds []fleet.Disk) int64 {
	var sizes []int64
	for _, d := range ds {
		if d.Transport == "nvme" && !d.BootMedium && !d.Removable {
			sizes = append(sizes, d.SizeBytes)
		}
	}
	size, unit := least(sizes), int64(1)
	for size/unit >= 1000 {
		unit *= 10
	}
	return size / unit * unit
}

// learnPCIe is the least link of the parts that are chosen by component: the width that they have and the generation that they can reach.
func learnPCIe(inv *fleet.Inventory, n *names, chosen func(component string) bool) fleet.ExpectPCIe {
	kids := below(inv)
	var widths, generations []int
	for a, c := range n.byPCI {
		p := n.pci[a]
		if p == nil || !chosen(c) {
			continue
		}
		r := n.reach(p, kids)
		widths, generations = append(widths, r.width), append(generations, r.topGen)
	}
	return fleet.ExpectPCIe{Generation: least(generations), Width: least(widths)}
}

func learnACS(n *names) string {
	on, off := 0, 0
	for _, redirects := range n.redirects() {
		if redirects {
			on++
		} else {
			off++
		}
	}
	switch {
	case on > 0 && off == 0:
		return "on"
	case off > 0 && on == 0:
		return "off"
	}
	return ""
}

func learnGPUs(inv *fleet.Inventory, n *names) fleet.ExpectGPUs {
	gs := inv.GPUs
	e := fleet.ExpectGPUs{Count: len(gs)}
	if e.Count == 0 {
		e.Count = onPCI(inv)
		return e
	}
	e.Model, e.PCIDevice = same(each(gs, func(g fleet.GPU) string { return g.Model })), same(each(gs, func(g fleet.GPU) string { return g.PCIDevice }))
	// Drivers reserve a little more or less of the memory: whole GiB are what a model has for sure.
	e.MemoryBytes = least(each(gs, func(g fleet.GPU) int64 { return g.MemoryBytes })) >> 30 << 30
	e.Confidential = same(each(gs, func(g fleet.GPU) string { return g.Confidential }))
	e.NVLinksUp = same(each(gs, func(g fleet.GPU) int { return len(upLinks(g)) }))
	var speeds []float64
	for _, g := range gs {
		speeds = append(speeds, upLinks(g)...)
	}
	e.NVLinkGBps = least(speeds)
	gpu := map[string]bool{}
	for _, c := range n.gpu {
		gpu[c] = true
	}
	e.PCIe = learnPCIe(inv, n, func(c string) bool { return gpu[c] })
	return e
}

// upLinks are the speeds of a GPU's NVLinks that are up.
func upLinks(g fleet.GPU) (speeds []float64) {
	for _, l := range g.NVLinks {
		if l.State == fleet.LinkUp {
			speeds = append(speeds, l.SpeedGBps)
		}
	}
	return speeds
}

func learnRails(inv *fleet.Inventory, n *names) fleet.ExpectInfiniBand {
	var rates []float64
	var layers []string
	rails := railHCAs(inv)
	name := map[string]bool{}
	for _, h := range rails {
		name["hca/"+h.Name] = true
		for _, p := range h.Ports {
			rates, layers = append(rates, p.RateGbps), append(layers, p.LinkLayer)
		}
	}
	e := fleet.ExpectInfiniBand{Count: len(rails), RateGbps: least(rates), LinkLayer: same(layers), PCIe: learnPCIe(inv, n, func(c string) bool { return name[c] })}
	e.BlueField = same(each(dpus(inv), func(h *fleet.HCA) string { return h.Mode }))
	return e
}

func learnTopology(inv *fleet.Inventory) fleet.ExpectTopology {
	var t fleet.ExpectTopology
	if b := boardOf(inv); b != nil && len(inv.NVSwitches) == b.switches {
		t.Wiring = b.wiring
	}
	farthest := -1
	drives := -1
	for _, r := range inv.Rails {
		if r.HCA != "" {
			farthest = max(farthest, slices.Index(fleet.Distances, r.Distance))
		}
		if drives < 0 || len(r.NVMe) < drives {
			drives = len(r.NVMe)
		}
	}
	if farthest >= 0 {
		t.Rail = fleet.Distances[farthest]
	}
	t.NVMePerRail = max(0, drives)
	nodes := make([]int, len(inv.GPUs))
	for i := range nodes {
		nodes[i] = -1
	}
	for _, g := range inv.GPUs {
		if k := placeOf(g); k >= 0 && k < len(nodes) {
			nodes[k] = g.NUMANode
		}
	}
	if len(nodes) > 0 && slices.Min(nodes) >= 0 {
		t.GPUNUMANodes = nodes
	}
	return t
}

func learnFirmware(inv *fleet.Inventory) fleet.ExpectFirmware {
	gpu := func(get func(fleet.GPU) string) string { return same(each(inv.GPUs, get)) }
	hcas, drives := map[string][]string{}, map[string][]string{}
	for _, h := range inv.HCAs {
		hcas[h.PSID] = append(hcas[h.PSID], h.Firmware)
	}
	for _, d := range inv.Disks {
		if d.Transport == "nvme" && !d.BootMedium && !d.Removable {
			drives[d.Model] = append(drives[d.Model], d.Firmware)
		}
	}
	return fleet.ExpectFirmware{
		BIOS: inv.System.BIOS, BMC: deref(inv.BMC).Firmware, Driver: deref(inv.GPUDriver).Version,
		VBIOS: gpu(func(g fleet.GPU) string { return g.VBIOS }), GSP: gpu(func(g fleet.GPU) string { return g.GSP }), InfoROM: gpu(func(g fleet.GPU) string { return g.InfoROM["image"] }),
		HCA: sameOf(hcas), NVMe: sameOf(drives),
	}
}

// sameOf keeps the kinds whose parts all have the same version.
func sameOf(versions map[string][]string) map[string]string {
	out := map[string]string{}
	for kind, vs := range versions {
		if v := same(vs); kind != "" && v != "" {
			out[kind] = v
		}
	}
	return out
}

// learnLimits bounds what every GPU of a model offers alike; what wears or is counted has no limit that one machine could teach.
func learnLimits(gs []fleet.GPU, source string) []fleet.Limit {
	var out []fleet.Limit
	add := func(check, unit string, value float64) {
		if value > 0 {
			out = append(out, fleet.Limit{Check: check, Value: value, Unit: unit, Source: source})
		}
	}
	add("gpu-max-sm-clock", "MHz", least(each(gs, func(g fleet.GPU) float64 { return float64(deref(g.Clocks).MaxSM) })))
	add("gpu-power-limit", "W", least(each(gs, func(g fleet.GPU) float64 { return float64(deref(g.Power).Limit) / 1000 })))
	return out
}
