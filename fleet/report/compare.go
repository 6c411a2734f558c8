package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Verdicts of a comparison.
const (
	Same    = "same"
	Improve = "improve"
	Regress = "regress"
)

// Comparison is what became other from one report to another: of two runs, two nodes or two dates.
type Comparison struct {
	Was Side `json:"was"`
	Is  Side `json:"is"`
	// SameMachine is false where two machines are compared: then other serial numbers are no difference.
	SameMachine bool `json:"same_machine"`
	// Verdict is regress where any outcome or value got worse, improve where some got better and none worse.
	Verdict string        `json:"verdict"`
	Checks  []CheckChange `json:"checks,omitempty"`
	Values  []ValueChange `json:"values,omitempty"`
	Parts   []PartChange  `json:"parts,omitempty"`
	Limits  []LimitChange `json:"limits,omitempty"`
	// Caveats say why the two may not be held against each other.
	Caveats []string `json:"caveats,omitempty"`
}

// Side is one of the two.
type Side struct {
	Node     string        `json:"node,omitempty"`
	Serial   string        `json:"serial,omitempty"`
	Profile  string        `json:"profile"`
	Program  string        `json:"program,omitempty"`
	BeganAt  time.Time     `json:"began_at"`
	Finished bool          `json:"finished"`
	Verdict  fleet.Outcome `json:"verdict"`
}

// CheckChange is a check with another outcome; "" is that the check is not there.
type CheckChange struct {
	ID        string        `json:"id"`
	Component string        `json:"component"`
	Was       fleet.Outcome `json:"was,omitempty"`
	Is        fleet.Outcome `json:"is,omitempty"`
	Code      string        `json:"code,omitempty"`
	Words     string        `json:"words,omitempty"`
	Worse     bool          `json:"worse"`
}

// ValueChange is a value that moved further than noise explains.
type ValueChange struct {
	ID        string  `json:"id"`
	Component string  `json:"component"`
	Unit      string  `json:"unit,omitempty"`
	Was       float64 `json:"was"`
	Is        float64 `json:"is"`
	// Ratio is Is by Was, 0 where Was is 0. Noise is the part of Was that nobody would wonder about: four times the robust spread of the fellows in either
	// report, and a least that goes with what is measured.
	Ratio float64 `json:"ratio,omitempty"`
	Noise float64 `json:"noise"`
	// Change is worse, better, or other where neither is known.
	Change string `json:"change"`
}

// PartChange is another part in the same place, or another firmware in the same part. Serial and firmware of what was not there are "".
type PartChange struct {
	Component string `json:"component"`
	// What is part (added or gone), model, serial, firmware, bios, kernel or driver.
	What string `json:"what"`
	Was  string `json:"was,omitempty"`
	Is   string `json:"is,omitempty"`
}

// LimitChange is another limit for all parts of a kind.
type LimitChange struct {
	Check string `json:"check"`
	Kind  string `json:"kind"`
	Was   string `json:"was,omitempty"`
	Is    string `json:"is,omitempty"`
}

// Different reports whether anything changed.
func (c Comparison) Different() bool {
	return len(c.Checks)+len(c.Values)+len(c.Parts)+len(c.Limits) > 0
}

// Compare says what became other from was to is.
func Compare(was, is fleet.BurnReport) Comparison {
	c := Comparison{Was: sideOf(&was), Is: sideOf(&is), SameMachine: identity(&was) == identity(&is), Verdict: Same}
	c.compareChecks(newestChecks(&was), newestChecks(&is), fellows(&was), fellows(&is))
	c.compareParts(&was, &is)
	c.compareLimits(&was, &is)
	if was.Profile != is.Profile {
		c.Caveats = append(c.Caveats, fmt.Sprintf("the profiles are others, %s and %s: they load for another time", was.Profile, is.Profile))
	}
	if was.Fixture != is.Fixture {
		c.Caveats = append(c.Caveats, fmt.Sprintf("the machines are made of something else, %s and %s", cmp.Or(was.Fixture, "real hardware"), cmp.Or(is.Fixture, "real hardware")))
	}
	for i, r := range []*fleet.BurnReport{&was, &is} {
		if !r.Finished {
			c.Caveats = append(c.Caveats, fmt.Sprintf("the %s did not finish", []string{"first", "second"}[i]))
		}
	}
	better := slices.ContainsFunc(c.Checks, func(x CheckChange) bool { return x.better() }) || slices.ContainsFunc(c.Values, func(x ValueChange) bool { return x.Change == "better" })
	worse := slices.ContainsFunc(c.Checks, func(x CheckChange) bool { return x.Worse }) || slices.ContainsFunc(c.Values, func(x ValueChange) bool { return x.Change == "worse" })
	switch {
	case worse:
		c.Verdict = Regress
	case better:
		c.Verdict = Improve
	}
	return c
}

