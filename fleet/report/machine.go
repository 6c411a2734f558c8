package report

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/topology"
)

// layout is the machine as fleet/topology draws it, with what did not pass marked; ok is false where the report knows no rails.
func layout(r *fleet.BurnReport) (l topology.Layout, ok bool) {
	m := &r.Machine
	l.Title = strings.TrimSpace(nodeName(r) + "  " + m.Vendor + " " + m.Model)
	for _, rail := range m.Topology {
		i := slices.IndexFunc(m.Parts, func(p fleet.BurnedPart) bool { return p.PCIAddress == rail.GPU && family(p.Component) == "gpu" })
		if i < 0 {
			continue
		}
		gpu := m.Parts[i]
		out := topology.Rail{Rail: rail.Rail, Distance: rail.Distance, GPU: box(r, gpu.Component, "gpu", called(gpu.Component), strings.TrimPrefix(gpu.Model, "NVIDIA "), gpu.Serial, gpu.PCIAddress, linksText(r, gpu))}
		if rail.HCA != "" {
			p, _ := part(r, "hca/"+rail.HCA)
			hca := box(r, "hca/"+rail.HCA, "hca", rail.HCA, fmt.Sprintf("rail %d", rail.Rail), p.Serial, strings.TrimSpace(rail.Distance+" to its GPU"))
			out.HCA = &hca
		}
		for _, d := range rail.NVMe {
			p, _ := part(r, "disk/"+d)
			out.Drives = append(out.Drives, box(r, "disk/"+d, "drive", d, p.Serial))
		}
		n := slices.IndexFunc(l.Nodes, func(n topology.Node) bool { return n.ID == rail.NUMANode })
		if n < 0 {
			n = len(l.Nodes)
			l.Nodes = append(l.Nodes, topology.Node{ID: rail.NUMANode})
		}
		node := &l.Nodes[n]
		if last := len(node.Groups) - 1; last < 0 || node.Groups[last].Bridge != rail.Bridge || rail.Bridge == "" {
			node.Groups = append(node.Groups, topology.Group{Bridge: rail.Bridge, State: topology.OK})
		}
		at := &node.Groups[len(node.Groups)-1]
		at.Rails = append(at.Rails, out)
		if gpu.NVLinks > 0 {
			down := linksDown(r, gpu.Component)
			l.Bundles = append(l.Bundles, topology.Bundle{GPU: gpu.Component, Links: gpu.NVLinks, Up: max(0, gpu.NVLinks-len(down)), State: stateOf(r, gpu.Component+"/nvlink")})
		}
	}
	slices.SortFunc(l.Nodes, func(a, b topology.Node) int { return cmp.Compare(a.ID, b.ID) })
	if len(l.Bundles) > 0 {
		l.Switches = []topology.Part{{Component: "fabric", Kind: "fabric", Title: "NVLink fabric", Lines: []string{"a line is all links of a GPU"}, State: topology.OK}}
	}
	for _, f := range findings(r) {
		if len(l.Notes) == 8 {
			break
		}
		l.Notes = append(l.Notes, topology.Note{Component: f.Where, State: mark(f.Outcome), Words: f.Words})
	}
	return l, len(l.Nodes) > 0
}

func box(r *fleet.BurnReport, component, kind, title string, lines ...string) topology.Part {
	return topology.Part{Component: component, Kind: kind, Title: title, State: stateOf(r, component), Lines: slices.DeleteFunc(lines, func(s string) bool { return s == "" })}
}

// stateOf is the worst of a component and of what is in it.
func stateOf(r *fleet.BurnReport, component string) string {
	worst := fleet.Pass
	for _, c := range r.Checks {
		if (c.Component == component || strings.HasPrefix(c.Component, component+"/")) && rank(c.Outcome) < rank(worst) {
			worst = c.Outcome
		}
	}
	return mark(worst)
}

func mark(o fleet.Outcome) string {
	switch o {
	case fleet.Fail:
		return topology.Bad
	case fleet.Warn, fleet.CouldNotTell:
		return topology.Warning
	}
	return topology.OK
}

// linksDown are the NVLinks of a GPU that are down by the checks.
func linksDown(r *fleet.BurnReport, gpu string) (down []string) {
	for _, c := range r.Checks {
		if c.Code == "MC-NVLINK-DOWN" && strings.HasPrefix(c.Component, gpu+"/nvlink/") && !slices.Contains(down, c.Component) {
			down = append(down, c.Component)
		}
	}
	return down
}

func linksText(r *fleet.BurnReport, p fleet.BurnedPart) string {
	if p.NVLinks == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d NVLinks", max(0, p.NVLinks-len(linksDown(r, p.Component))), p.NVLinks)
}

// finding is what did not pass, for all components of which the same is said.
type finding struct {
	fleet.Check
	Components []string
	Where      string
}

// findings gathers checks that did not pass, worst first.
func findings(r *fleet.BurnReport) (out []finding) {
	type key struct {
		outcome         fleet.Outcome
		code, words, do string
	}
	at := map[key]int{}
	for _, c := range worstFirst(r.Checks) {
		if rank(c.Outcome) >= rank(fleet.Pass) {
			break
		}
		k := key{c.Outcome, c.Code, c.Words, c.Do}
		i, ok := at[k]
		if !ok || c.Words == "" {
			i = len(out)
			at[k] = i
			out = append(out, finding{Check: c})
		}
		if !slices.Contains(out[i].Components, c.Component) {
			out[i].Components = append(out[i].Components, c.Component)
		}
	}
	for i := range out {
		out[i].Where = where(out[i].Components)
	}
	return out
}

var numbered = regexp.MustCompile(`^(.*/)?([0-9]+)$`)

// where names components, many of them shortly.
func where(components []string) string {
	if len(components) == 1 {
		return components[0]
	}
	var owners []string
	for _, c := range components {
		if o := owner(c); !slices.Contains(owners, o) {
			owners = append(owners, o)
		}
	}
	slices.SortFunc(owners, fleet.CompareNatural)
	const most = 4
	s := strings.Join(ranges(owners), ", ")
	if r := ranges(owners); len(r) > most {
		s = fmt.Sprintf("%s and %d more", strings.Join(r[:most], ", "), len(r)-most)
	}
	if len(owners) != len(components) {
		s += fmt.Sprintf(" (%d components)", len(components))
	}
	return s
}

// ranges writes gpu/1, gpu/2, gpu/3 as gpu/1-3.
func ranges(components []string) (out []string) {
	prefix, first, last := "", -1, -1
	for _, c := range components {
		m := numbered.FindStringSubmatch(c)
		if m == nil || len(m[2]) > 6 {
			out, first = append(out, c), -1
			continue
		}
		var n int
		fmt.Sscan(m[2], &n)
		if first >= 0 && m[1] == prefix && n == last+1 {
			last = n
			out[len(out)-1] = fmt.Sprintf("%s%d-%d", prefix, first, last)
			continue
		}
		prefix, first, last = m[1], n, n
		out = append(out, c)
	}
	return out
}
