package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// compareClass compares the newest inventory with the class, the enrolled identity and the accepted devices.
func (l *Loop) compareClass(ctx context.Context, c step.Call) (step.Outcome, error) {
	v, inv, err := l.inspected(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	n := v.node.v
	last, err := l.lastInventory(ctx, n)
	if err != nil {
		return step.Outcome{}, err
	}
	wires, err := l.wiringOf(ctx, v)
	if err != nil {
		return step.Outcome{}, err
	}
	faults := few(append(CompareWires(*n, *inv, wires), Compare(*n, v.class, *inv, last)...), n.Name, "inventory", mostFaults)
	out := step.Outcome{Faults: faults, Evidence: map[string]any{"class": v.class.Name, "differences": len(faults), "inventory": n.Inventory,
		"compared": v.class.Compared(n.Inventory)}}
	for _, f := range faults {
		if f.Code == "MC-NODE-IDENTITY" || f.Code == "MC-NODE-SIMULATED" {
			return out, fleet.Errorf(fleet.Refused, f.Code, "this is another machine than was enrolled: %s", f.Evidence).WithHint("%s", f.Hint)
		}
	}
	if use := v.op.v; use != nil && use.Use == string(step.Deploy) && len(faults) > 0 {
		return out, fleet.Errorf(fleet.Refused, "MC-CLASS-DIFFERS", "%d differences since the node was chosen, first %s: %s", len(faults), faults[0].Component, faults[0].Evidence).
			WithHint("metalctl node show %s", n.Name)
	}
	return out, nil
}

// Compare lists what an inventory shows to differ from what the node must be; each difference that blocks is a fault. It is pure.
// last is the inventory before, nil where there is none.
func Compare(n fleet.Node, class fleet.Class, inv fleet.Inventory, last *fleet.Inventory) []fleet.Fault {
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
	if inv.Simulated != "" && !n.Simulated {
		add("MC-NODE-SIMULATED", "system/simulated", fleet.BlocksEverything, "metalctl node forget "+n.Name+", and enrol the machines of a simulated rack from its nodes.yaml",
			"its GPUs are made up (profile %s), and it was not enrolled as simulated", inv.Simulated)
	}
	compareDevices(n, inv, add)
	if class.Name == "" {
		add("MC-CLASS-NONE", "class", fleet.BlocksAllocate, "metalctl node set "+n.Name+" --class CLASS", "the node has no class that exists (%q), so nothing says what it must be", n.Class)
		return out
	}
	ds := verdict.Judge(inv, class)
	if last != nil {
		was, is := verdict.Parts(last), verdict.Parts(&inv)
		ds = append(ds, slices.DeleteFunc(verdict.Last(inv, *last), func(d fleet.Difference) bool { return d.Code == "MC-PART-SWAPPED" && n.Repaired(d.Component, was, is) })...)
	}
	return few(append(out, faultsOf(withoutDisks(ds, n, inv), n.Name)...), n.Name, "inventory", mostFaults)
}

// faultsOf makes faults of the differences that block.
func faultsOf(ds []fleet.Difference, node string) []fleet.Fault {
	var out []fleet.Fault
	for _, d := range ds {
		if d.Blocks != fleet.BlocksNothing {
			out = append(out, fleet.Fault{Code: d.Code, Component: d.Component, Severity: d.Severity, Blocks: d.Blocks, Evidence: d.Words, Hint: "metalctl node inventory " + node + " --diff"})
		}
	}
	return out
}

// mostFaults bounds the faults of one comparison, as a node's record has 4 KiB.
const mostFaults = 10

// few keeps the first faults and lets one, of that component, stand for the others.
func few(faults []fleet.Fault, node, component string, most int) []fleet.Fault {
	if len(faults) <= most {
		return faults
	}
	more := fleet.Fault{Code: "MC-INVENTORY-MORE", Component: component, Severity: fleet.Critical, Blocks: fleet.BlocksAllocate, Hint: "metalctl node inventory " + node + " --diff"}
	left := faults[most-1:]
	for _, f := range left {
		if f.Blocks == fleet.BlocksEverything {
			more.Blocks = f.Blocks
		}
	}
	more.Evidence = fmt.Sprintf("%d more, such as %s on %s", len(left), left[0].Code, left[0].Component)
	return append(slices.Clone(faults[:most-1]), more)
}

// withoutDisks drops differences in the number of disks that accepted disks which left, or others that came, explain.
func withoutDisks(ds []fleet.Difference, n fleet.Node, inv fleet.Inventory) []fleet.Difference {
	if len(n.Accepted) == 0 {
		return ds
	}
	gone := len(n.Accepted) - len(inv.WouldErase()) // negative where more came than left
	return slices.DeleteFunc(ds, func(d fleet.Difference) bool {
		want, _ := strconv.Atoi(d.Want)
		got, _ := strconv.Atoi(d.Got)
		return (d.Code == "MC-CLASS-NVME" || d.Code == "MC-CLASS-DISKS") && gone != 0 && want-got == gone
	})
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

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