func sideOf(r *fleet.BurnReport) Side {
	return Side{Node: r.Node, Serial: r.Machine.Serial, Profile: r.Profile, Program: r.Program, BeganAt: r.BeganAt, Finished: r.Finished, Verdict: r.Verdict}
}

// better: it passes now and did not, or it is less bad. What was left out before or is now is neither.
func (x CheckChange) better() bool {
	return !x.Worse && x.Was != "" && x.Is != "" && x.Was != fleet.Skip && x.Is != fleet.Skip
}

type checkKey struct{ id, component string }

// newestChecks has the worst outcome of each check and component, and the newest of those.
func newestChecks(r *fleet.BurnReport) map[checkKey]fleet.Check {
	out := map[checkKey]fleet.Check{}
	for _, c := range r.Checks {
		k := checkKey{c.ID, c.Component}
		if have, ok := out[k]; !ok || rank(c.Outcome) < rank(have.Outcome) || rank(c.Outcome) == rank(have.Outcome) && c.Round >= have.Round {
			out[k] = c
		}
	}
	return out
}

func (c *Comparison) compareChecks(was, is map[checkKey]fleet.Check, wasFellows, isFellows map[fellowKey][]float64) {
	keys := map[checkKey]bool{}
	for k := range was {
		keys[k] = true
	}
	for k := range is {
		keys[k] = true
	}
	for k := range keys {
		a, had := was[k]
		b, has := is[k]
		if had != has || a.Outcome != b.Outcome {
			x := CheckChange{ID: k.id, Component: k.component, Was: a.Outcome, Is: b.Outcome, Code: cmp.Or(b.Code, a.Code), Words: b.Words}
			x.Worse = has && rank(b.Outcome) < rank(fleet.Pass) && (!had || rank(b.Outcome) < rank(a.Outcome)) || had && !has && a.Outcome == fleet.Pass
			if !has {
				x.Words = "this was not looked at"
			}
			c.Checks = append(c.Checks, x)
		}
		if a.Value == nil || b.Value == nil || a.Unit != b.Unit {
			continue
		}
		fk := fellowKey{k.id, kind(k.component)}
		if x, moved := moved(k, a, b, max(spread(wasFellows[fk]), spread(isFellows[fk]))); moved {
			c.Values = append(c.Values, x)
		}
	}
	slices.SortFunc(c.Checks, func(x, y CheckChange) int {
		return cmp.Or(boolRank(x.Worse)-boolRank(y.Worse), rank(x.Is)-rank(y.Is), fleet.CompareNatural(x.Component, y.Component), cmp.Compare(x.ID, y.ID))
	})
	slices.SortFunc(c.Values, func(x, y ValueChange) int {
		return cmp.Or(boolRank(x.Change == "worse")-boolRank(y.Change == "worse"), boolRank(x.Change == "better")-boolRank(y.Change == "better"), cmp.Compare(x.ID, y.ID), fleet.CompareNatural(x.Component, y.Component))
	})
}

// boolRank puts what is true first.
func boolRank(b bool) int {
	if b {
		return 0
	}
	return 1
}

type fellowKey struct{ id, kind string }

func fellows(r *fleet.BurnReport) map[fellowKey][]float64 {
	out := map[fellowKey][]float64{}
	for _, c := range r.Checks {
		if c.Value != nil {
			k := fellowKey{c.ID, kind(c.Component)}
			out[k] = append(out[k], *c.Value)
		}
	}
	return out
}

// spread is how far fellows are from their median, as a part of it: the median of the distances, which one sick part does not move, as a standard deviation.
func spread(values []float64) float64 {
	middle := quantile(values, 0.5)
	if len(values) < 4 || middle == 0 {
		return 0
	}
	var far []float64
	for _, v := range values {
		far = append(far, math.Abs(v-middle))
	}
	return 1.4826 * quantile(far, 0.5) / math.Abs(middle)
}

// leastNoise is the part of a value that changes from run to run whatever the fellows do: the room is warmer, the host is busier.
func leastNoise(unit string) float64 {
	switch unit {
	case "C", "W":
		return 0.08
	case "us", "s":
		return 0.25
	}
	return 0.03
}

