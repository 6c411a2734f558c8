package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// BurnInput is what a burn-in's report is made of.
type BurnInput struct {
	Node      string
	Operation fleet.OperationID
	Program   string
	Parts     []fleet.BurnPart
	Profile   fleet.BurnProfile
	// Class is what the machine must be; its zero value expects nothing.
	Class fleet.Class
	// Finished says that all stages of all rounds have run; otherwise Stopped says why no more will, or is "" while they are still to come.
	Finished bool
	Stopped  string
	// Restarts are the times that the machine went down while a stage ran.
	Restarts []fleet.BurnRestart
	// Earlier are reports of the same node: a fault that a retest or reset should have cured condemns the part when it is seen again.
	Earlier []fleet.BurnReport
	// Fleet is what nodes of the class measured; nil where there is no history.
	Fleet *BurnFleet
	Now   time.Time
}

// BurnIn says what the parts of a burn-in mean. It may be asked after each part: the report grows.
func BurnIn(in BurnInput) fleet.BurnReport {
	b := newBurner(in)
	b.inventories()
	b.counters()
	b.measured()
	b.against()
	b.untold()
	b.restarted()
	b.complete()
	b.explain()
	b.blame()
	return b.report()
}

// family says what a check is about, in the order in which causes come before what follows from them.
type family int

const (
	ofPlatform family = iota
	ofPresence
	ofPower
	ofHeat
	ofPCIe
	ofMemory
	ofLink
	ofPort
	ofDisk
	ofDIMM
	ofDriver
	ofData
	ofClock
	ofRate
	ofUntold
	ofOther
)

// found is a check before it is known what it follows from.
type found struct {
	fleet.Check
	family family
}

// burner gathers checks.
type burner struct {
	in    BurnInput
	parts []fleet.BurnPart
	// first is the machine before the first part, last the newest that was read, with the kernel's words of all parts. Both nil: nobody read it.
	first, last *fleet.Inventory
	names       *names
	kernel      []fleet.KernelFinding
	checks      []found
	sights      []sight // all readings of counters, in their order
	tallies     map[tallyKey]*tally
	burned      []fleet.BurnedPart // the machine's parts, once asked for
}

func newBurner(in BurnInput) *burner {
	b := &burner{in: in, parts: slices.Clone(in.Parts), names: &names{}}
	slices.SortStableFunc(b.parts, func(x, y fleet.BurnPart) int { return x.BeganAt.Compare(y.BeganAt) })
	for i := range b.parts {
		p := &b.parts[i]
		for _, inv := range []*fleet.Inventory{p.Before, p.After} {
			if inv == nil {
				continue
			}
			if b.first == nil {
				b.first = inv
			}
			b.last = inv
		}
		b.kernel = mergeFindings(b.kernel, p.Kernel)
	}
	if b.last != nil {
		inv := *b.last
		inv.KernelFindings = mergeFindings(slices.Clone(inv.KernelFindings), b.kernel)
		b.last, b.names = &inv, nameParts(&inv)
	}
	return b
}

// mergeFindings adds what is said of other components or of another kind; of the same it keeps the higher count, as both lists may tell of one boot.
func mergeFindings(all, more []fleet.KernelFinding) []fleet.KernelFinding {
	for _, k := range more {
		i := slices.IndexFunc(all, func(o fleet.KernelFinding) bool {
			return o.Kind == k.Kind && o.Code == k.Code && o.Component == k.Component && o.Severity == k.Severity && o.Unit == k.Unit && o.SubCode == k.SubCode
		})
		if i < 0 {
			all = append(all, k)
			continue
		}
		o := &all[i]
		if k.Count > o.Count {
			o.Count = k.Count
		}
		if k.Last.After(o.Last) {
			o.Last, o.Line = k.Last, k.Line
		}
	}
	return all
}

func (b *burner) add(f family, c fleet.Check) {
	if c.Do == "" && (c.Outcome == fleet.Fail || c.Outcome == fleet.CouldNotTell) {
		c.Do = "retest"
	}
	b.checks = append(b.checks, found{c, f})
}

