package verdict

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// gauge is all that was measured of one check at one component.
type gauge struct {
	check     fleet.MeasuredCheck
	component string
	values    []float64 // by part, in their order
	parts     []int     // which parts
	passes    int64
	details   []string
	engine    string
}

// middle is what a gauge is compared with others by: its median, so that one odd round condemns nobody.
func (g *gauge) middle() float64 { return median(g.values) }

// measured judges what stressors measured: wrong data first, then limits, then this node's fellows, then the fleet.
func (b *burner) measured() {
	gauges := b.gauges()
	for _, c := range fleet.MeasuredChecks {
		of := gauges[c.Name]
		if len(of) == 0 {
			continue
		}
		if c.Judge == "zero" {
			b.zero(c, of)
			continue
		}
		left := of[:0:0]
		for _, g := range of {
			if !b.bounded(g) {
				left = append(left, g)
			}
		}
		b.compared(c, left, of)
	}
}

// gauges gathers the parts' measurements by check, components in natural order.
func (b *burner) gauges() map[string][]*gauge {
	at := map[tallyKey]*gauge{}
	out := map[string][]*gauge{}
	for i := range b.parts {
		for _, m := range b.parts[i].Measured {
			c, ok := fleet.FindMeasured(m.Check)
			switch {
			case !ok:
				b.add(ofOther, fleet.Check{ID: m.Check, Component: m.Component, Outcome: fleet.Skip, Words: "this version of the judge does not know the check"})
				continue
			case m.Unit != c.Unit || math.IsNaN(m.Value) || math.IsInf(m.Value, 0) || m.Value < 0:
				b.add(ofUntold, fleet.Check{ID: m.Check, Component: m.Component, Outcome: fleet.CouldNotTell, Code: "MC-BURN-UNTOLD", Stage: b.parts[i].Stage, Round: b.parts[i].Round,
					Words: fmt.Sprintf("%s: %g %s is no value of %s, which is in %s", b.name(m.Component), m.Value, m.Unit, m.Check, c.Unit)})
				continue
			}
			k := tallyKey{m.Check, m.Component}
			g := at[k]
			if g == nil {
				g = &gauge{check: c, component: m.Component}
				at[k] = g
				out[m.Check] = append(out[m.Check], g)
			}
			g.values, g.parts, g.passes, g.engine = append(g.values, m.Value), append(g.parts, i), g.passes+m.N, cmp.Or(m.Engine, g.engine)
			if m.Value != 0 || c.Judge != "zero" {
				g.details = append(g.details, m.Details...)
			}
		}
	}
	for _, gs := range out {
		slices.SortStableFunc(gs, func(x, y *gauge) int { return fleet.CompareNatural(x.component, y.component) })
	}
	return out
}

// entry is a check of a gauge before it is judged; the value is the one at place i of it, the middle where i is negative.
func (b *burner) entry(g *gauge, i int) fleet.Check {
	v := g.middle()
	c := fleet.Check{ID: g.check.Name, Component: g.component, Outcome: fleet.Pass, Unit: g.check.Unit, Engine: g.engine, Evidence: slices.Clone(firsts(g.details, 20))}
	if i >= 0 {
		v = g.values[i]
		c.Stage, c.Round = b.parts[g.parts[i]].Stage, b.parts[g.parts[i]].Round
	}
	c.Value = &v
	return c
}

// zero judges data that must be right: any other value is wrong, of whatever part.
func (b *burner) zero(check fleet.MeasuredCheck, of []*gauge) {
	var wrong []*gauge
	quiet := map[string]*fleet.Check{}
	var order []string
	for _, g := range of {
		if slices.Max(g.values) > 0 {
			wrong = append(wrong, g)
			continue
		}
		c := b.entry(g, -1)
		c.Words = fmt.Sprintf("%s: no %s in %s", b.name(g.component), check.Doc, count(int(max(g.passes, int64(len(g.values)))), "pass"))
		switch check.Part { // hundreds of cores and pairs: what passed is one check
		case "core":
			c.Component, c.Words = "core", ""
		case "peer":
			c.Component = root(g.component) + "/peer"
			c.Words = ""
		}
		if old := quiet[c.Component]; old == nil {
			quiet[c.Component] = &c
			order = append(order, c.Component)
		}
	}
	for _, at := range order {
		c := quiet[at]
		if c.Words == "" {
			c.Words = fmt.Sprintf("no %s", check.Doc)
		}
		b.add(ofData, *c)
	}
	if check.Part == "gpu" && len(wrong) >= 4 && len(wrong) == len(of) {
		b.add(ofPlatform, fleet.Check{ID: "platform-load", Component: "platform", Outcome: fleet.CouldNotTell, Code: "MC-BURN-PLATFORM", Do: "update",
			Words: fmt.Sprintf("the platform: each of the %d GPUs had %s, so that it is a mistake of the load, the driver or what they share, and no GPU's", len(wrong), check.Doc)})
		return
	}
	if check.Part == "peer" {
		wrong = b.blamePeers(check, wrong)
	}
	for _, g := range wrong {
		sum, first := 0.0, -1
		for i, v := range g.values {
			sum += v
			if v > 0 && first < 0 {
				first = i
			}
		}
		c := b.entry(g, first)
		c.Value = &sum
		c.Outcome, c.Code, c.Do = fleet.Fail, "MC-BURN-DATA", "retest"
		c.Limit = &fleet.CheckLimit{Unit: check.Unit, Against: "metalctl", Source: "data must be right"}
		if check.Name == "gpu-memory-mismatches" {
			c.Do = "reset" // after which a damaged row is replaced by a spare one
		}
		if check.Name == "disk-io-errors" {
			c.Code = "MC-BURN-DISK"
		}
		c.Words = fmt.Sprintf("%s: %.0f %s", b.name(g.component), sum, check.Doc)
		if n := max(g.passes, int64(len(g.values))); n > 1 {
			c.Words += fmt.Sprintf(" (in %d passes)", n)
		}
		b.add(ofData, c)
	}
}

