package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// counts compares numbers of parts with the class.
func (j *judge) counts() {
	e, class := j.class.Expect, j.class.Name
	differ := func(code, component string, got, want int) bool {
		if want == 0 || got == want {
			return false
		}
		return j.block(finding{code: code, component: component, against: fleet.AgainstClass, want: fmt.Sprint(want), got: fmt.Sprint(got), do: "reseat"}, "%d found, class %s wants %d", got, class, want)
	}
	differ("MC-CLASS-CPU", "cpus", len(j.inv.CPUs), e.CPUs)
	if differ("MC-CLASS-NUMA", "numa_nodes", len(j.inv.NUMANodes), e.NUMANodes) {
		j.cover("numa")
	}
	disks, nvme := drives(j.inv)
	// A drive that is gone is missing among the drives and among the disks: one difference.
	if !differ("MC-CLASS-NVME", "nvme", nvme, e.NVMe.Count) || disks-e.Disks != nvme-e.NVMe.Count {
		differ("MC-CLASS-DISKS", "disks", disks, e.Disks)
	}
	if gone := e.NICs - len(j.inv.NICs); gone < 0 || gone > j.goneHCAs {
		differ("MC-CLASS-NICS", "nics", len(j.inv.NICs), e.NICs)
	}
	if want := e.NVMe.SizeBytes; want > 0 {
		for _, d := range j.inv.Disks {
			if d.Transport == "nvme" && !d.BootMedium && !d.Removable && d.SizeBytes < want {
				j.block(finding{code: "MC-NVME-SIZE", component: "disk/" + d.Name, against: fleet.AgainstClass, want: fmt.Sprint(want), got: fmt.Sprint(d.SizeBytes), do: "replace"},
					"%s (%s, serial %s) has %d bytes, class %s wants at least %d", d.Name, orUnknown(d.Model), orUnknown(d.Serial), d.SizeBytes, class, want)
			}
		}
	}
	// Firmware and kernel keep a part of the RAM, which differs from boot to boot: a missing module is far more than a sixteenth.
	if got, want := j.inv.Memory.TotalBytes, e.MemoryBytes; want != 0 && (got < want-want/16 || got > want+want/16) {
		j.block(finding{code: "MC-CLASS-MEMORY", component: "memory", against: fleet.AgainstClass, want: fmt.Sprint(want), got: fmt.Sprint(got), do: "reseat"}, "%d bytes found, class %s wants %d", got, class, want)
	}
}

// drives counts what could hold a tenant's data, and how much of it is NVMe.
func drives(inv *fleet.Inventory) (disks, nvme int) {
	for _, d := range inv.Disks {
		if d.BootMedium || d.Removable {
			continue
		}
		disks++
		if d.Transport == "nvme" {
			nvme++
		}
	}
	return disks, nvme
}

// placement compares where parts are with where the class says: NUMA nodes of GPUs, rails, drives beside them.
func (j *judge) placement() {
	t, class := j.class.Expect.Topology, j.class.Name
	if len(t.GPUNUMANodes) > 0 && !j.covered["numa"] {
		var wrong []int
		for i, g := range j.inv.GPUs {
			k := placeOf(g)
			if j.explained(j.names.gpu[i]) || k < 0 || k >= len(t.GPUNUMANodes) || g.NUMANode == t.GPUNUMANodes[k] {
				continue
			}
			wrong = append(wrong, i)
		}
		if len(wrong) == len(j.inv.GPUs) && len(wrong) > 1 {
			j.block(finding{code: "MC-TOPOLOGY-NUMA", component: "gpus", against: fleet.AgainstClass, want: fmt.Sprint(t.GPUNUMANodes), got: "others", do: "configure"},
				"all %d GPUs are on other NUMA nodes than class %s says: a setting of the firmware, or another cabling", len(wrong), class)
			wrong = nil
		}
		for _, i := range wrong {
			g := j.inv.GPUs[i]
			k := placeOf(g)
			j.block(finding{code: "MC-TOPOLOGY-NUMA", component: j.names.gpu[i], against: fleet.AgainstClass, want: fmt.Sprint(t.GPUNUMANodes[k]), got: fmt.Sprint(g.NUMANode), do: "configure"},
				"%s is on NUMA node %d, class %s wants it on %d", j.part(i), g.NUMANode, class, t.GPUNUMANodes[k])
		}
	}
	if (t.Rail != "" || t.NVMePerRail > 0) && len(j.inv.Rails) == 0 && len(j.inv.GPUs) > 0 {
		j.unread("rails", "the rails", "rails", "pci")
		return
	}
	gone := j.said("nvme") != nil || j.said("disks") != nil
	for _, r := range j.inv.Rails {
		c := fmt.Sprintf("rail/%d", r.Rail)
		what := fmt.Sprintf("rail %d (%s, %s)", r.Rail, strings.Replace(j.names.at(r.GPU), "gpu/", "GPU ", 1), orUnknown(r.HCA))
		if t.Rail != "" && r.HCA != "" && slices.Index(fleet.Distances, r.Distance) > slices.Index(fleet.Distances, t.Rail) {
			j.block(finding{code: "MC-TOPOLOGY-RAIL", component: c, against: fleet.AgainstClass, want: t.Rail, got: r.Distance, do: "cable"}, "%s: GPU and HCA meet at %s, class %s wants %s or nearer", what, r.Distance, class, t.Rail)
			continue
		}
		if t.Rail != "" && r.HCA == "" && j.class.Expect.InfiniBand.Count == 0 {
			j.block(finding{code: "MC-TOPOLOGY-RAIL", component: c, against: fleet.AgainstClass, want: t.Rail, got: "no HCA", do: "reseat"}, "%s: no HCA is near the GPU, class %s wants one at %s", what, class, t.Rail)
			continue
		}
		if len(r.NVMe) < t.NVMePerRail && !gone {
			j.block(finding{code: "MC-TOPOLOGY-RAIL", component: c, against: fleet.AgainstClass, want: fmt.Sprintf("%d drives", t.NVMePerRail), got: fmt.Sprintf("%d drives", len(r.NVMe)), do: "reseat"},
				"%s has %s beside its GPU, class %s wants %d", what, count(len(r.NVMe), "drive"), class, t.NVMePerRail)
		}
	}
}