// said reports whether a check of the component, or of what is below it, is no pass.
func (b *burner) said(component string) bool {
	return slices.ContainsFunc(b.checks, func(f found) bool {
		return f.Outcome != fleet.Pass && f.Outcome != fleet.Skip && (f.Component == component || strings.HasPrefix(f.Component, component+"/"))
	})
}

// severity orders outcomes for a verdict.
func severity(o fleet.Outcome) int {
	return slices.Index([]fleet.Outcome{fleet.Skip, fleet.Pass, fleet.Warn, fleet.CouldNotTell, fleet.Fail}, o)
}

func (b *burner) report() fleet.BurnReport {
	in := b.in
	r := fleet.BurnReport{Version: fleet.BurnReportVersion, Node: in.Node, Operation: in.Operation, Profile: in.Profile.Name, Class: in.Class.Name, Program: in.Program,
		Finished: in.Finished, Stopped: in.Stopped, Machine: b.machine(), Stages: []fleet.StageRun{}, Restarts: in.Restarts, Checks: []fleet.Check{}, Kernel: b.kernel, Series: mergeSeries(b.parts)}
	for _, p := range b.parts {
		r.Stages = append(r.Stages, fleet.StageRun{Stage: p.Stage, Round: p.Round, BeganAt: p.BeganAt, EndedAt: p.EndedAt, Planned: p.Planned, Stopped: p.Stopped, Ran: p.Ran})
		if r.BeganAt.IsZero() {
			r.BeganAt = p.BeganAt
		}
		if p.EndedAt.After(r.EndedAt) {
			r.EndedAt = p.EndedAt
		}
		r.Fixture = cmp.Or(r.Fixture, p.Fixture)
		r.Profile = cmp.Or(r.Profile, p.Profile)
	}
	if len(b.parts) == 0 {
		r.BeganAt, r.EndedAt = in.Now, in.Now
	}
	for _, f := range b.checks {
		r.Checks = append(r.Checks, f.Check)
	}
	slices.SortStableFunc(r.Checks, func(x, y fleet.Check) int {
		return cmp.Or(severity(y.Outcome)-severity(x.Outcome), fleet.CompareNatural(x.Component, y.Component), strings.Compare(x.ID, y.ID))
	})
	r.Verdict = fleet.Pass
	for _, c := range r.Checks {
		if severity(c.Outcome) > severity(r.Verdict) {
			r.Verdict = c.Outcome
		}
	}
	r.Headline = headline(&r)
	return r
}

// next is what each action asks of a person.
var next = map[string]string{
	"none": "nothing is to be done", "retest": "burn it in again", "reset": "reset it and burn it in again", "reboot": "reboot the node and burn it in again",
	"cold-cycle": "power the node off cold and on again, and burn it in again", "reseat": "reseat it", "cable": "reseat or exchange the cable", "replace": "replace it",
	"update": "update it", "configure": "set it as the class wants",
}

// headline is the worst check in one sentence, with what to do next.
func headline(r *fleet.BurnReport) string {
	worst, others := -1, 0
	for i, c := range r.Checks {
		switch {
		case severity(c.Outcome) <= severity(fleet.Pass):
		case worst < 0:
			worst = i
		case c.Outcome == r.Verdict:
			others++
		}
	}
	took := r.EndedAt.Sub(r.BeganAt).Round(time.Second)
	if worst < 0 {
		n := 0
		for _, c := range r.Checks {
			if c.Outcome == fleet.Pass {
				n++
			}
		}
		return fmt.Sprintf("%s passed in %s, by %s", orUnknown(r.Profile), took, count(n, "check"))
	}
	c := r.Checks[worst]
	do := next[c.Do]
	if c.Replace != "" {
		do = "replace " + c.Replace
	}
	s := c.Words
	if do != "" && c.Do != "none" {
		s += "; next: " + do
	}
	if others > 0 {
		s += fmt.Sprintf(" (and %s more)", count(others, "finding"))
	}
	return s
}
