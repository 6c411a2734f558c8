package reconcile

import (
	"context"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// compareClass compares the newest inventory with the class, the enrolled identity and the accepted devices.
func (l *Loop) compareClass(ctx context.Context, c step.Call) (step.Outcome, error) {
	v, err := l.look(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	n := v.node.v
	inv, err := l.inventory(ctx, n)
	if err != nil {
		return step.Outcome{}, err
	}
	faults := Compare(*n, v.class, *inv)
	out := step.Outcome{Faults: faults, Evidence: map[string]any{"class": v.class.Name, "differences": len(faults), "inventory": n.Inventory,
		"compared": v.class.Compared(n.Inventory)}}
	for _, f := range faults {
		if f.Code == "MC-NODE-IDENTITY" {
			return out, fleet.Errorf(fleet.Refused, "MC-NODE-IDENTITY", "this is another machine than was enrolled: %s", f.Evidence).WithHint("%s", f.Hint)
		}
	}
	if use := v.op.v; use != nil && use.Use == string(step.Deploy) && len(faults) > 0 {
		return out, fleet.Errorf(fleet.Refused, "MC-CLASS-DIFFERS", "%d differences since the node was chosen, first %s: %s", len(faults), faults[0].Component, faults[0].Evidence).
			WithHint("metalctl node show %s", n.Name)
	}
	return out, nil
}

// Compare lists what an inventory shows to differ from what the node must be; each difference is a fault. It is pure.
func Compare(n fleet.Node, class fleet.Class, inv fleet.Inventory) []fleet.Fault {
	var out []fleet.Fault
	add := func(code, component string, blocks fleet.Blocks, hint, format string, args ...any) {
		out = append(out, fleet.Fault{Code: code, Component: component, Severity: fleet.Critical, Blocks: blocks, Hint: hint, Evidence: fmt.Sprintf(format, args...)})
	}
	identity := func(what, got, want string) {
		if want != "" && got != "" && !strings.EqualFold(strings.TrimSpace(got), strings.TrimSpace(want)) {
			add("MC-NODE-IDENTITY", "system/"+what, fleet.BlocksEverything, "check which machine the BMC at "+n.BMC.Address+" belongs to", "%s is %q, enrolled was %q", what, got, want)
		}
	}
	identity("uuid", inv.System.UUID, firstOf(n.Expect.UUID, n.BMC.UUID))
	identity("serial", inv.System.Serial, firstOf(n.Expect.Serial, n.BMC.Serial))
	compareDevices(n, inv, add)
	if class.Name == "" {
		add("MC-CLASS-NONE", "class", fleet.BlocksAllocate, "metalctl node set "+n.Name+" --class CLASS", "the node has no class that exists (%q), so nothing says what it must be", n.Class)
		return out
	}
	hint := "metalctl node inventory " + n.Name + " --diff"
	count := func(code, component string, got, want int) {
		if want != 0 && got != want {
			add(code, component, fleet.BlocksAllocate, hint, "%d found, class %s wants %d", got, class.Name, want)
		}
	}
	e, found := class.Expect, countOf(inv)
	count("MC-CLASS-CPU", "cpus", len(inv.CPUs), e.CPUs)
	count("MC-CLASS-NUMA", "numa_nodes", len(inv.NUMANodes), e.NUMANodes)
	count("MC-CLASS-DISKS", "disks", found.Disks, e.Disks)
	count("MC-CLASS-NVME", "nvme", found.NVMe, e.NVMe)
	count("MC-CLASS-NICS", "nics", len(inv.NICs), e.NICs)
	count("MC-CLASS-GPUS", "gpus", found.GPUs, e.GPUs)
	count("MC-CLASS-INFINIBAND", "infiniband", found.InfiniBand, e.InfiniBand)
	// Firmware and kernel keep a part of the RAM, which differs from boot to boot: a missing module is far more than a sixteenth.
	if got, want := inv.Memory.TotalBytes, e.MemoryBytes; want != 0 && (got < want-want/16 || got > want+want/16) {
		add("MC-CLASS-MEMORY", "memory", fleet.BlocksAllocate, hint, "%d bytes found, class %s wants %d", got, class.Name, want)
	}
	return out
}

// compareDevices looks for disks that nobody agreed to erase, and for agreed ones that are gone. Before the first accept nothing is unexpected.
func compareDevices(n fleet.Node, inv fleet.Inventory, add func(code, component string, blocks fleet.Blocks, hint, format string, args ...any)) {
	if len(n.Accepted) == 0 {
		return
	}
	have := map[string]bool{}
	var more []string
	unexpected := 0
	for _, d := range inv.WouldErase() {
		have[d.Serial] = true
		if accepted(n, d.Serial) {
			continue
		}
		if unexpected++; unexpected > devicesNamed {
			more = append(more, d.Serial)
		} else {
			add("MC-DEVICE-UNEXPECTED", "disk/"+d.Serial, fleet.BlocksAllocate, "metalctl node inspect "+n.Name+", then: metalctl node accept "+n.Name,
				"%s of %d bytes was not there when the devices were accepted; it is not touched", d.Model, d.SizeBytes)
		}
	}
	if len(more) > 0 {
		add("MC-DEVICE-UNEXPECTED", "disk/more", fleet.BlocksAllocate, "metalctl node inspect "+n.Name, "%d more: %s", len(more), strings.Join(more, ", "))
	}
	missing := 0
	for _, d := range n.Accepted {
		if have[d.Serial] {
			continue
		}
		if missing++; missing <= devicesNamed {
			add("MC-DEVICE-MISSING", "disk/"+d.Serial, fleet.BlocksAllocate, "look for the disk; without it: metalctl node accept "+n.Name,
				"%s of %d bytes was accepted and is gone, with what it holds", d.Model, d.SizeBytes)
		}
	}
}

// devicesNamed bounds the faults about single disks: a node's record has 4 KiB, and a shelf of new disks is one story.
const devicesNamed = 3

func accepted(n fleet.Node, serial string) bool {
	for _, a := range n.Accepted {
		if a.Serial == serial {
			return true
		}
	}
	return false
}

// countOf counts by PCI class what has no list of its own yet: 0302 is a 3D controller and 0300 a VGA one; NVIDIA's GPUs (10de) are either. 0207 is an
// InfiniBand controller (PCI Code and ID Assignment Specification 1.15, class 02h and 03h).
func countOf(inv fleet.Inventory) fleet.ClassExpect {
	var c fleet.ClassExpect
	for _, d := range inv.Disks {
		if d.BootMedium || d.Removable {
			continue
		}
		c.Disks++
		if d.Transport == "nvme" {
			c.NVMe++
		}
	}
	for _, p := range inv.PCI {
		switch {
		case p.Vendor == "10de" && (strings.HasPrefix(p.Class, "0302") || strings.HasPrefix(p.Class, "0300")):
			c.GPUs++
		case strings.HasPrefix(p.Class, "0207"):
			c.InfiniBand++
		}
	}
	return c
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