// blamePeers finds the GPU that is in most of the wrong pairs and enters one check for it; pairs without it are left.
func (b *burner) blamePeers(check fleet.MeasuredCheck, wrong []*gauge) []*gauge {
	for {
		in := map[string]int{}
		for _, g := range wrong {
			for _, r := range roots(g.component) {
				in[r]++
			}
		}
		worst := ""
		for _, r := range sortedKeys(in) {
			if in[r] > 2 && in[r] > in[worst] { // more than both ways between two
				worst = r
			}
		}
		if worst == "" {
			return wrong
		}
		sum, all := 0.0, &gauge{check: check, component: worst + "/peer"}
		wrong = slices.DeleteFunc(wrong, func(g *gauge) bool {
			if !slices.Contains(roots(g.component), worst) {
				return false
			}
			for i, v := range g.values {
				sum += v
				all.values, all.parts = append(all.values, v), append(all.parts, g.parts[i])
			}
			all.details, all.engine = append(all.details, g.details...), g.engine
			return true
		})
		c := b.entry(all, slices.IndexFunc(all.values, func(v float64) bool { return v > 0 }))
		c.Value = &sum
		c.Outcome, c.Code, c.Do = fleet.Fail, "MC-BURN-DATA", "reset"
		c.Words = fmt.Sprintf("%s is in %d pairs of GPUs with %s, %.0f in all", b.name(worst), in[worst], check.Doc, sum)
		b.add(ofData, c)
	}
}

// bounded holds a gauge against the limit of profile or class, and the link under load against what it can be. It reports whether it failed.
func (b *burner) bounded(g *gauge) bool {
	least := fleet.LeastPasses(g.check)
	worst := 0
	for i, v := range g.values {
		if least && v < g.values[worst] || !least && v > g.values[worst] {
			worst = i
		}
	}
	if b.linkUnderLoad(g, worst) {
		return true
	}
	l, whose := b.limit(g.check.Name)
	if l == nil {
		return false
	}
	v := g.values[worst]
	c := b.entry(g, worst)
	c.Limit = &fleet.CheckLimit{Value: l.Value, Least: least, Unit: l.Unit, Against: whose, Source: l.Source}
	if least && v >= l.Value || !least && v <= l.Value {
		return false
	}
	word := "most"
	if least {
		word = "least"
	}
	c.Outcome, c.Code, c.Do = fleet.Fail, codeOf(g.check), "retest"
	c.Words = fmt.Sprintf("%s: %s is %.4g %s, the %s wants at %s %g (%s)", b.name(g.component), g.check.Name, v, g.check.Unit, whose, word, l.Value, l.Source)
	b.add(rateFamily(g.check), c)
	return true
}

// linkUnderLoad: a PCIe link idles below its speed, so that only under load its generation tells.
func (b *burner) linkUnderLoad(g *gauge, worst int) bool {
	i := slices.Index(b.names.gpu, g.component)
	if i < 0 || b.last == nil || b.last.GPUs[i].PCIe == nil {
		return false
	}
	l, e := b.last.GPUs[i].PCIe, b.in.Class.Expect.GPUs.PCIe
	want, what, code := 0, "", ""
	switch g.check.Name {
	case "gpu-pcie-generation-load":
		want, what, code = cmp.Or(e.Generation, l.MaxGeneration), "generation", "MC-PCIE-SPEED"
	case "gpu-pcie-width-load":
		want, what, code = cmp.Or(e.Width, l.MaxWidth), "lanes", "MC-PCIE-WIDTH"
	}
	if want == 0 || g.values[worst] >= float64(want) {
		return false
	}
	c := b.entry(g, worst)
	c.Outcome, c.Code, c.Do = fleet.Fail, code, "reseat"
	c.Limit = &fleet.CheckLimit{Value: float64(want), Least: true, Unit: g.check.Unit, Against: fleet.AgainstClass, Source: "the link's own maximum"}
	c.Words = fmt.Sprintf("%s: its PCIe link has %s %g under load, and could have %d", b.name(g.component), what, g.values[worst], want)
	b.add(ofPCIe, c)
	return true
}

// codeOf is the code of a measurement that is beyond a limit or unlike its fellows.
func codeOf(c fleet.MeasuredCheck) string {
	switch {
	case strings.Contains(c.Name, "temperature"):
		return "MC-BURN-HOT"
	case strings.Contains(c.Name, "power"):
		return "MC-BURN-POWER"
	}
	return "MC-BURN-SLOW"
}

func rateFamily(c fleet.MeasuredCheck) family {
	switch c.Name {
	case "gpu-temperature-max", "gpu-memory-temperature-max":
		return ofHeat
	case "gpu-sm-clock-load", "gpu-power-load":
		return ofClock
	}
	return ofRate
}
