package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// names says what parts of an inventory are called, so that a person with a screwdriver finds them.
type names struct {
	gpu    []string          // by place in Inventory.GPUs
	byPCI  map[string]string // component by PCI address
	parent map[string]string // PCI address of the bridge above
	pci    map[string]*fleet.PCI
	// modules tells that the board has module ids; absent are those of 1 to the highest that no GPU has.
	modules bool
	absent  []int
}

// Component is the name of GPU i of an inventory, by module id where its board has them, else by index, else by PCI address.
func Component(inv *fleet.Inventory, i int) string { return nameParts(inv).gpu[i] }

func nameParts(inv *fleet.Inventory) *names {
	n := &names{byPCI: map[string]string{}, parent: map[string]string{}, pci: map[string]*fleet.PCI{}}
	for i := range inv.PCI {
		p := &inv.PCI[i]
		n.pci[p.Address], n.parent[p.Address] = p, p.Parent
	}
	n.nameGPUs(inv)
	for i, g := range inv.GPUs {
		n.byPCI[g.PCIAddress] = n.gpu[i]
	}
	for i, s := range switchesInOrder(inv) {
		n.byPCI[s.PCIAddress] = fmt.Sprintf("nvswitch/%d", i)
	}
	for _, h := range inv.HCAs {
		n.byPCI[h.PCIAddress] = "hca/" + h.Name
	}
	for _, d := range inv.Disks {
		if d.PCIAddress != "" && d.Transport == "nvme" {
			n.byPCI[d.PCIAddress] = "disk/" + d.Name
		}
	}
	for _, c := range inv.NICs {
		if c.PCIAddress != "" && n.byPCI[c.PCIAddress] == "" {
			n.byPCI[c.PCIAddress] = "nic/" + c.Name
		}
	}
	return n
}

// nameGPUs gives the one GPU that did not tell its module id the one id that is left over, so that a lost GPU has a place.
func (n *names) nameGPUs(inv *fleet.Inventory) {
	used, highest := map[int]bool{}, len(inv.GPUs)
	var nameless []int
	for i, g := range inv.GPUs {
		if g.ModuleID > 0 {
			n.modules = true
			used[g.ModuleID] = true
			highest = max(highest, g.ModuleID)
		} else {
			nameless = append(nameless, i)
		}
	}
	if n.modules {
		for id := 1; id <= highest; id++ {
			if !used[id] {
				n.absent = append(n.absent, id)
			}
		}
	}
	n.gpu = make([]string, len(inv.GPUs))
	for i, g := range inv.GPUs {
		switch {
		case g.ModuleID > 0:
			n.gpu[i] = "gpu/" + strconv.Itoa(g.ModuleID)
		case n.modules && len(nameless) == 1 && len(n.absent) == 1:
			n.gpu[i] = "gpu/" + strconv.Itoa(n.absent[0])
			n.absent = nil
		case !n.modules && g.Index >= 0:
			n.gpu[i] = "gpu/" + strconv.Itoa(g.Index)
		default:
			n.gpu[i] = "pci/" + g.PCIAddress
		}
	}
}

// at is the component at a PCI address, which may lack its domain or function as kernel lines do; "pci/ADDRESS" for what has no name.
func (n *names) at(address string) string {
	if c := n.byPCI[address]; c != "" {
		return c
	}
	if address == "" {
		return "system"
	}
	if base := slot(address); base != "" {
		var found []string
		for a, c := range n.byPCI {
			if slot(a) == base {
				found = append(found, c)
			}
		}
		if len(found) > 0 {
			return slices.Min(found)
		}
	}
	return "pci/" + address
}

// slot is domain, bus and device of a PCI address, with the domain in 4 digits.
func slot(address string) string {
	a, _, _ := strings.Cut(address, ".")
	if strings.Count(a, ":") == 1 {
		a = "0000:" + a
	}
	domain, rest, ok := strings.Cut(a, ":")
	if !ok || !strings.Contains(rest, ":") {
		return ""
	}
	if len(domain) > 4 {
		domain = domain[len(domain)-4:]
	}
	return strings.ToLower(domain + ":" + rest)
}

// switchesInOrder are the NVSwitches by ascending PCI address, which is how wiring tables number them.
func switchesInOrder(inv *fleet.Inventory) []fleet.NVSwitch {
	s := slices.Clone(inv.NVSwitches)
	slices.SortFunc(s, func(a, b fleet.NVSwitch) int { return cmp.Compare(a.PCIAddress, b.PCIAddress) })
	return s
}

// part is how words call a GPU: place, serial, address.
func (j *judge) part(i int) string {
	g := &j.inv.GPUs[i]
	s := strings.Replace(j.names.gpu[i], "gpu/", "GPU ", 1)
	var more []string
	if g.Serial != "" {
		more = append(more, "serial "+g.Serial)
	}
	if g.PCIAddress != "" && !strings.HasPrefix(s, "pci/") {
		more = append(more, "at "+g.PCIAddress)
	}
	if len(more) == 0 {
		return s
	}
	return s + " (" + strings.Join(more, ", ") + ")"
}

// list joins numbers or words as people do: 1, 2 and 5.
func list[T any](xs []T) string {
	var b strings.Builder
	for i, x := range xs {
		switch {
		case i == 0:
		case i == len(xs)-1:
			b.WriteString(" and ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprint(&b, x)
	}
	return b.String()
}

// count says how many of what there are: 1 link, 2 links.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "ch") || strings.HasSuffix(what, "s") {
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