// placeOf is where a GPU stands in ExpectTopology.GPUNUMANodes; negative where nobody knows.
func placeOf(g fleet.GPU) int {
	if g.ModuleID > 0 {
		return g.ModuleID - 1
	}
	return g.Index
}

// firmware compares versions with the class's baseline: once for all parts where all have the same other one.
func (j *judge) firmware() {
	f := j.class.Expect.Firmware
	j.baseline("system/bios", "the BIOS", f.BIOS, []string{"system/bios"}, []string{j.inv.System.BIOS})
	if f.BMC != "" {
		j.baseline("bmc", "the BMC's firmware", f.BMC, []string{"bmc"}, []string{deref(j.inv.BMC).Firmware})
	}
	if f.Driver != "" {
		j.baseline("driver", "the GPU driver", f.Driver, []string{"driver"}, []string{deref(j.inv.GPUDriver).Version})
	}
	gpus := func(what, want string, get func(fleet.GPU) string) {
		var c, v []string
		for i, g := range j.inv.GPUs {
			if !j.explained(j.names.gpu[i]) {
				c, v = append(c, j.names.gpu[i]), append(v, get(g))
			}
		}
		j.baseline("gpus", what, want, c, v)
	}
	gpus("VBIOS", f.VBIOS, func(g fleet.GPU) string { return g.VBIOS })
	gpus("GSP firmware", f.GSP, func(g fleet.GPU) string { return g.GSP })
	gpus("InfoROM image", f.InfoROM, func(g fleet.GPU) string { return g.InfoROM["image"] })
	for _, psid := range sortedKeys(f.HCA) {
		var c, v []string
		for _, h := range j.inv.HCAs {
			if h.PSID == psid {
				c, v = append(c, "hca/"+h.Name), append(v, h.Firmware)
			}
		}
		j.baseline("hcas", "firmware of "+psid, f.HCA[psid], c, v)
	}
	for _, model := range sortedKeys(f.NVMe) {
		var c, v []string
		for _, d := range j.inv.Disks {
			if d.Model == model && !d.BootMedium {
				c, v = append(c, "disk/"+d.Name), append(v, d.Firmware)
			}
		}
		j.baseline("nvme", "firmware of "+model, f.NVMe[model], c, v)
	}
}

func (j *judge) baseline(all, what, want string, components, values []string) {
	if want == "" {
		return
	}
	wrong := map[string][]string{}
	for i, v := range values {
		if v != want {
			wrong[v] = append(wrong[v], components[i])
		}
	}
	for _, v := range sortedKeys(wrong) {
		cs := wrong[v]
		if len(cs) == len(components) && len(cs) > 1 {
			cs = []string{all}
		}
		for _, c := range cs {
			if v == "" {
				j.unread(c, what, "gpu", "gpus", "nvml", "hcas", "bmc", "system")
				continue
			}
			words := c + ": "
			if c == all {
				words = ""
				if len(components) > 1 {
					words = fmt.Sprintf("all %d: ", len(components))
				}
			}
			j.block(finding{code: "MC-FIRMWARE-BASELINE", component: c, against: fleet.AgainstClass, want: want, got: v, do: "update"}, "%s%s is %s, class %s wants %s", words, what, v, j.class.Name, want)
		}
	}
}