// moved says whether a value is further from what it was than noise, and whether that is worse.
func moved(k checkKey, a, b fleet.Check, spread float64) (ValueChange, bool) {
	was, is := *a.Value, *b.Value
	if !finite(was) || !finite(is) {
		return ValueChange{}, false
	}
	m, _ := fleet.FindMeasured(k.id)
	x := ValueChange{ID: k.id, Component: k.component, Unit: a.Unit, Was: was, Is: is, Noise: max(4*spread, leastNoise(a.Unit)), Change: "other"}
	judge := m.Judge
	if judge == "" && b.Limit != nil {
		judge = map[bool]string{true: "more", false: "less"}[b.Limit.Least]
	}
	if judge == "zero" {
		x.Noise = 0
	}
	if was != 0 {
		x.Ratio = is / was
	}
	if math.Abs(is-was) <= x.Noise*math.Abs(was) {
		return x, false
	}
	switch {
	case judge == "more" && is < was, (judge == "less" || judge == "zero") && is > was:
		x.Change = "worse"
	case judge != "" && judge != "none":
		x.Change = "better"
	case judge == "" && rank(b.Outcome) < rank(a.Outcome):
		x.Change = "worse"
	case judge == "" && rank(b.Outcome) > rank(a.Outcome):
		x.Change = "better"
	}
	return x, true
}

func (c *Comparison) compareParts(was, is *fleet.BurnReport) {
	add := func(component, what, a, b string) {
		if a != b {
			c.Parts = append(c.Parts, PartChange{component, what, a, b})
		}
	}
	add("node", "bios", was.Machine.BIOS, is.Machine.BIOS)
	add("node", "kernel", was.Machine.Kernel, is.Machine.Kernel)
	add("node", "driver", was.Machine.Driver, is.Machine.Driver)
	byName := func(r *fleet.BurnReport) map[string]fleet.BurnedPart {
		out := map[string]fleet.BurnedPart{}
		for _, p := range r.Machine.Parts {
			out[p.Component] = p
		}
		return out
	}
	a, b := byName(was), byName(is)
	for name, p := range a {
		q, ok := b[name]
		if !ok {
			add(name, "part", cmp.Or(strings.TrimSpace(p.Model+" "+p.Serial), "there"), "")
			continue
		}
		add(name, "model", p.Model, q.Model)
		if c.SameMachine {
			add(name, "serial", p.Serial, q.Serial)
		}
		add(name, "firmware", p.Firmware, q.Firmware)
	}
	for name, q := range b {
		if _, ok := a[name]; !ok {
			add(name, "part", "", cmp.Or(strings.TrimSpace(q.Model+" "+q.Serial), "there"))
		}
	}
	slices.SortStableFunc(c.Parts, func(x, y PartChange) int {
		return cmp.Or(fleet.CompareNatural(x.Component, y.Component), cmp.Compare(x.What, y.What))
	})
}

// compareLimits compares what is said for all parts of a kind. Limits against fellows are made of what was measured, and are others in every run.
func (c *Comparison) compareLimits(was, is *fleet.BurnReport) {
	byCheck := func(r *fleet.BurnReport) map[fellowKey]string {
		out := map[fellowKey]string{}
		for _, x := range r.Checks {
			if x.Limit != nil && x.Limit.Against != "peers" && x.Limit.Against != fleet.AgainstFleet {
				out[fellowKey{x.ID, kind(x.Component)}] = limitWords(x.Limit)
			}
		}
		return out
	}
	a, b := byCheck(was), byCheck(is)
	ran := func(r *fleet.BurnReport, k fellowKey) bool {
		return slices.ContainsFunc(r.Checks, func(x fleet.Check) bool { return x.ID == k.id && kind(x.Component) == k.kind && x.Value != nil })
	}
	for k, x := range a {
		if y := b[k]; x != y && (y != "" || ran(is, k)) {
			c.Limits = append(c.Limits, LimitChange{k.id, k.kind, x, y})
		}
	}
	for k, y := range b {
		if _, ok := a[k]; !ok && ran(was, k) {
			c.Limits = append(c.Limits, LimitChange{k.id, k.kind, "", y})
		}
	}
	slices.SortFunc(c.Limits, func(x, y LimitChange) int { return cmp.Or(cmp.Compare(x.Check, y.Check), cmp.Compare(x.Kind, y.Kind)) })
}
