package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// kernel judges what the kernel's log said of hardware since boot. What a difference above says already is a sign of it, and not said again.
func (j *judge) kernel() {
	xids := map[string][]fleet.KernelFinding{}
	var order []string
	for _, k := range j.inv.KernelFindings {
		c := j.place(k.Component)
		switch k.Kind {
		case "xid":
			if meaning(k).rank == ignored {
				continue
			}
			if xids[c] == nil {
				order = append(order, c)
			}
			xids[c] = append(xids[c], k)
		case "sxid":
			j.sxid(c, k)
		default:
			j.message(c, k)
		}
	}
	for _, c := range order {
		j.xids(c, xids[c])
	}
}

// place is the component that a finding names: its own words, or the part at a PCI address. What follows the part, a link or a port, is linkIn's.
func (j *judge) place(component string) string {
	addr, _, _ := strings.Cut(strings.TrimPrefix(component, "pci/"), "/")
	if slot(addr) != "" || strings.Contains(addr, ":") {
		return j.names.at(addr)
	}
	if kind, _, _ := strings.Cut(component, "/"); kind == "gpu" || kind == "nvswitch" {
		return root(component)
	}
	if component == "" {
		return "system"
	}
	if controller, ok := strings.CutPrefix(component, "disk/nvme"); ok { // the kernel speaks of the controller, the inventory has its namespaces
		for _, d := range j.inv.Disks {
			if strings.HasPrefix(d.Name, "nvme"+controller+"n") {
				return "disk/" + d.Name
			}
		}
	}
	return component
}

// signOf reports whether a message is a sign of what is said already. What is only warned of, such as errors of a link that may be old, explains no message
// that is worse.
func (j *judge) signOf(c string, x xid) bool {
	return slices.ContainsFunc(j.out, func(d fleet.Difference) bool {
		return (d.Component == c || strings.HasPrefix(d.Component, c+"/")) && slices.Contains(x.as, d.Code) && (d.Blocks != fleet.BlocksNothing || x.rank <= noted)
	})
}

// linkIn is the end of a finding's component that names an NVLink: "/nvlink/7", or "".
func linkIn(component string) string {
	if i := strings.Index(component, "/nvlink/"); i >= 0 {
		return component[i:]
	}
	return ""
}

// xids reports the worst of a GPU's messages that nothing above explains; they are likely one story.
func (j *judge) xids(c string, found []fleet.KernelFinding) {
	gone := strings.HasPrefix(c, "pci/") && j.said("gpu", "MC-GPU-MISSING") != nil || j.said("gpus", "MC-GPU-MISSING", "MC-CLASS-GPUS") != nil
	var left []fleet.KernelFinding
	for _, k := range found {
		x := meaning(k)
		fabric := slices.ContainsFunc(x.as, func(a string) bool { return a == "MC-NVLINK-DOWN" }) && (j.noFabric || j.said("fabric") != nil || j.said("nvswitches") != nil || j.said("nvswitch") != nil)
		if gone || j.explained(c) || fabric || len(x.as) > 0 && j.signOf(c, x) {
			continue
		}
		left = append(left, k)
	}
	if len(left) == 0 || j.said(c) != nil && worst(left).rank < replacing {
		return
	}
	slices.SortStableFunc(left, func(a, b fleet.KernelFinding) int { return int(meaning(b).rank) - int(meaning(a).rank) })
	first := meaning(left[0])
	var codes []string
	for _, k := range left {
		codes = append(codes, xidWords(k))
	}
	what := c
	if i := slices.Index(j.names.gpu, c); i >= 0 {
		what = j.part(i)
	}
	if link := linkIn(left[0].Component); link != "" && !slices.ContainsFunc(left, func(k fleet.KernelFinding) bool { return linkIn(k.Component) != link }) {
		c, what = c+link, "NVLink "+strings.TrimPrefix(link, "/nvlink/")+" of "+what
	}
	report := j.block
	if first.rank == noted {
		report = j.warn
	}
	report(finding{code: "MC-GPU-XID", component: c, want: "none", got: strings.Join(codes, ", "), do: first.do}, "%s: the driver reported %s: %s", what, list(codes), first.words)
}

