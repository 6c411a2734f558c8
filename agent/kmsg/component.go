package kmsg

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Component turns a finding's component as Find has it (pci/ADDRESS or thread/NUMBER, with what may follow) into the part's own name where the machine has one.
// socket tells in which socket a thread of the processors is.
func Component(inv *fleet.Inventory, c string, socket func(thread string) (int64, bool)) string {
	kind, rest, ok := strings.Cut(c, "/")
	if !ok {
		return c
	}
	id, more, found := strings.Cut(rest, "/")
	if found {
		more = "/" + more
	}
	switch kind {
	case "thread":
		if n, ok := socket(id); ok {
			return fmt.Sprintf("cpu/%d", n) + more
		}
	case "pci":
		if name := atAddress(inv, id); name != "" {
			return name + more
		}
	}
	return c
}

func atAddress(inv *fleet.Inventory, address string) string {
	modules := slices.ContainsFunc(inv.GPUs, func(g fleet.GPU) bool { return g.ModuleID > 0 })
	for _, g := range inv.GPUs {
		n := g.ModuleID
		if !modules {
			n = g.Index
		}
		// A GPU that is lost does not tell its module id, and its index is another one's id: its address is left to stand for it.
		if g.PCIAddress == address && (n > 0 || n == 0 && !modules) {
			return fmt.Sprintf("gpu/%d", n)
		}
	}
	for i, s := range inv.NVSwitches {
		if s.PCIAddress == address {
			return fmt.Sprintf("nvswitch/%d", i)
		}
	}
	for _, h := range inv.HCAs {
		if h.PCIAddress == address {
			return "hca/" + h.Name
		}
	}
	for _, d := range inv.Disks {
		if d.PCIAddress == address && d.Transport == "nvme" {
			return "disk/" + d.Name
		}
	}
	return ""
}
