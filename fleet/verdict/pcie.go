package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// pcie judges links, error counters and access control. A width never changes with load, so that a narrow link is a fault; the speed of a GPU's does.
func (j *judge) pcie() {
	kids := below(j.inv)
	// Below first: of a link both ends tell, and the device is what a person looks for.
	all := slices.Collect(maps.Values(j.names.pci))
	slices.SortFunc(all, func(a, b *fleet.PCI) int {
		if d := j.depth(b.Address) - j.depth(a.Address); d != 0 {
			return d
		}
		return strings.Compare(a.Address, b.Address)
	})
	bad := map[string]bool{}
	for _, p := range all {
		if slices.ContainsFunc(kids[p.Address], func(k *fleet.PCI) bool { return bad[k.Address] }) || bridge(p) && len(kids[p.Address]) == 0 {
			continue
		}
		bad[p.Address] = j.pcieLink(p, kids)
	}
	j.gpuWidths()
	for _, p := range all {
		j.aer(p)
	}
	j.acs()
}

// below are the functions below each bridge, by its address.
func below(inv *fleet.Inventory) map[string][]*fleet.PCI {
	kids := map[string][]*fleet.PCI{}
	for i := range inv.PCI {
		p := &inv.PCI[i]
		kids[p.Parent] = append(kids[p.Parent], p)
	}
	return kids
}

func (j *judge) depth(a string) int {
	n := 0
	for p := j.names.parent[a]; p != "" && n < 64; p = j.names.parent[p] {
		n++
	}
	return n
}

func bridge(p *fleet.PCI) bool { return strings.HasPrefix(p.Class, "0604") }

// matters reports whether a tenant would notice a slower link to the component: GPUs, rails' HCAs, drives, and the switches above them.
func (j *judge) matters(p *fleet.PCI, kids map[string][]*fleet.PCI) bool {
	c := j.names.at(p.Address)
	switch {
	case strings.HasPrefix(c, "gpu/"), strings.HasPrefix(c, "disk/"):
		return true
	case strings.HasPrefix(c, "hca/"):
		return slices.ContainsFunc(j.inv.HCAs, func(h fleet.HCA) bool { return h.PCIAddress == p.Address && h.Role == fleet.HCARail })
	}
	return bridge(p) && slices.ContainsFunc(kids[p.Address], func(k *fleet.PCI) bool { return j.matters(k, kids) })
}

// reach is what a link is and could be: of its ends the lesser counts.
type reach struct{ width, mostWidth, gen, topGen int }

func (n *names) reach(p *fleet.PCI, kids map[string][]*fleet.PCI) reach {
	r := reach{p.Width, p.MaxWidth, generation(p.Speed), generation(p.MaxSpeed)}
	limit := func(o *fleet.PCI) {
		if o.MaxWidth > 0 {
			r.mostWidth = min(r.mostWidth, o.MaxWidth)
		}
		if g := generation(o.MaxSpeed); g > 0 {
			r.topGen = min(r.topGen, g)
		}
	}
	if up := n.pci[p.Parent]; up != nil {
		limit(up)
	}
	if bridge(p) {
		for _, k := range kids[p.Address] {
			limit(k)
		}
	}
	return r
}

func (j *judge) pcieLink(p *fleet.PCI, kids map[string][]*fleet.PCI) bool {
	r := j.names.reach(p, kids)
	width, most, gen, top := r.width, r.mostWidth, r.gen, r.topGen
	c := j.names.at(p.Address)
	if j.explained(c) {
		return false
	}
	report := j.warn
	if j.matters(p, kids) {
		report = j.block
	}
	what := j.what(c, p)
	want := j.expectPCIe(c)
	switch {
	case width > 0 && width < most:
		return report(finding{code: "MC-PCIE-WIDTH", component: c, want: fmt.Sprintf("x%d", most), got: fmt.Sprintf("x%d", width), do: "reseat"}, "%s: its PCIe link has %d of %d lanes; a width does not change with load", what, width, most)
	case want.Width > 0 && width > 0 && width < want.Width:
		return j.block(finding{code: "MC-PCIE-WIDTH", component: c, against: fleet.AgainstClass, want: fmt.Sprintf("x%d", want.Width), got: fmt.Sprintf("x%d", width), do: "reseat"}, "%s: its PCIe link has %d lanes, class %s wants %d", what, width, j.class.Name, want.Width)
	case want.Width > 0 && width == 0:
		j.unread(c, "the PCIe link")
		return true
	}
	if j.idles(p, kids) {
		if want.Generation > 0 && top > 0 && top < want.Generation {
			return j.block(finding{code: "MC-PCIE-SPEED", component: c, against: fleet.AgainstClass, want: fmt.Sprintf("generation %d", want.Generation), got: fmt.Sprintf("generation %d", top), do: "reseat"}, "%s: its PCIe link reaches generation %d at most, class %s wants %d", what, top, j.class.Name, want.Generation)
		}
		return false
	}
	switch {
	case gen > 0 && gen < top:
		return report(finding{code: "MC-PCIE-SPEED", component: c, want: fmt.Sprintf("generation %d", top), got: fmt.Sprintf("generation %d", gen), do: "reseat"}, "%s: its PCIe link runs at generation %d and could at %d", what, gen, top)
	case want.Generation > 0 && gen > 0 && gen < want.Generation:
		return j.block(finding{code: "MC-PCIE-SPEED", component: c, against: fleet.AgainstClass, want: fmt.Sprintf("generation %d", want.Generation), got: fmt.Sprintf("generation %d", gen), do: "reseat"}, "%s: its PCIe link runs at generation %d, class %s wants %d", what, gen, j.class.Name, want.Generation)
	}
	return false
}

