package verdict

import (
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Fellow is another node of the same class with its newest inventory.
type Fellow struct {
	Node      string
	Inventory fleet.Inventory
}

// leastFellows is how many must agree before one who differs is the odd one.
const leastFellows = 2

// Fellows says in what a machine differs from what most of its fellows agree on: firmware, numbers of parts, links. Nothing of it blocks: the fleet may
// be wrong, and the class says what must be.
func Fellows(inv fleet.Inventory, fellows []Fellow) []fleet.Difference {
	if len(fellows) < leastFellows {
		return nil
	}
	j := newJudge(&inv, fleet.Class{})
	mine := traits(&inv)
	votes := map[[2]string]map[string]int{}
	for i := range fellows {
		for k, v := range traits(&fellows[i].Inventory) {
			if votes[k] == nil {
				votes[k] = map[string]int{}
			}
			votes[k][v]++
		}
	}
	keys := map[string][2]string{}
	for k := range votes {
		keys[k[0]+"\x00"+k[1]] = k
	}
	for _, id := range sortedKeys(keys) {
		k := keys[id]
		most, n, all := "", 0, 0
		for _, v := range sortedKeys(votes[k]) {
			all += votes[k][v]
			if votes[k][v] > n {
				most, n = v, votes[k][v]
			}
		}
		got, ok := mine[k]
		if !ok || got == most || n < leastFellows || 2*n <= all {
			continue
		}
		j.warn(finding{code: "MC-FLEET-ODD", component: k[0], against: fleet.AgainstFleet, want: most, got: got, do: doAbout(k[1])}, "%s of %s is %s, and %s on %d of %d nodes of its class", k[1], k[0], orUnknown(got), orUnknown(most), n, all)
	}
	return sorted(j.out)
}

func doAbout(trait string) string {
	if strings.Contains(trait, "number") || strings.Contains(trait, "links") {
		return "reseat"
	}
	return "update"
}

// traits are what machines of a kind have in common, by component and name of the trait. Serial numbers and addresses are no traits.
func traits(inv *fleet.Inventory) map[[2]string]string {
	t := map[[2]string]string{}
	add := func(component, what, value string) {
		if value != "" {
			t[[2]string{component, what}] = value
		}
	}
	// Of many equal parts the trait is all their values together.
	all := map[[2]string]map[string]bool{}
	each := func(component, what, value string) {
		if value == "" {
			return
		}
		k := [2]string{component, what}
		if all[k] == nil {
			all[k] = map[string]bool{}
		}
		all[k][value] = true
	}
	n := func(component string, count int) { add(component, "the number", fmt.Sprint(count)) }
	add("system", "the model", inv.System.Model)
	add("system/bios", "the version", inv.System.BIOS)
	add("bmc", "the firmware", deref(inv.BMC).Firmware)
	add("driver", "the version", deref(inv.GPUDriver).Version)
	n("cpus", len(inv.CPUs))
	n("numa_nodes", len(inv.NUMANodes))
	n("nvswitches", len(inv.NVSwitches))
	n("nics", len(inv.NICs))
	if len(inv.GPUs) > 0 {
		n("gpus", len(inv.GPUs))
	} else {
		n("gpus", onPCI(inv))
	}
	for _, c := range inv.CPUs {
		each("cpus", "the model", c.Model)
		each("cpus", "the microcode", c.Microcode)
	}
	modules, rails, drives := 0, 0, 0
	for _, d := range inv.Memory.DIMMs {
		if d.SizeBytes > 0 {
			modules++
			each("dimms", "the size and speed", fmt.Sprintf("%d GiB at %d MT/s", d.SizeBytes>>30, d.SpeedMTs))
		}
	}
	n("dimms", modules)
	for _, g := range inv.GPUs {
		each("gpus", "the model", g.Model)
		each("gpus", "the VBIOS", g.VBIOS)
		each("gpus", "the InfoROM image", g.InfoROM["image"])
		up := 0
		for _, l := range g.NVLinks {
			if l.State == fleet.LinkUp {
				up++
			}
		}
		if len(g.NVLinks) > 0 {
			each("gpus", "the links that are up", fmt.Sprint(up))
		}
		if l := g.PCIe; l != nil {
			each("gpus", "the PCIe width", fmt.Sprintf("x%d", l.Width))
		}
	}
	for _, h := range inv.HCAs {
		if h.PSID != "" {
			each("hca/"+h.PSID, "the firmware", h.Firmware)
		}
		if h.Role == fleet.HCARail {
			rails++
			for _, p := range h.Ports {
				each("infiniband", "the rate", fmt.Sprintf("%g Gb/s", p.RateGbps))
			}
		}
	}
	n("infiniband", rails)
	for _, d := range inv.Disks {
		if d.BootMedium || d.Removable {
			continue
		}
		drives++
		each("disk/"+d.Model, "the firmware", d.Firmware)
	}
	n("disks", drives)
	for k, vs := range all {
		t[k] = strings.Join(sortedKeys(vs), ", ")
	}
	return t
}