func worst(ks []fleet.KernelFinding) xid {
	w := xid{}
	for _, k := range ks {
		if x := meaning(k); x.rank > w.rank {
			w = x
		}
	}
	return w
}

func xidWords(k fleet.KernelFinding) string {
	if k.Count > 1 {
		return fmt.Sprintf("XID %d (%d times)", k.Code, k.Count)
	}
	return fmt.Sprintf("XID %d", k.Code)
}

func (j *judge) sxid(c string, k fleet.KernelFinding) {
	if sxidHarmless[k.Code] || j.explained(c) || j.said("nvswitches") != nil || j.said(c) != nil {
		return
	}
	f := finding{code: "MC-NVSWITCH-SXID", component: c, want: "none", got: fmt.Sprintf("SXid %d", k.Code), do: "reset"}
	report, how := j.warn, "not fatal"
	if k.Severity == "fatal" {
		report, how = j.block, "fatal"
	}
	report(f, "%s reported SXid %d (%s, %s), %s", strings.Replace(c, "nvswitch/", "NVSwitch ", 1), k.Code, sxidWords(k.Code), how, times(k.Count))
}

func times(n int) string {
	if n <= 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// message judges the kernel's words about anything but GPUs' and switches' own error numbers.
func (j *judge) message(c string, k fleet.KernelFinding) {
	fatal := k.Severity == "fatal"
	f := finding{component: c, want: "none", got: fmt.Sprintf("%s, %s", k.Kind, times(k.Count)), do: "retest"}
	said := func(codes ...string) bool { return j.said(c, codes...) != nil || j.childSaid(c, codes...) }
	report := j.warn
	switch k.Kind {
	case "aer", "pcie-bandwidth":
		f.code = "MC-PCIE-AER"
		if k.Kind == "pcie-bandwidth" {
			f.code = "MC-PCIE-SPEED"
		}
		if k.Severity == "corrected" || said("MC-PCIE-AER", "MC-PCIE-WIDTH", "MC-PCIE-SPEED") {
			return
		}
		if fatal {
			report, f.do = j.block, "reseat"
		}
	case "mce":
		f.code = "MC-CPU-ERROR"
		if k.Severity == "corrected" {
			break
		}
		report, f.do = j.block, "replace"
		if j.said("dimm") != nil || j.said("dimms") != nil {
			return
		}
	case "edac":
		f.code = "MC-DIMM-ERRORS"
		if j.said(c) != nil || j.said("dimm", "MC-DIMM-ERRORS") != nil {
			return
		}
		if k.Severity != "corrected" {
			report, f.do = j.block, "replace"
		}
	case "nvlink":
		f.code, f.do = "MC-NVLINK-DOWN", "reset"
		if said(asLink...) || j.noFabric || j.said("fabric") != nil || j.said("nvswitches") != nil {
			return
		}
		report = j.block
	case "nvme":
		f.code, f.do = "MC-NVME-ERRORS", "retest"
		if j.said(c) != nil {
			return
		}
		if fatal {
			report = j.block
		}
	case "mlx5":
		f.code, f.do = "MC-HCA-ERRORS", "retest"
		if j.said(c) != nil {
			return
		}
		if fatal {
			report = j.block
		}
	default:
		return
	}
	report(f, "the kernel reported of %s, %s: %s", c, times(k.Count), k.Line)
}

// childSaid is said for what hangs directly below a bridge: both ends of a link tell of its errors.
func (j *judge) childSaid(c string, codes ...string) bool {
	addr, ok := strings.CutPrefix(c, "pci/")
	if !ok {
		return false
	}
	for a, p := range j.names.parent {
		if p == addr && (j.said(j.names.at(a), codes...) != nil || j.explained(j.names.at(a))) {
			return true
		}
	}
	return false
}
