package verdict

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// oddness is by how much a measurement may be worse than the median of its fellows before it is odd: a part of the median, or kelvins. fail 0 only warns.
type oddness struct {
	check      string
	warn, fail float64
	kelvin     bool
	// high: a high value is worse, whatever the check's own sense is.
	high bool
}

// oddnesses: what GPUs of one model differ by from best to worst under a power limit is 8 % (P. Sinha et al., Not All GPUs Are Created Equal, SC 2022), so
// that a single one 8 % below the median is no healthy one; memory and NVLink run at fixed clocks and hardly differ, and one NVLink of 18 is 5.6 %.
// SuperBench warns at 5 % of bandwidth and throughput. Drives at 90 % of their fellows are suspect, by experience; heat depends on the place.
var oddnesses = []oddness{
	{check: "gpu-int32", warn: 0.05, fail: 0.08}, {check: "gpu-fp32", warn: 0.05, fail: 0.08}, {check: "gpu-fp64", warn: 0.05, fail: 0.08}, {check: "gpu-bf16", warn: 0.05, fail: 0.08}, {check: "gpu-int8", warn: 0.05, fail: 0.08},
	{check: "gpu-memory-bandwidth", warn: 0.03, fail: 0.05},
	{check: "gpu-h2d", warn: 0.05, fail: 0.10}, {check: "gpu-d2h", warn: 0.05, fail: 0.10}, {check: "gpu-peer", warn: 0.03, fail: 0.05},
	{check: "gpu-sm-clock-load", warn: 0.05, fail: 0.10}, {check: "gpu-power-load", warn: 0.15, fail: 0.30},
	{check: "gpu-temperature-max", warn: 12, fail: 25, kelvin: true, high: true}, {check: "gpu-memory-temperature-max", warn: 12, fail: 25, kelvin: true, high: true},
	{check: "cpu-rate", warn: 0.15}, {check: "memory-bandwidth", warn: 0.05, fail: 0.10},
	{check: "disk-read", warn: 0.10, fail: 0.30}, {check: "disk-write", warn: 0.10, fail: 0.30}, {check: "disk-read-latency", warn: 0.5, fail: 2, high: true}, {check: "disk-write-latency", warn: 0.5, fail: 2, high: true},
	{check: "hca-bandwidth", warn: 0.03, fail: 0.06}, {check: "nic-bandwidth", warn: 0.05, fail: 0.20},
}

const (
	// leastPeers is how many fellows a part must have to be compared with them: fewer have no majority that a sick one is not part of.
	leastPeers = 4
	// placeMAD, in kelvins, is what is taken for chance at most where heat is compared: half of a board's GPUs stand in the warm air of the others, which
	// spreads them and is no excuse for one that is hotter still.
	placeMAD = 2
	// oddZ is how many robust standard deviations from the median are odd.
	oddZ = 4
)

// compared holds gauges against their fellows in the node and then against the fleet. Gauges that failed by a limit are fellows all the same.
func (b *burner) compared(check fleet.MeasuredCheck, left, all []*gauge) {
	k := slices.IndexFunc(oddnesses, func(o oddness) bool { return o.check == check.Name })
	if k < 0 {
		for _, g := range left {
			c := b.entry(g, -1)
			c.Words = fmt.Sprintf("%s: %.4g %s, %s", b.name(g.component), *c.Value, check.Unit, check.Doc)
			b.add(rateFamily(check), c)
		}
		return
	}
	o := oddnesses[k]
	checks := map[string]fleet.Check{} // by component
	var order []string
	for _, group := range b.fellows(all) {
		mid, mad := spread(group)
		for _, g := range group {
			if !slices.Contains(left, g) {
				continue
			}
			c := b.entry(g, -1)
			b.asFellow(&c, o, check, group, mid, mad)
			checks[g.component] = c
			order = append(order, g.component)
		}
	}
	if check.Part == "peer" {
		order = b.slowPeers(check, checks, order)
	}
	slices.SortStableFunc(order, fleet.CompareNatural)
	b.quietOnes(check, checks, order)
}

// fellows groups gauges whose parts are of one kind, so that drives of two models are not compared.
func (b *burner) fellows(gs []*gauge) [][]*gauge {
	groups := map[string][]*gauge{}
	for _, g := range gs {
		model := ""
		if p, ok := partOf(b.burnedParts(), g.component); ok {
			model = p.Model
		}
		groups[model] = append(groups[model], g)
	}
	var out [][]*gauge
	for _, m := range sortedKeys(groups) {
		out = append(out, groups[m])
	}
	return out
}

func spread(group []*gauge) (mid, mad float64) {
	var vs []float64
	for _, g := range group {
		vs = append(vs, g.middle())
	}
	return robust(vs)
}

// robust is the median and the median absolute deviation from it.
func robust(vs []float64) (mid, mad float64) {
	mid = median(vs)
	var ds []float64
	for _, v := range vs {
		ds = append(ds, math.Abs(v-mid))
	}
	return mid, median(ds)
}

func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(vs))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// worse is by how much a value is worse than the middle, in the terms of o; below 0 it is better.
func (o oddness) worse(v, mid float64) float64 {
	d := mid - v
	if o.high {
		d = v - mid
	}
	if o.kelvin {
		return d
	}
	if mid <= 0 {
		return 0
	}
	return d / mid
}

