package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// inventories judges the machine as it was read last, with all that the kernel said while it worked, and what has changed since the first reading. What
// is right is a check, too.
func (b *burner) inventories() {
	if b.last == nil {
		if len(b.parts) > 0 {
			b.add(ofOther, fleet.Check{ID: "inventory", Component: "node", Outcome: fleet.CouldNotTell, Code: "MC-BURN-UNTOLD", Words: "nobody read what the machine is made of: no part of the burn-in has an inventory"})
		}
		return
	}
	b.everyGPU()
	for _, d := range Judge(*b.last, b.in.Class) {
		if b.countedByDelta(d) {
			continue
		}
		b.difference(d)
	}
	if b.first != nil {
		for _, d := range Last(*b.last, *b.first) {
			if strings.HasPrefix(d.Code, "MC-PART-") && d.Code != "MC-PART-ADDED" && !b.said(root(d.Component)) && !b.gone(d.Component) {
				d.Blocks, d.Words = fleet.BlocksAllocate, d.Words+", since the burn-in began"
				b.difference(d)
			}
		}
	}
	b.whole()
}

// gone reports whether it is said already why a part is not seen any more: nobody shows any GPU, or the part at an address is missing by its name.
func (b *burner) gone(component string) bool {
	return slices.ContainsFunc(b.checks, func(f found) bool {
		return f.family == ofPresence && f.Outcome == fleet.Fail && strings.HasPrefix(component, "pci/") || f.family == ofPlatform && (strings.HasPrefix(component, "gpu") || strings.HasPrefix(component, "pci/"))
	})
}

// everyGPU: a mistake of the load or of the driver meets all GPUs alike, so that an exception which all of them report condemns none.
func (b *burner) everyGPU() {
	at := map[int]map[string]bool{}
	j := newJudge(b.last, b.in.Class)
	for _, k := range b.last.KernelFindings {
		if k.Kind == "xid" && slices.Contains(programXIDs, k.Code) {
			if at[k.Code] == nil {
				at[k.Code] = map[string]bool{}
			}
			at[k.Code][j.place(k.Component)] = true
		}
	}
	for _, code := range programXIDs {
		if n := len(at[code]); n < 2 || n < len(b.last.GPUs) {
			continue
		}
		b.last.KernelFindings = slices.DeleteFunc(slices.Clone(b.last.KernelFindings), func(k fleet.KernelFinding) bool { return k.Kind == "xid" && k.Code == code })
		b.add(ofPlatform, fleet.Check{ID: "platform-load", Component: "platform", Outcome: fleet.CouldNotTell, Code: "MC-BURN-PLATFORM", Do: "update",
			Words: fmt.Sprintf("the platform: each of the %d GPUs reported XID %d (%s), so that it is a mistake of the load or of the driver, and no GPU's", len(at[code]), code, xidOf(code).words)})
	}
}

// programXIDs are those that a program's mistake causes as well as broken hardware: our own load is the same on all GPUs.
var programXIDs = []int{13, 31, 43, 45}

// countedByDelta: totals since boot may be old; where a counter could be compared with what it was, only what was added counts.
func (b *burner) countedByDelta(d fleet.Difference) bool {
	if d.Blocks != fleet.BlocksNothing {
		return false
	}
	switch d.Code {
	case "MC-NVLINK-ERRORS", "MC-HCA-ERRORS", "MC-DIMM-ERRORS", "MC-PCIE-AER":
	default:
		return false
	}
	for _, kind := range []string{"aer", "edac", "nvlink", "mlx5"} { // words of the kernel, which have no counter
		if strings.HasPrefix(d.Got, kind+", ") {
			return b.saidBefore(kind, d.Component)
		}
	}
	return true
}

// saidBefore reports that the kernel said such a thing before the burn-in, and not while it ran.
func (b *burner) saidBefore(kind, component string) bool {
	j := newJudge(b.last, b.in.Class)
	return !slices.ContainsFunc(b.kernel, func(k fleet.KernelFinding) bool { return k.Kind == kind && j.place(k.Component) == component })
}

