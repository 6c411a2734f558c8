package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// hcas judges the tenant's rails. Management, storage and the fabric manager's functions are not rails and are not counted as such.
func (j *judge) hcas() {
	e, class := j.class.Expect.InfiniBand, j.class.Name
	rails := railHCAs(j.inv)
	j.railCount(rails)
	j.blueField()
	if len(rails) == 0 {
		return
	}
	fastest := map[string]float64{}
	for _, h := range rails {
		for _, p := range h.Ports {
			fastest[h.PCIDevice] = max(fastest[h.PCIDevice], p.RateGbps)
		}
	}
	together := j.allPorts(rails)
	for _, h := range rails {
		for _, p := range h.Ports {
			name := fmt.Sprintf("hca/%s/port/%d", h.Name, p.Port)
			what := fmt.Sprintf("%s port %d (%s%s)", h.Name, p.Port, p.GUID, railOf(h))
			f := finding{component: name, do: "cable"}
			if e.LinkLayer != "" && p.LinkLayer != "" && !strings.EqualFold(p.LinkLayer, e.LinkLayer) {
				f.code, f.against, f.want, f.got, f.do = "MC-HCA-MODE", fleet.AgainstClass, e.LinkLayer, p.LinkLayer, "configure"
				j.block(f, "%s speaks %s, class %s wants %s", what, p.LinkLayer, class, e.LinkLayer)
				continue
			}
			if !strings.EqualFold(p.State, "ACTIVE") {
				f.code, f.want, f.got = "MC-HCA-PORT", "ACTIVE", p.State
				if p.PhysicalState != "" {
					f.got += ", " + p.PhysicalState
				}
				if !together {
					j.block(f, "%s is not up: %s", what, f.got)
				}
				continue
			}
			want, against, by := fastest[h.PCIDevice], fleet.AgainstSelf, "the other rails run at"
			if e.RateGbps > 0 {
				want, against, by = e.RateGbps, fleet.AgainstClass, "class "+class+" wants"
			}
			if p.RateGbps < want {
				f.code, f.against, f.want, f.got = "MC-HCA-RATE", against, fmt.Sprintf("%g Gb/s", want), fmt.Sprintf("%g Gb/s", p.RateGbps)
				j.block(f, "%s runs at %g Gb/s, %s %g", what, p.RateGbps, by, want)
				continue
			}
			if keys := leftKeys(p.PKeys); len(keys) > 0 {
				f.code, f.want, f.got, f.do = "MC-HCA-PKEY", "only the default key", strings.Join(keys, ", "), "configure"
				j.block(f, "%s is still in partition %s", what, list(keys))
			}
			j.portErrors(f, what, p)
		}
		j.hca(h)
	}
}

func railHCAs(inv *fleet.Inventory) (rails []*fleet.HCA) {
	for i := range inv.HCAs {
		if inv.HCAs[i].Role == fleet.HCARail {
			rails = append(rails, &inv.HCAs[i])
		}
	}
	return rails
}

// dpus are the BlueFields whose mode a class means: the rails, and all others where no rail is one.
func dpus(inv *fleet.Inventory) []*fleet.HCA {
	var all, rails []*fleet.HCA
	for i := range inv.HCAs {
		h := &inv.HCAs[i]
		if h.Mode == "" {
			continue
		}
		all = append(all, h)
		if h.Role == fleet.HCARail {
			rails = append(rails, h)
		}
	}
	if len(rails) > 0 {
		return rails
	}
	return all
}

func (j *judge) blueField() {
	want := j.class.Expect.InfiniBand.BlueField
	if want == "" {
		return
	}
	found := dpus(j.inv)
	if len(found) == 0 {
		j.unread("infiniband", "the mode of a BlueField", "hcas", "hca", "rdma")
	}
	for _, h := range found {
		if h.Mode != want {
			j.block(finding{code: "MC-HCA-MODE", component: "hca/" + h.Name, against: fleet.AgainstClass, want: want, got: h.Mode, do: "configure"}, "%s at %s is a BlueField in %s mode, class %s wants %s mode", h.Name, h.PCIAddress, h.Mode, j.class.Name, want)
		}
	}
}

func railOf(h *fleet.HCA) string {
	if h.Rail == nil {
		return ""
	}
	return fmt.Sprintf(", rail %d", *h.Rail)
}

// leftKeys are partitions besides the default one, full (0xffff) or limited (0x7fff).
func leftKeys(keys []string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return strings.EqualFold(k, "0xffff") || strings.EqualFold(k, "0x7fff") })
}

