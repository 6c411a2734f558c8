package allocate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// relax lists what would make the request fit, the smallest change first: what is asked of the nodes, then their time, then what a person can do about them,
// then fewer nodes. near is how many could be had now.
func relax(of []*Candidate, r Request, near int, now time.Time) []fleet.Relaxation {
	var out []fleet.Relaxation
	add := func(command, format string, args ...any) {
		out = append(out, fleet.Relaxation{Text: fmt.Sprintf(format, args...), Command: command})
	}
	if r.Options {
		out = options(of, r)
	}
	if waits := least(of, r, fleet.FellState, func(c *Candidate) bool { return c.Free.After(now) }); len(waits) > 0 {
		add("", "%d more when %s", len(waits), ends(waits))
	}
	for _, f := range fixes {
		if cs := least(of, r, f.reason, nil); len(cs) > 0 {
			add(strings.ReplaceAll(f.command, "NODE", names(cs[:min(4, len(cs))], " ")), "%d more if %s", len(cs), strings.ReplaceAll(f.text, "NODE", names(cs, ", ")))
		}
	}
	if near > 0 && r.Options {
		add("", "with --count %d", near)
	}
	return out
}

// options are what could be asked for instead.
func options(of []*Candidate, r Request) []fleet.Relaxation {
	var out []fleet.Relaxation
	add := func(format string, args ...any) {
		out = append(out, fleet.Relaxation{Text: fmt.Sprintf(format, args...)})
	}
	fits := func(r Request) (int, bool) {
		free, _ := sift(of, r, nil)
		picked, near := choose(free, r)
		return len(near), picked != nil
	}
	wider := r
	for _, t := range fleet.Topologies[slices.Index(fleet.Topologies, r.Topology)+1:] {
		wider.Topology = t
		if n, ok := fits(wider); ok {
			add("with --topology %s %d would do", t, n)
			break
		}
	}
	if len(r.Selector) > 0 {
		open := r
		open.Selector, wider.Selector = nil, nil
		if n, ok := fits(open); ok {
			add("without the label selector %d would do", n)
		} else if n, ok := fits(wider); ok && len(out) == 0 {
			add("with --topology %s and without the label selector %d would do", wider.Topology, n)
		}
	}
	return out
}

// fixes are what a person can do about nodes that could be handed out otherwise.
var fixes = []struct {
	reason        fleet.FallReason
	text, command string
}{
	{fleet.FellHold, "nobody held NODE", "metalctl node unhold NODE"},
	{fleet.FellFrozen, "NODE were not frozen", "metalctl freeze status"},
	{fleet.FellProtected, "NODE were not protected", "metalctl node unprotect NODE"},
	{fleet.FellErased, "NODE were cleaned again", "metalctl node clean NODE"},
	{fleet.FellBurnIn, "NODE were burned in", "metalctl node burn NODE"},
	{fleet.FellClass, "NODE matched the class", "metalctl node inspect NODE"},
	{fleet.FellFault, "NODE had no fault", "metalctl node list"},
	{fleet.FellIsolation, "NODE were proven to be isolated", "metalctl network verify"},
	{fleet.FellWires, "the ports of NODE could be trusted", "metalctl fabric list"},
}

// least are the fewest nodes, those that are free soonest first, with which the request fits where that one reason no longer forbids them; nil where it does not fit
// with all of them. only, where not nil, says which of them count.
func least(of []*Candidate, r Request, why fleet.FallReason, only func(*Candidate) bool) []*Candidate {
	var may []*Candidate
	for _, c := range of {
		if c.has(why, r) && (only == nil || only(c)) && c.after(why, r) {
			may = append(may, c)
		}
	}
	slices.SortStableFunc(may, func(a, b *Candidate) int {
		return cmp.Or(a.Free.Compare(b.Free), cmp.Compare(a.Node.Name, b.Node.Name))
	})
	free, _ := sift(of, r, nil)
	// How many are where is all that counts, so that a prefix is found by counting.
	at := map[string]int{}
	for _, c := range free {
		at[c.Place.of(r.Topology)]++
	}
	for i, c := range may {
		place := c.Place.of(r.Topology)
		if at[place]++; at[place] < r.Count {
			continue
		}
		return slices.DeleteFunc(slices.Clone(may[:i+1]), func(x *Candidate) bool { return x.Place.of(r.Topology) != place })
	}
	return nil
}

// after reports whether nothing forbids the node when that reason no longer does. A node that works for somebody now is cleaned and burned in before it is
// available again, which settles what else its record says of it.
func (c *Candidate) after(why fleet.FallReason, r Request) bool {
	return c.falls(r, func(_ *Candidate, x fleet.FallReason) bool {
		settled := x == fleet.FellDirty || x == fleet.FellErased || x == fleet.FellBurnIn || x == fleet.FellIsolation
		return x == why || why == fleet.FellState && settled
	}) == ""
}

// ends says what nodes wait for and until when, such as "the burn-ins of n4 and n9 end at 14:00".
func ends(cs []*Candidate) string {
	var parts []string
	for len(cs) > 0 {
		after, last := cs[0].After, cs[0].Free
		same := slices.DeleteFunc(slices.Clone(cs), func(c *Candidate) bool { return c.After != after })
		cs = slices.DeleteFunc(slices.Clone(cs), func(c *Candidate) bool { return c.After == after })
		for _, c := range same {
			if c.Free.After(last) {
				last = c.Free
			}
		}
		parts = append(parts, fmt.Sprintf("%s of %s ends, at %s", after, names(same, ", "), last.UTC().Format(time.RFC3339)))
	}
	return strings.Join(parts, ", and ")
}

func names(cs []*Candidate, between string) string {
	const most = 4
	var out []string
	for _, c := range cs[:min(most, len(cs))] {
		out = append(out, c.Node.Name)
	}
	if len(cs) > most {
		out = append(out, fmt.Sprintf("%d more", len(cs)-most))
	}
	return strings.Join(out, between)
}