// difference enters what an inventory says.
func (b *burner) difference(d fleet.Difference) {
	c := fleet.Check{ID: strings.ToLower(strings.TrimPrefix(d.Code, "MC-")), Component: d.Component, Outcome: fleet.Warn, Code: d.Code, Words: d.Words, Do: d.Do}
	if p, ok := partOf(b.burnedParts(), d.Component); ok && p.Serial != "" && !strings.Contains(c.Words, p.Serial) { // what is lost does not tell its serial any more
		c.Words += " (" + strings.Replace(p.Component, "/", " ", 1) + " has serial " + p.Serial + ")"
	}
	if d.Want != "" || d.Got != "" {
		c.Evidence = append(c.Evidence, fmt.Sprintf("%s, wanted %s (against %s)", orUnknown(d.Got), orUnknown(d.Want), d.Against))
	}
	for _, k := range b.last.KernelFindings {
		if root(newJudge(b.last, b.in.Class).place(k.Component)) == root(d.Component) && k.Line != "" && len(c.Evidence) < 8 {
			c.Evidence = append(c.Evidence, "kernel: "+k.Line)
		}
	}
	if d.Blocks != fleet.BlocksNothing {
		c.Outcome = fleet.Fail
	}
	f := familyOf(d)
	switch {
	case f == ofPlatform:
		c.Outcome, c.Component, c.Words = fleet.CouldNotTell, "platform", "the platform: "+d.Words
		c.Evidence = append(c.Evidence, "code "+d.Code+" of "+d.Component)
	case d.Code == "MC-INVENTORY-UNREAD":
		c.Outcome = fleet.CouldNotTell
	}
	b.add(f, c)
}

// familyOf is what a difference is about. What the software of the node does, and what hinders all parts alike, is the platform's.
func familyOf(d fleet.Difference) family {
	switch d.Code {
	case "MC-FABRIC-MANAGER":
		return ofPlatform
	case "MC-FABRIC-STATE", "MC-FABRIC-HEALTH":
		if d.Component == "fabric" {
			return ofPlatform
		}
		return ofLink
	case "MC-INVENTORY-UNREAD":
		if d.Component == "gpus" || d.Component == "fabric" || d.Component == "infiniband" {
			return ofPlatform
		}
		return ofOther
	case "MC-FIRMWARE-BASELINE":
		if d.Component == "driver" {
			return ofPlatform
		}
		return ofOther
	case "MC-GPU-LOST", "MC-GPU-HUNG", "MC-GPU-UNSEEN", "MC-GPU-MISSING", "MC-CLASS-GPUS", "MC-HCA-MISSING", "MC-CLASS-NVME", "MC-CLASS-DISKS", "MC-DIMM-MISSING", "MC-NVSWITCH-MISSING":
		return ofPresence
	case "MC-GPU-SLOWDOWN":
		if d.Component == "system/power" {
			return ofPower
		}
		return ofHeat
	case "MC-GPU-HOT":
		return ofHeat
	case "MC-GPU-POWER-LIMIT":
		return ofPower
	case "MC-GPU-LIMIT":
		switch {
		case strings.HasSuffix(d.Want, " replays"):
			return ofPCIe
		case strings.HasSuffix(d.Want, " W"), strings.HasSuffix(d.Want, " MHz"):
			return ofPower
		}
		return ofMemory
	case "MC-GPU-ECC", "MC-GPU-SRAM", "MC-GPU-REMAP-FAILED", "MC-GPU-REMAP-PENDING", "MC-GPU-REMAP-SPENT", "MC-GPU-INFOROM":
		return ofMemory
	case "MC-GPU-PEER":
		return ofLink
	case "MC-GPU-XID", "MC-GPU-RECOVERY", "MC-CPU-ERROR":
		return ofDriver
	}
	switch kind, _, _ := strings.Cut(strings.TrimPrefix(d.Code, "MC-"), "-"); kind {
	case "PART":
		return ofPresence
	case "PCIE":
		return ofPCIe
	case "NVLINK", "NVSWITCH":
		return ofLink
	case "HCA":
		return ofPort
	case "NVME":
		return ofDisk
	case "DIMM":
		return ofDIMM
	}
	return ofOther
}

// whole enters a check that passed for each part of which the inventories say nothing bad, so that a report counts what was looked at.
func (b *burner) whole() {
	for _, p := range b.burnedParts() {
		kind, _, _ := strings.Cut(p.Component, "/")
		if strings.Contains(p.Component, "/port/") || b.said(p.Component) || b.said(kind+"s") {
			continue
		}
		b.add(ofOther, fleet.Check{ID: kind + "-state", Component: p.Component, Outcome: fleet.Pass, Words: b.name(p.Component) + " is what it should be, by itself and by its class"})
	}
}
