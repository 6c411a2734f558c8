// Package report draws what a burn-in came to: JUnit, SARIF, a page, a terminal's text, and the difference of two reports.
//
// All of it is pure: the same report gives the same bytes. What stands in a report comes from devices and logs, so nothing of it is trusted to be text.
package report

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/metalctl/metalctl/fleet"
)

// outcomes from the worst to the best.
var outcomes = []fleet.Outcome{fleet.Fail, fleet.CouldNotTell, fleet.Warn, fleet.Pass, fleet.Skip}

// rank is an outcome's place among outcomes; one that is none of them comes first.
func rank(o fleet.Outcome) int { return slices.Index(outcomes, o) }

// outcomeWords say what people call an outcome.
func outcomeWords(o fleet.Outcome) string {
	switch o {
	case fleet.CouldNotTell:
		return "could not tell"
	case fleet.Skip:
		return "skipped"
	}
	return string(o)
}

// worstFirst orders checks by outcome, then component, then id.
func worstFirst(checks []fleet.Check) []fleet.Check {
	out := slices.Clone(checks)
	slices.SortStableFunc(out, func(a, b fleet.Check) int {
		return cmp.Or(rank(a.Outcome)-rank(b.Outcome), fleet.CompareNatural(a.Component, b.Component), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// family is the kind of the part that a component belongs to: gpu of gpu/3/nvlink/7.
func family(component string) string {
	f, _, _ := strings.Cut(component, "/")
	return f
}

// kind is what a component is itself: nvlink of gpu/3/nvlink/7, gpu of gpu/3, node of node.
func kind(component string) string {
	if s := strings.Split(component, "/"); len(s) >= 2 {
		return s[len(s)-2]
	}
	return component
}

// owner is the part that a component belongs to: gpu/3 of gpu/3/nvlink/7.
func owner(component string) string {
	s := strings.SplitN(component, "/", 3)
	return strings.Join(s[:min(2, len(s))], "/")
}

// called is how words name a component: GPU 3, NVLink 7 of GPU 3.
func called(component string) string {
	s := strings.Split(component, "/")
	switch {
	case len(s) == 4 && s[2] == "peer":
		return called(s[0]+"/"+s[1]) + " to " + called(s[0]+"/"+s[3])
	case len(s) == 4:
		return called(s[2]+"/"+s[3]) + " of " + called(s[0]+"/"+s[1])
	case len(s) != 2:
		return component
	}
	if name, ok := kindNames[s[0]]; ok {
		return name + " " + s[1]
	}
	return s[0] + " " + s[1]
}

var kindNames = map[string]string{"gpu": "GPU", "nvlink": "NVLink", "dimm": "DIMM", "cpu": "CPU", "numa": "NUMA node", "hca": "HCA", "nvswitch": "NVSwitch", "pci": "PCI device", "nic": "NIC", "peer": "GPU pair"}

// part returns the part that a component belongs to, the nearest where several are listed.
func part(r *fleet.BurnReport, component string) (fleet.BurnedPart, bool) {
	for c := component; c != ""; {
		if i := slices.IndexFunc(r.Machine.Parts, func(p fleet.BurnedPart) bool { return p.Component == c }); i >= 0 {
			return r.Machine.Parts[i], true
		}
		cut := strings.LastIndex(c, "/")
		if cut < 0 {
			break
		}
		c = c[:cut]
	}
	return fleet.BurnedPart{}, false
}

// nodeName is what a report's machine is called: its node's name, else its serial number.
func nodeName(r *fleet.BurnReport) string { return cmp.Or(r.Node, r.Machine.Serial, "node") }

// identity is what stays of a machine when its name changes.
func identity(r *fleet.BurnReport) string {
	return cmp.Or(r.Machine.UUID, r.Machine.Serial, r.Node, "node")
}

// number writes a value with at least four significant digits, and counts in full.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "none"
	case v == math.Trunc(v) && a < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 1e15 || a < 1e-3:
		return strconv.FormatFloat(v, 'g', 4, 64)
	case a >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	s := strconv.FormatFloat(v, 'f', max(0, 3-int(math.Floor(math.Log10(math.Abs(v))))), 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// amount is a number with its unit as people write it.
func amount(v float64, unit string) string {
	return strings.TrimSpace(number(v) + " " + unitWord(unit))
}

func unitWord(unit string) string {
	switch unit {
	case "C":
		return "°C"
	case "percent":
		return "%"
	case "us":
		return "µs"
	}
	return unit
}

// measured is a check's value, "" where it is no number.
func measured(c fleet.Check) string {
	if c.Value == nil {
		return ""
	}
	return amount(*c.Value, c.Unit)
}

// limitWords say what a value was held against, with its source.
func limitWords(l *fleet.CheckLimit) string {
	if l == nil {
		return ""
	}
	return bound(l) + " (" + strings.TrimPrefix(l.Against+": "+l.Source, ": ") + ")"
}

// bound is a limit without its source.
func bound(l *fleet.CheckLimit) string {
	word := "at most "
	if l.Least {
		word = "at least "
	}
	return word + amount(l.Value, l.Unit)
}

// advice is what each Do of a check asks for, as a sentence without its object, and how much it costs: the order in which actions are named.
var advice = []struct{ do, words string }{
	{"replace", "replace it"},
	{"reseat", "take it out, look at it and seat it again"},
	{"cable", "look at the cable: seat it again, then exchange it"},
	{"cold-cycle", "switch the machine off, take its power away for a minute, and switch it on"},
	{"reboot", "restart the machine"},
	{"reset", "reset the GPU"},
	{"update", "bring software or firmware to versions that fit"},
	{"configure", "correct the setting"},
	{"retest", "run the burn-in again before anything is exchanged"},
	{"none", "nothing"},
}

func adviceWords(do string) string {
	if i := slices.IndexFunc(advice, func(a struct{ do, words string }) bool { return a.do == do }); i >= 0 {
		return advice[i].words
	}
	return do
}

// action is one thing to do next, and why.
type action struct {
	Do, Words, What string
	Outcome         fleet.Outcome
	// Checks are those that ask for it, worst first.
	Checks []fleet.Check
}

// actions are what checks ask for, one entry for each deed and part, the worst outcome first.
func actions(r *fleet.BurnReport) []action {
	var out []action
	type key struct{ do, what string }
	at := map[key]int{}
	for _, c := range worstFirst(r.Checks) {
		if rank(c.Outcome) >= rank(fleet.Pass) || c.Do == "" || c.Do == "none" {
			continue
		}
		k := key{c.Do, owner(c.Component)}
		if c.Outcome == fleet.CouldNotTell {
			k.what = "" // the platform's, whatever component it kept from being looked at
		}
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, action{Do: c.Do, Words: adviceWords(c.Do), What: k.what, Outcome: c.Outcome})
		}
		out[i].Checks = append(out[i].Checks, c)
		if c.Replace != "" && out[i].What == k.what {
			out[i].What = c.Replace
		}
	}
	// What is exchanged or repaired is burned in again anyhow.
	out = slices.DeleteFunc(out, func(a action) bool {
		return a.Do == "retest" && slices.ContainsFunc(out, func(b action) bool {
			return b.Do != "retest" && owner(b.Checks[0].Component) == owner(a.Checks[0].Component)
		})
	})
	order := func(do string) int {
		return slices.IndexFunc(advice, func(a struct{ do, words string }) bool { return a.do == do })
	}
	slices.SortStableFunc(out, func(a, b action) int { return cmp.Or(rank(a.Outcome)-rank(b.Outcome), order(a.Do)-order(b.Do)) })
	for i := range out {
		if out[i].What == "" {
			out[i].What = "the machine"
		} else if strings.Contains(out[i].What, "/") && !strings.Contains(out[i].What, " ") {
			component := out[i].What
			out[i].What = called(component)
			if p, ok := part(r, component); ok && p.Serial != "" {
				out[i].What += " (serial " + p.Serial + ")"
			}
		}
	}
	return out
}

// engines are what measured, with their versions, in order.
func engines(r *fleet.BurnReport) []string {
	var out []string
	for _, s := range r.Stages {
		for _, run := range s.Ran {
			e := strings.TrimSpace(run.Engine + " " + run.Version)
			if e != "" && !slices.Contains(out, e) {
				out = append(out, e)
			}
		}
	}
	slices.Sort(out)
	return out
}

// plain replaces what no document may hold: bytes that are no UTF-8, and control characters but tab and line feed.
func plain(s string) string {
	bad := func(r rune) bool {
		return r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF || (unicode.IsControl(r) && r != '\t' && r != '\n')
	}
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if bad(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
