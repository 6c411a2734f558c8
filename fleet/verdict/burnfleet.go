package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// BurnFleet is what nodes of one class measured.
type BurnFleet struct {
	Norms []Norm `json:"norms"`
}

// Norm is what is usual of one check at one component, as heat depends on the place; N is how many nodes it is made of.
type Norm struct {
	Check     string  `json:"check"`
	Component string  `json:"component"`
	N         int     `json:"n"`
	Median    float64 `json:"median"`
	MAD       float64 `json:"mad"`
}

// warnNodes is how many nodes must have been measured before one that is unlike them is warned of. It fails by limits alone: rooms and firmware differ.
const warnNodes = 8

// ValuesOf are a report's values that other nodes can be held against. Node and class are the caller's to fill.
func ValuesOf(r *fleet.BurnReport) fleet.BurnValues {
	x := fleet.BurnValues{Machine: cmp.Or(r.Machine.Serial, r.Machine.UUID, r.Node), Profile: r.Profile, At: r.EndedAt, Fixture: r.Fixture, Values: map[string]map[string]float64{}}
	n := 0
	for _, c := range r.Checks {
		if c.Value == nil || n == fleet.MostBurnValues || !slices.ContainsFunc(oddnesses, func(o oddness) bool { return o.check == c.ID }) {
			continue
		}
		if x.Values[c.ID] == nil {
			x.Values[c.ID] = map[string]float64{}
		}
		x.Values[c.ID][c.Component] = *c.Value
		n++
	}
	return x
}

// FleetOf builds the history of a class from what its nodes measured, the newest of each machine. How hot a part gets depends on for how long it is loaded, so
// that heat is held against runs of the same profile only.
func FleetOf(all []fleet.BurnValues, profile string) *BurnFleet {
	newest := map[string]*fleet.BurnValues{}
	for i := range all {
		x := &all[i]
		if old := newest[x.Machine]; old == nil || x.At.After(old.At) {
			newest[x.Machine] = x
		}
	}
	values := map[tallyKey][]float64{}
	for _, k := range sortedKeys(newest) {
		for _, o := range oddnesses {
			if o.kelvin && newest[k].Profile != profile {
				continue
			}
			for component, v := range newest[k].Values[o.check] {
				at := tallyKey{o.check, component}
				values[at] = append(values[at], v)
			}
		}
	}
	f := &BurnFleet{}
	for k, vs := range values {
		mid, mad := robust(vs)
		f.Norms = append(f.Norms, Norm{Check: k.id, Component: k.component, N: len(vs), Median: mid, MAD: mad})
	}
	slices.SortFunc(f.Norms, func(x, y Norm) int {
		return cmp.Or(strings.Compare(x.Check, y.Check), fleet.CompareNatural(x.Component, y.Component))
	})
	return f
}

// against holds what passed beside its fellows against the history: where all parts of a node are alike and slow, only others tell. What most parts of
// the node have in common is one check of the node.
func (b *burner) against() {
	if b.in.Fleet == nil {
		return
	}
	for _, o := range oddnesses {
		var odd []int
		judged := 0
		for i := range b.checks {
			f := &b.checks[i]
			if f.ID != o.check || f.Outcome != fleet.Pass || f.Value == nil {
				continue
			}
			n := b.in.Fleet.norm(f.ID, f.Component)
			if n == nil || n.N < warnNodes {
				continue
			}
			judged++
			if b.asNode(f, o, n) {
				odd = append(odd, i)
			}
		}
		if len(odd) < 2 || 2*len(odd) <= judged {
			continue
		}
		node := b.checks[odd[0]].Check
		var vs []string
		for _, i := range odd {
			f := &b.checks[i]
			vs = append(vs, fmt.Sprintf("%s %.4g", f.Component, *f.Value))
			f.Outcome, f.Code, f.Do = fleet.Pass, "", "none"
		}
		check, _ := fleet.FindMeasured(o.check)
		node.Component, node.Value, node.Do = "node", nil, "configure"
		node.Words = fmt.Sprintf("%d of %d parts of the node are worse in %s than those of the other nodes of the class: look at what they share, settings, power and air", len(odd), judged, o.check)
		node.Evidence = []string{strings.Join(vs, ", ")}
		b.add(rateFamily(check), node)
	}
}

func (f *BurnFleet) norm(check, component string) *Norm {
	i := slices.IndexFunc(f.Norms, func(n Norm) bool { return n.Check == check && n.Component == component })
	if i < 0 {
		return nil
	}
	return &f.Norms[i]
}

// asNode judges one value by the history of its place, and reports whether it is odd.
func (b *burner) asNode(f *found, o oddness, n *Norm) bool {
	if o.outcome(*f.Value, n.Median, n.MAD) == fleet.Pass {
		return false
	}
	check, _ := fleet.FindMeasured(f.ID)
	f.Outcome, f.Code, f.Do = fleet.Warn, codeOf(check), "retest"
	f.Limit = &fleet.CheckLimit{Value: o.bound(o.warn, n.Median), Least: !o.high, Unit: f.Unit, Against: "fleet", Source: fmt.Sprintf("the median of %d nodes is %.4g %s", n.N, n.Median, f.Unit)}
	f.Words = fmt.Sprintf("%s: %s is %.4g %s, %s the median of %d nodes of the class", b.name(f.Component), f.ID, *f.Value, f.Unit, o.off(*f.Value, n.Median), n.N)
	return true
}