// idles reports whether a link may run below its speed without load: a GPU's does, at both ends; NVSwitches' do.
func (j *judge) idles(p *fleet.PCI, kids map[string][]*fleet.PCI) bool {
	if strings.HasPrefix(p.Class, "03") || p.Vendor == "10de" {
		return true
	}
	return bridge(p) && slices.ContainsFunc(kids[p.Address], func(k *fleet.PCI) bool { return !bridge(k) && j.idles(k, kids) })
}

func (j *judge) what(c string, p *fleet.PCI) string {
	if i := slices.Index(j.names.gpu, c); i >= 0 {
		return j.part(i)
	}
	if strings.HasPrefix(c, "pci/") {
		if bridge(p) {
			return "the bridge at " + p.Address
		}
		return "the device at " + p.Address
	}
	return strings.Replace(c, "/", " ", 1) + " at " + p.Address
}

func (j *judge) expectPCIe(c string) fleet.ExpectPCIe {
	e := j.class.Expect
	switch {
	case strings.HasPrefix(c, "gpu/"):
		return e.GPUs.PCIe
	case strings.HasPrefix(c, "hca/"):
		if slices.ContainsFunc(j.inv.HCAs, func(h fleet.HCA) bool { return "hca/"+h.Name == c && h.Role == fleet.HCARail }) {
			return e.InfiniBand.PCIe
		}
	case strings.HasPrefix(c, "disk/"):
		return e.NVMe.PCIe
	}
	return fleet.ExpectPCIe{}
}

// gpuWidths takes the driver's word where PCI's tree did not tell.
func (j *judge) gpuWidths() {
	for i, g := range j.inv.GPUs {
		name := j.names.gpu[i]
		l := g.PCIe
		if l == nil || j.explained(name) || j.said(name, "MC-PCIE-WIDTH") != nil || l.Width == 0 || l.Width >= l.MaxWidth {
			continue
		}
		if up := j.names.parent[g.PCIAddress]; up != "" && j.said("pci/"+up, "MC-PCIE-WIDTH") != nil {
			continue
		}
		j.block(finding{code: "MC-PCIE-WIDTH", component: name, want: fmt.Sprintf("x%d", l.MaxWidth), got: fmt.Sprintf("x%d", l.Width), do: "reseat"}, "%s: its PCIe link has %d of %d lanes; a width does not change with load", j.part(i), l.Width, l.MaxWidth)
	}
}

func (j *judge) aer(p *fleet.PCI) {
	c := j.names.at(p.Address)
	kinds := map[string]map[string]int64{}
	for k, n := range p.AER {
		how, what, ok := strings.Cut(k, "/")
		if !ok || n == 0 || strings.HasPrefix(what, "TOTAL") {
			continue
		}
		if kinds[how] == nil {
			kinds[how] = map[string]int64{}
		}
		kinds[how][what] = n
	}
	if j.said(c, "MC-PCIE-WIDTH", "MC-PCIE-SPEED") != nil || j.childSaid(c, "MC-PCIE-WIDTH", "MC-PCIE-SPEED", "MC-PCIE-AER") {
		return
	}
	f := finding{code: "MC-PCIE-AER", component: c, want: "none", do: "reseat"}
	switch {
	case len(kinds["fatal"]) > 0:
		f.got = counters(kinds["fatal"])
		j.block(f, "%s: fatal PCIe errors: %s", j.what(c, p), f.got)
	case len(kinds["nonfatal"]) > 0:
		f.got, f.do = counters(kinds["nonfatal"]), "retest"
		j.warn(f, "%s: PCIe errors that were not fatal: %s", j.what(c, p), f.got)
	}
}

// acs: what turns traffic between GPU and NIC up to the root halves it.
func (j *judge) acs() {
	want := j.class.Expect.ACS
	if want == "" {
		return
	}
	var wrong []string
	capable := 0
	for a, on := range j.names.redirects() {
		capable++
		if on != (want == "on") {
			wrong = append(wrong, a)
		}
	}
	if len(wrong) == 0 {
		return
	}
	slices.Sort(wrong)
	got := map[string]string{"on": "off", "off": "on"}[want]
	f := finding{code: "MC-PCIE-ACS", component: "pci/" + wrong[0], against: fleet.AgainstClass, want: want, got: got, do: "configure"}
	if len(wrong) > 1 {
		f.component = "pci"
	}
	j.block(f, "access control (ACS) is %s at %s of %d above GPUs and HCAs (%s), class %s wants it %s", got, count(len(wrong), "bridge"), capable, strings.Join(firsts(wrong, 4), ", "), j.class.Name, want)
}

// redirects says of each bridge above a GPU or HCA that can control access whether it turns traffic up to the root.
func (n *names) redirects() map[string]bool {
	out := map[string]bool{}
	for a, c := range n.byPCI {
		if !strings.HasPrefix(c, "gpu/") && !strings.HasPrefix(c, "hca/") {
			continue
		}
		for up, i := n.parent[a], 0; up != "" && i < 64; up, i = n.parent[up], i+1 {
			if p := n.pci[up]; p != nil && p.ACS != nil {
				out[up] = slices.ContainsFunc(p.ACS, func(s string) bool { return strings.Contains(s, "redirect") || strings.Contains(s, "forwarding") })
			}
		}
	}
	return out
}

// generation is that of a speed as the kernel prints it, such as "32.0 GT/s PCIe"; 0 where it is none.
func generation(speed string) int {
	n, _, _ := strings.Cut(strings.TrimSpace(speed), " ")
	v, err := strconv.ParseFloat(n, 64)
	if err != nil {
		return 0
	}
	for g, s := range []float64{2.5, 5, 8, 16, 32, 64, 128} {
		if v == s {
			return g + 1
		}
	}
	return 0
}
