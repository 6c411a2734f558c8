package report

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/topology"
)

// Text writes what became other for a terminal.
func (c Comparison) Text(w io.Writer, o topology.TextOptions) error {
	t := &sheet{o: o}
	verdict, colour := "The same", "32"
	switch {
	case c.Verdict == Regress:
		verdict, colour = "Worse", "31"
	case c.Verdict == Improve:
		verdict = "Better"
	case c.Different():
		verdict, colour = "Different, neither better nor worse", "33"
	}
	t.line(colour, verdict+": "+c.sides())
	for _, x := range c.Caveats {
		t.wrap("  but ", x)
	}
	t.head("Outcomes", len(c.Checks))
	for _, x := range c.Checks {
		colour := ""
		if x.Worse {
			colour = "31"
		} else if x.better() {
			colour = "32"
		}
		line := fmt.Sprintf("  %s %s: %s, was %s", x.Component, x.ID, wordOr(x.Is), wordOr(x.Was))
		if x.Code != "" {
			line += "  " + x.Code
		}
		t.line(colour, line)
		t.wrap("      ", x.Words)
	}
	t.head("Values that moved further than noise", len(c.Values))
	for _, v := range c.gathered() {
		colour := map[string]string{"worse": "31", "better": "32"}[v.Change]
		t.line(colour, fmt.Sprintf("  %s %s: %s, was %s  %s  %s, noise %s %%", v.Component, v.ID, amount(v.Is, v.Unit), amount(v.Was, v.Unit), percent(v), v.Change, number(math.Ceil(100*v.Noise))))
	}
	t.head("Parts and their firmware", len(c.Parts))
	for _, p := range c.Parts {
		t.wrap("  ", fmt.Sprintf("%s %s: %s, was %s", p.Component, p.What, orNone(p.Is), orNone(p.Was)))
	}
	t.head("Limits", len(c.Limits))
	for _, l := range c.Limits {
		t.wrap("  ", fmt.Sprintf("%s of %s: %s, was %s", l.Check, kindWord(l.Kind), orNone(l.Is), orNone(l.Was)))
	}
	return t.to(w)
}

func (t *sheet) head(s string, n int) {
	if n > 0 {
		t.line("", "")
		t.line("", fmt.Sprintf("%s (%d)", s, n))
	}
}

// sides name the two: by time alone where it is one machine.
func (c Comparison) sides() string {
	name := func(s Side) string {
		if c.SameMachine {
			return stamp(s.BeganAt)
		}
		return strings.TrimSpace(s.Node+" "+s.Serial) + " of " + stamp(s.BeganAt)
	}
	whose := ""
	if c.SameMachine {
		whose = strings.TrimSpace(c.Is.Node+" "+c.Is.Serial) + ", "
	}
	return fmt.Sprintf("%s%s (%s) after %s (%s)", whose, name(c.Is), outcomeWords(c.Is.Verdict), name(c.Was), outcomeWords(c.Was.Verdict))
}

func wordOr(o fleet.Outcome) string {
	if o == "" {
		return "not there"
	}
	return outcomeWords(o)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func percent(v ValueChange) string {
	if v.Ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%+.1f %%", 100*(v.Ratio-1))
}

// gathered has one line for what all of at least four fellows did alike, by their medians: a driver that costs every GPU a tenth is one thing to know.
func (c Comparison) gathered() (out []ValueChange) {
	type key struct{ id, kind, change string }
	byKey := map[key][]ValueChange{}
	for _, v := range c.Values {
		k := key{v.ID, kind(v.Component), v.Change}
		byKey[k] = append(byKey[k], v)
	}
	done := map[key]bool{}
	for _, v := range c.Values {
		k := key{v.ID, kind(v.Component), v.Change}
		all := byKey[k]
		if len(all) < 4 {
			out = append(out, v)
			continue
		}
		if done[k] {
			continue
		}
		done[k] = true
		var was, is, ratio []float64
		for _, x := range all {
			was, is, ratio = append(was, x.Was), append(is, x.Is), append(ratio, x.Ratio)
		}
		sum := v
		sum.Component = fmt.Sprintf("%d of kind %s, in the median:", len(all), kindWord(k.kind))
		sum.Was, sum.Is, sum.Ratio = quantile(was, 0.5), quantile(is, 0.5), quantile(ratio, 0.5)
		out = append(out, sum)
	}
	return out
}