// off says how a value is off the middle.
func (o oddness) off(v, mid float64) string {
	if o.kelvin {
		return fmt.Sprintf("%.1f K above", v-mid)
	}
	if o.high {
		return fmt.Sprintf("%.1f %% above", 100*(v/mid-1))
	}
	return fmt.Sprintf("%.1f %% below", 100*(1-v/mid))
}

// bound is the value at which it is off by d.
func (o oddness) bound(d, mid float64) float64 {
	switch {
	case o.kelvin:
		return mid + d
	case o.high:
		return mid * (1 + d)
	}
	return mid * (1 - d)
}

// outcome is what a value is worth beside a middle and its spread: odd only where it is both far in deviations and in itself.
func (o oddness) outcome(v, mid, mad float64) fleet.Outcome {
	d := o.worse(v, mid)
	if o.kelvin {
		mad = math.Min(mad, placeMAD)
	}
	if d <= o.warn || math.Abs(v-mid) <= oddZ*1.4826*mad {
		return fleet.Pass
	}
	if o.fail > 0 && d > o.fail {
		return fleet.Fail
	}
	return fleet.Warn
}

func (b *burner) asFellow(c *fleet.Check, o oddness, check fleet.MeasuredCheck, group []*gauge, mid, mad float64) {
	v := *c.Value
	c.Words = fmt.Sprintf("%s: %.4g %s", b.name(c.Component), v, check.Unit)
	if len(group)-1 < leastPeers {
		c.Words += fmt.Sprintf("; it has %s to be compared with, and %d are needed", count(len(group)-1, "fellow"), leastPeers)
		return
	}
	limit := o.fail
	c.Outcome = o.outcome(v, mid, mad)
	switch c.Outcome {
	case fleet.Fail:
		c.Code, c.Do = codeOf(check), "retest"
	case fleet.Warn:
		limit = o.warn
		c.Code, c.Do = codeOf(check), "retest"
	}
	if limit == 0 {
		limit = o.warn
	}
	c.Limit = &fleet.CheckLimit{Value: o.bound(limit, mid), Least: !o.high, Unit: check.Unit, Against: "peers", Source: fmt.Sprintf("the median of %d is %.4g %s", len(group), mid, check.Unit)}
	if c.Outcome == fleet.Pass {
		return
	}
	c.Words = fmt.Sprintf("%s: %s is %.4g %s, %s the median of the %d alike", b.name(c.Component), check.Name, v, check.Unit, o.off(v, mid), len(group))
	var vs []string
	for _, g := range group {
		if len(vs) == 16 {
			vs = append(vs, "...")
			break
		}
		vs = append(vs, fmt.Sprintf("%s %.4g", g.component, g.middle()))
	}
	c.Evidence = append(c.Evidence, strings.Join(vs, ", "))
}

// slowPeers makes one check of pairs that are slow because of one GPU, and returns the pairs that are left.
func (b *burner) slowPeers(check fleet.MeasuredCheck, checks map[string]fleet.Check, order []string) []string {
	for {
		in, worstOf := map[string]int{}, map[string]fleet.Outcome{}
		for _, at := range order {
			if c := checks[at]; c.Outcome != fleet.Pass {
				for _, r := range roots(at) {
					in[r]++
					if severity(c.Outcome) > severity(worstOf[r]) {
						worstOf[r] = c.Outcome
					}
				}
			}
		}
		worst := ""
		for _, r := range sortedKeys(in) {
			if in[r] > 2 && in[r] > in[worst] {
				worst = r
			}
		}
		if worst == "" {
			return order
		}
		var vs []float64
		var one fleet.Check
		for _, at := range order {
			if c := checks[at]; slices.Contains(roots(at), worst) {
				vs = append(vs, *c.Value)
				if c.Outcome == worstOf[worst] && one.ID == "" {
					one = c
				}
			}
		}
		mid := median(vs)
		order = slices.DeleteFunc(order, func(at string) bool { return slices.Contains(roots(at), worst) })
		one.Component, one.Value, one.Do = worst+"/peer", &mid, "reset"
		one.Words = fmt.Sprintf("%s copies at %.4g %s to and from the others: %d of its pairs are slower than those of the others", b.name(worst), mid, check.Unit, in[worst])
		b.add(ofRate, one)
	}
}

// quietOnes enters the checks of one kind: all that are no pass, and of those of cores and pairs that passed one for all.
func (b *burner) quietOnes(check fleet.MeasuredCheck, checks map[string]fleet.Check, order []string) {
	together := map[string][]fleet.Check{}
	var names []string
	for _, at := range order {
		c := checks[at]
		if c.Outcome == fleet.Pass && (check.Part == "core" || check.Part == "peer") {
			to := "core"
			if check.Part == "peer" {
				to = root(at) + "/peer"
			}
			if together[to] == nil {
				names = append(names, to)
			}
			together[to] = append(together[to], c)
			continue
		}
		b.add(rateFamily(check), c)
	}
	for _, to := range names {
		var vs []float64
		for _, c := range together[to] {
			vs = append(vs, *c.Value)
		}
		c, mid := together[to][0], median(vs)
		c.Component, c.Value = to, &mid
		c.Words = fmt.Sprintf("%s: %.4g to %.4g %s, the median of %d is %.4g", b.name(to), slices.Min(vs), slices.Max(vs), check.Unit, len(vs), mid)
		b.add(rateFamily(check), c)
	}
}
