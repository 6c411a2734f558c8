package fleet

import (
	"slices"
	"strings"
	"time"
)

// Repair is somebody's word that a part of a node was replaced. The next inventory shows whether it was.
type Repair struct {
	At time.Time `json:"at"`
	By string    `json:"by"`
	// Component is the part's place: gpu/3, dimm/A1, hca/mlx5_4, disk/nvme2n1, nvswitch/0.
	Component string `json:"component"`
	// Old and New are serial numbers, as inventories show them.
	Old  string `json:"old"`
	New  string `json:"new"`
	Note string `json:"note,omitempty"`
	// Report is the burn-in that asked for it, "" where none did.
	Report OperationID `json:"report,omitempty"`
	// SeenAt is when an inventory had the new part and not the old one; zero: none did yet.
	SeenAt time.Time `json:"seen_at,omitzero"`
}

// MostRepairs is how many repairs a node's record keeps: those before stand in its events.
const MostRepairs = 4

// SameSerial reports whether two serial numbers are one: vendors pad them and differ in case.
func SameSerial(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}

// Seen looks for a repair in the parts of an inventory: why it is not to be seen there, "" where it is.
func (r Repair) Seen(parts []BurnedPart) string {
	has := func(serial string) int {
		return slices.IndexFunc(parts, func(p BurnedPart) bool { return p.Serial != "" && SameSerial(p.Serial, serial) })
	}
	if i := has(r.Old); i >= 0 {
		return "the old part, serial " + r.Old + ", is still there, at " + parts[i].Component
	}
	if has(r.New) < 0 {
		return "nothing in the machine has the new serial " + r.New
	}
	return ""
}

// Record keeps a repair, the newest MostRepairs of them; one of the same place that no inventory has shown is replaced.
func (n *Node) Record(r Repair) {
	n.Repairs = slices.DeleteFunc(slices.Clone(n.Repairs), func(o Repair) bool { return o.SeenAt.IsZero() && o.Component == r.Component })
	n.Repairs = append(n.Repairs[max(0, len(n.Repairs)-MostRepairs+1):], r)
}

// Repaired reports whether a recorded repair explains that a place has another part than before. Verdicts name some places by their PCI address.
func (n *Node) Repaired(place string, was, is []BurnedPart) bool {
	at := func(parts []BurnedPart, component string) BurnedPart {
		if i := slices.IndexFunc(parts, func(p BurnedPart) bool { return p.Component == component }); i >= 0 {
			return parts[i]
		}
		return BurnedPart{}
	}
	return slices.ContainsFunc(n.Repairs, func(r Repair) bool {
		old, now := at(was, r.Component), at(is, r.Component)
		return (place == r.Component || place == "pci/"+now.PCIAddress) && SameSerial(r.Old, old.Serial) && SameSerial(r.New, now.Serial)
	})
}
