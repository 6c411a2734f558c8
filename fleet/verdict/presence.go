package verdict

import (
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// gpuPresence finds GPUs that are gone, lost, hung or without driver. All else about such a GPU follows from it.
func (j *judge) gpuPresence() {
	driven := 0
	for _, g := range j.inv.GPUs {
		if g.Index >= 0 {
			driven++
		}
	}
	for i, g := range j.inv.GPUs {
		name, f := j.names.gpu[i], finding{component: j.names.gpu[i], got: g.Lost}
		follow := "; its links, memory and rail are not judged"
		kind, said, _ := strings.Cut(g.Lost, ": ")
		if said != "" {
			said = " (" + said + ")"
		}
		switch {
		case kind == fleet.GPULostHung:
			f.code, f.do = "MC-GPU-HUNG", "reboot"
			j.block(f, "%s does not answer its driver in time%s%s", j.part(i), said, follow)
		case kind == fleet.GPULostBus:
			f.code, f.do = "MC-GPU-LOST", "cold-cycle"
			j.block(f, "%s fell off the bus: the driver has lost it%s%s", j.part(i), said, follow)
		case kind == fleet.GPULostUnknown, g.Lost == "" && g.Index < 0 && driven > 0:
			f.code, f.do, f.want, f.got = "MC-GPU-UNSEEN", "cold-cycle", "seen by the driver", "seen by PCI only"
			j.block(f, "%s is on PCI, but the driver does not show it%s", j.part(i), follow)
		case g.Lost != "":
			f.code, f.do = "MC-GPU-LOST", "cold-cycle"
			j.block(f, "%s is lost to its driver, which says: %s%s", j.part(i), g.Lost, follow)
		case g.Index < 0 && j.wantsDriver():
			continue // said once for all below
		default:
			continue
		}
		j.cover(name, "pci/"+g.PCIAddress, "pci/"+j.names.parent[g.PCIAddress])
		j.coverRail(g.PCIAddress)
	}
	j.gpuCount()
	if driven == 0 && j.wantsDriver() && (len(j.inv.GPUs) > 0 || onPCI(j.inv) > 0) {
		j.unread("gpus", "what the driver tells of GPUs", "gpu", "nvml", "gpu_driver")
		j.cover("gpus", "fabric", "driver")
		for _, n := range j.names.gpu {
			j.cover(n)
		}
	}
}

// wantsDriver reports whether the class expects what only a driver tells.
func (j *judge) wantsDriver() bool {
	e := j.class.Expect.GPUs
	return e.Model != "" || e.MemoryBytes != 0 || e.NVLinksUp != 0 || e.NVLinkGBps != 0
}

// gpuCount finds GPUs that PCI does not show, by module id where that tells which.
func (j *judge) gpuCount() {
	want := j.class.Expect.GPUs.Count
	if len(j.inv.GPUs) == 0 {
		if found := onPCI(j.inv); want != 0 && found != want {
			j.block(finding{code: "MC-CLASS-GPUS", component: "gpus", against: fleet.AgainstClass, want: fmt.Sprint(want), got: fmt.Sprint(found), do: "cold-cycle"},
				"%d found, class %s wants %d", found, j.class.Name, want)
			j.missing = max(0, want-found)
		}
		return
	}
	have, against := len(j.inv.GPUs), fleet.AgainstClass
	if want == 0 && len(j.names.absent) > 0 && j.board != nil {
		want, against = have+len(j.names.absent), fleet.AgainstSelf
	}
	if want == 0 || have == want {
		return
	}
	f := finding{code: "MC-GPU-MISSING", component: "gpus", against: against, want: fmt.Sprint(want), got: fmt.Sprint(have), do: "cold-cycle"}
	if have > want {
		f.code, f.do = "MC-CLASS-GPUS", "configure"
		j.block(f, "%d GPUs found, class %s wants %d", have, j.class.Name, want)
		return
	}
	j.missing = want - have
	absent := j.names.absent
	if j.names.modules && want > have+len(absent) { // the last module ids are among the missing
		for id := have + len(absent) + 1; id <= want; id++ {
			absent = append(absent, id)
		}
	}
	follow := "PCI does not show it: its links, its rail and its memory follow from that"
	if len(absent) == j.missing && len(absent) > 0 {
		for _, id := range absent {
			f.component, f.want, f.got = fmt.Sprintf("gpu/%d", id), "present", "absent"
			j.block(f, "GPU %d (module id %d) is missing: %s", id, id, follow)
			j.cover(f.component)
		}
		return
	}
	j.block(f, "%s of %d missing: %s", count(j.missing, "GPU"), want, strings.Replace(follow, "show it: its", "show them: their", 1))
}

// onPCI counts GPUs by PCI class where nobody read them: 0302 is a 3D controller and 0300 a VGA one; NVIDIA's GPUs (10de) are either (PCI Code and ID
// Assignment Specification 1.15, class 03h).
func onPCI(inv *fleet.Inventory) int {
	n := 0
	for _, p := range inv.PCI {
		if p.Vendor == "10de" && (strings.HasPrefix(p.Class, "0302") || strings.HasPrefix(p.Class, "0300")) {
			n++
		}
	}
	return n
}

// coverRail takes along what a rail without its GPU cannot be.
func (j *judge) coverRail(gpu string) {
	for _, r := range j.inv.Rails {
		if r.GPU == gpu {
			j.cover(fmt.Sprintf("rail/%d", r.Rail))
		}
	}
}

// switches finds NVSwitches that are missing; links that lead to them are down for that reason.
func (j *judge) switches() {
	have, want, against := len(j.inv.NVSwitches), j.class.Expect.NVSwitches, fleet.AgainstClass
	if want == 0 && have > 0 && j.board != nil {
		want, against = j.board.switches, fleet.AgainstSelf
	}
	if want == 0 || have == want {
		return
	}
	f := finding{code: "MC-NVSWITCH-MISSING", component: "nvswitches", against: against, want: fmt.Sprint(want), got: fmt.Sprint(have), do: "cold-cycle"}
	per := 0
	if j.board != nil && have < want {
		per = j.board.perGPU
		j.darkLinks = per * (want - have)
	}
	words := ""
	if per > 0 {
		words = fmt.Sprintf("; up to %d links of each GPU that are down follow from it", j.darkLinks)
	}
	j.block(f, "PCI shows %s, and %d are expected%s", count(have, "NVSwitch"), want, words)
	if j.missing == 0 && have < want {
		j.cover("fabric") // a fabric without one of its switches is not completed
	}
}
