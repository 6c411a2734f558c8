package verdict

import (
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Accepted compares what a tenant could have changed for good, and no erasing reaches, with the inventory that a person accepted: HCAs by their place, their GUIDs
// and firmware, and the firmware's variables. Firmware that the class names is the class's affair. What holds an HCA open is left of somebody, too. All of it blocks.
func Accepted(inv, accepted fleet.Inventory, class fleet.Class) []fleet.Difference {
	j := newJudge(&inv, class)
	was := map[string]*fleet.HCA{}
	for i := range accepted.HCAs {
		was[accepted.HCAs[i].PCIAddress] = &accepted.HCAs[i]
	}
	for i := range inv.HCAs {
		h := &inv.HCAs[i]
		if n := h.Resources["ctx"]; n > 0 {
			j.block(finding{code: "MC-HCA-RESIDUE", component: "hca/" + h.Name, want: "nothing open", got: counters(h.Resources), do: "reboot"}, "%s at %s: somebody holds it open: %s", h.Name, h.PCIAddress, counters(h.Resources))
		}
		old, there := was[h.PCIAddress]
		delete(was, h.PCIAddress)
		if !there {
			j.changedHCA(h, "absent", identityOf(h), "%s at %s was not there", h.Name, h.PCIAddress)
			continue
		}
		j.sameHCA(h, old)
	}
	for i := range accepted.HCAs {
		if h := &accepted.HCAs[i]; was[h.PCIAddress] != nil {
			j.changedHCA(h, identityOf(h), "absent", "%s at %s (%s) is gone", h.Name, h.PCIAddress, identityOf(h))
		}
	}
	j.variables(accepted)
	for i := range j.out {
		j.out[i].Against = fleet.AgainstAccepted
	}
	return sorted(j.out)
}

func (j *judge) changedHCA(h *fleet.HCA, want, got, words string, args ...any) {
	j.block(finding{code: "MC-HCA-CHANGED", component: "hca/" + h.Name, want: want, got: got, do: "none"}, words, args...)
}

// sameHCA compares one HCA with the one that was accepted in its place. A value that could be read then and cannot be now differs.
func (j *judge) sameHCA(h, old *fleet.HCA) {
	type value struct{ what, was, is string }
	values := []value{{"node GUID", string(old.NodeGUID), string(h.NodeGUID)}, {"system GUID", string(old.SystemGUID), string(h.SystemGUID)}, {"serial", old.Serial, h.Serial}, {"PSID", old.PSID, h.PSID}}
	if j.class.Expect.Firmware.HCA[h.PSID] == "" {
		values = append(values, value{"firmware", old.Firmware, h.Firmware})
	}
	ports := map[int]fleet.GUID{}
	for _, p := range h.Ports {
		ports[p.Port] = p.GUID
	}
	for _, p := range old.Ports {
		values = append(values, value{fmt.Sprintf("GUID of port %d", p.Port), string(p.GUID), string(ports[p.Port])})
	}
	var said, before, after []string
	for _, v := range values {
		if v.was != "" && v.was != v.is {
			said = append(said, fmt.Sprintf("its %s was %s and is %s", v.what, v.was, orUnknown(v.is)))
			before, after = append(before, v.was), append(after, orUnknown(v.is))
		}
	}
	if len(said) > 0 {
		j.changedHCA(h, strings.Join(before, ", "), strings.Join(after, ", "), "%s at %s is not as it was accepted: %s", h.Name, h.PCIAddress, strings.Join(said, "; "))
	}
}

func identityOf(h *fleet.HCA) string {
	if h.NodeGUID != "" {
		return string(h.NodeGUID)
	}
	return orUnknown(h.Serial)
}