// allPorts: where no rail at all is up, that is the fabric's or the cabling's affair, and one difference.
func (j *judge) allPorts(rails []*fleet.HCA) bool {
	state, n := "", 0
	for _, h := range rails {
		for _, p := range h.Ports {
			if strings.EqualFold(p.State, "ACTIVE") {
				return false
			}
			state = max(state, strings.TrimSpace(p.State+" "+p.PhysicalState))
			n++
		}
	}
	if n < 2 {
		return false
	}
	words := "no rail is up, of %d ports: %s; look at the leaf switches and the power of their ports"
	if strings.HasPrefix(strings.ToUpper(state), "INIT") {
		words = "no rail is up, of %d ports: %s; no subnet manager has spoken to them"
	}
	return j.block(finding{code: "MC-HCA-PORT", component: "infiniband", want: "ACTIVE", got: state, do: "cable"}, words, n, state)
}

// portErrors are counters that tell of a bad cable or module; they count since the port was reset.
func (j *judge) portErrors(f finding, what string, p fleet.HCAPort) {
	bad := map[string]int64{}
	for _, k := range []string{"symbol_error", "link_error_recovery", "excessive_buffer_overrun_errors", "local_link_integrity_errors", "port_rcv_errors"} {
		if n := p.Counters[k]; n > 0 {
			bad[k] = n
		}
	}
	if len(bad) == 0 || j.said(f.component) != nil {
		return
	}
	f.code, f.want, f.got, f.do = "MC-HCA-ERRORS", "none", counters(bad), "retest"
	j.warn(f, "%s counted errors: %s", what, f.got)
}

func (j *judge) hca(h *fleet.HCA) {
	name := "hca/" + h.Name
	if h.Resources["ctx"] > 0 {
		j.warn(finding{code: "MC-HCA-RESIDUE", component: name, want: "nothing open", got: counters(h.Resources), do: "reboot"}, "%s at %s: somebody holds it open: %s", h.Name, h.PCIAddress, counters(h.Resources))
	}
	if l := j.class.Expect.Limit("hca-temperature"); l != nil {
		switch {
		case h.TemperatureC == nil:
			j.unread(name, "the temperature", "hcas", "hca")
		case float64(*h.TemperatureC) > l.Value:
			j.block(finding{code: "MC-HCA-HOT", component: name, against: fleet.AgainstClass, want: fmt.Sprintf("at most %g C", l.Value), got: fmt.Sprintf("%d C", *h.TemperatureC), do: "reseat"},
				"%s at %s is at %d C, class %s wants at most %g (%s)", h.Name, h.PCIAddress, *h.TemperatureC, j.class.Name, l.Value, l.Source)
		}
	}
}

// railCount compares the number of rails. An HCA whose GPU is gone is no rail any more, and follows from that.
func (j *judge) railCount(rails []*fleet.HCA) {
	e, class := j.class.Expect.InfiniBand, j.class.Name
	if e.Count == 0 {
		return
	}
	if len(j.inv.HCAs) == 0 {
		found := 0
		for _, p := range j.inv.PCI {
			if strings.HasPrefix(p.Class, "0207") { // an InfiniBand controller (PCI Code and ID Assignment Specification 1.15, class 02h)
				found++
			}
		}
		switch {
		case found != e.Count:
			j.block(finding{code: "MC-CLASS-INFINIBAND", component: "infiniband", against: fleet.AgainstClass, want: fmt.Sprint(e.Count), got: fmt.Sprint(found), do: "reseat"}, "%d found, class %s wants %d", found, class, e.Count)
		case e.RateGbps > 0:
			j.unread("infiniband", "the ports' rate", "hcas", "hca", "rdma")
		}
		return
	}
	if len(rails) == e.Count || len(rails) < e.Count && e.Count-len(rails) <= j.missing {
		return
	}
	f := finding{code: "MC-HCA-MISSING", component: "infiniband", against: fleet.AgainstClass, want: fmt.Sprint(e.Count), got: fmt.Sprint(len(rails)), do: "reseat"}
	if len(rails) > e.Count {
		f.code, f.do = "MC-CLASS-INFINIBAND", "configure"
		j.block(f, "%d rails found, class %s wants %d", len(rails), class, e.Count)
		return
	}
	j.goneHCAs = e.Count - len(rails)
	var alone []fleet.Rail
	for _, r := range j.inv.Rails {
		if r.HCA == "" {
			alone = append(alone, r)
		}
	}
	if len(alone) != e.Count-len(rails) {
		j.block(f, "%d rails found, class %s wants %d", len(rails), class, e.Count)
		return
	}
	for _, r := range alone {
		f.component, f.want, f.got = fmt.Sprintf("rail/%d", r.Rail), "an HCA", "none"
		if j.block(f, "rail %d has no HCA: none shares a PCIe switch with %s at %s", r.Rail, strings.Replace(j.names.at(r.GPU), "gpu/", "GPU ", 1), r.GPU) {
			j.cover(f.component)
		}
	}
}
