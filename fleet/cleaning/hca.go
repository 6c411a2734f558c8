package cleaning

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Compared is what compare-accepted attaches.
type Compared struct {
	Differences []fleet.Difference `json:"differences"`
}

// hcas has every HCA of the inventory, and those that were accepted and are gone.
func (c *composer) hcas() {
	r := c.run(step.CompareAccepted)
	var found Compared
	compared := r != nil && r.read("differences", &found.Differences)
	bad := map[string][]string{}
	var gone []string
	for _, d := range found.Differences {
		if !strings.HasPrefix(d.Component, "hca/") {
			continue
		}
		bad[d.Component] = append(bad[d.Component], d.Words)
		if here := slices.ContainsFunc(c.Inventory.HCAs, func(h fleet.HCA) bool { return "hca/"+h.Name == d.Component }); !here && !slices.Contains(gone, d.Component) {
			gone = append(gone, d.Component)
		}
	}
	look := func(x fleet.CleanedComponent) {
		x.Asked, x.Method = "nothing open, GUIDs and firmware as they were accepted", "RDMA netlink and sysfs, compared with the accepted inventory"
		x.Step, x.At, x.Result = step.CompareAccepted, r.FinishedAt, fleet.CleanChecked
		if list := bad[x.Component]; len(list) > 0 {
			x.Result, x.Why = fleet.CleanFailed, strings.Join(list, "; ")
		}
		c.add(x)
	}
	for _, h := range c.Inventory.HCAs {
		x := fleet.CleanedComponent{Component: "hca/" + h.Name, Identity: firstOf(string(h.NodeGUID), h.Serial, h.PCIAddress), Model: h.Type}
		var skipped string
		switch {
		case compared:
			x.Said, x.ReadBack = openSaid(h, c.Inventory.Missing), hcaReadBack(h)
			look(x)
			continue
		case r != nil && r.read("skipped", &skipped):
			x.Why = skipped
		default:
			x.Why = r.short(step.CompareAccepted)
		}
		x.Result = fleet.CleanNotDone
		c.add(x)
	}
	for _, component := range gone {
		look(fleet.CleanedComponent{Component: component})
	}
}

// openSaid is what the kernel says that somebody has open on an HCA, or that it did not say.
func openSaid(h fleet.HCA, missing []fleet.Missing) string {
	if h.Resources == nil {
		for _, m := range missing {
			if m.What == "hca resources" {
				return "what is open was not told: " + m.Why
			}
		}
		return "what is open was not told"
	}
	kernel := h.Resources["qp"] + h.Resources["cq"] + h.Resources["mr"] + h.Resources["pd"]
	return fmt.Sprintf("%s, %s of the kernel's own", plural(int(h.Resources["ctx"]), "context"), plural(int(kernel), "resource"))
}

func hcaReadBack(h fleet.HCA) string {
	out := []string{"node GUID " + firstOf(string(h.NodeGUID), "unknown")}
	for _, p := range h.Ports {
		if p.GUID != "" {
			out = append(out, fmt.Sprintf("port %d %s", p.Port, p.GUID))
		}
	}
	return strings.Join(append(out, "firmware "+firstOf(h.Firmware, "unknown")), "; ")
}
