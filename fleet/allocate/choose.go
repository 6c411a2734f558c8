// Package allocate chooses the nodes of a lease and explains its choice, or says which constraint binds.
package allocate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Request is what is asked for.
type Request struct {
	Count    int
	Class    string
	Topology fleet.Topology
	Selector []fleet.Requirement
	// Beside are where the lease's other nodes are, which the chosen ones must be near.
	Beside []Place
	// Options: whoever asks can ask for something else, so that relaxations name options.
	Options bool
}

// Candidate is a node with all that decides whether it can be handed out now.
type Candidate struct {
	Node  *fleet.Node
	Facts fleet.Facts
	Place Place
	// Holder is the lease that has claimed it; Busy is set where a plan runs on it or is wished for.
	Holder fleet.LeaseID
	Busy   bool
	// Frozen, Class and Wires say why it cannot be handed out, "" where it can: by whom it is frozen, how it differs from its class, why its ports cannot move.
	Frozen, Class, Wires string
	// Free is when it is expected to be available, zero where nobody knows, and After what it waits for.
	Free  time.Time
	After string
}

// Choose is pure: the same candidates in any order get the same answer.
func Choose(all []Candidate, r Request, now time.Time) fleet.Choice {
	if r.Topology == "" {
		r.Topology = fleet.TopologyAny
	}
	of := make([]*Candidate, 0, len(all))
	for i := range all {
		if all[i].Node.Class == r.Class {
			of = append(of, &all[i])
		}
	}
	slices.SortFunc(of, func(a, b *Candidate) int { return cmp.Compare(a.Node.Name, b.Node.Name) })
	out := fleet.Choice{Count: r.Count, Class: r.Class, Considered: len(of)}
	free, fell := sift(of, r, nil)
	out.Free = len(free)
	picked, near := choose(free, r)
	if picked != nil {
		out.Fits, out.Chosen = true, explain(picked, free)
	} else {
		far := map[*Candidate]bool{}
		for _, c := range near {
			far[c] = true
		}
		for _, c := range free {
			if !far[c] {
				fell[fleet.FellTopology] = append(fell[fleet.FellTopology], c)
			}
		}
		out.Relaxations = relax(of, r, len(near), now)
	}
	out.Fell = falls(fell, r)
	return out
}

// sift parts the nodes that can be handed out from the others. lifted is taken as met by those that it holds of.
func sift(of []*Candidate, r Request, lifted func(*Candidate, fleet.FallReason) bool) (free []*Candidate, fell map[fleet.FallReason][]*Candidate) {
	fell = map[fleet.FallReason][]*Candidate{}
	for _, c := range of {
		if why := c.falls(r, lifted); why != "" {
			fell[why] = append(fell[why], c)
		} else {
			free = append(free, c)
		}
	}
	return free, fell
}

// reasons are all of them in the order in which they are asked.
var reasons = []fleet.FallReason{fleet.FellState, fleet.FellFault, fleet.FellHold, fleet.FellFrozen, fleet.FellProtected, fleet.FellDirty, fleet.FellErased, fleet.FellClass, fleet.FellBurnIn,
	fleet.FellIsolation, fleet.FellWires, fleet.FellTopology, fleet.FellLabels}

func (c *Candidate) has(why fleet.FallReason, r Request) bool {
	f := c.Facts
	switch why {
	case fleet.FellState:
		return c.Node.State != fleet.Available || c.Holder != "" || c.Busy
	case fleet.FellFault:
		return f.Blocked
	case fleet.FellHold:
		return f.Held
	case fleet.FellFrozen:
		return c.Frozen != ""
	case fleet.FellProtected:
		return f.Protected
	case fleet.FellDirty:
		return f.Dirty != ""
	case fleet.FellErased:
		return !f.Fresh
	case fleet.FellClass:
		return !f.ClassMatches
	case fleet.FellBurnIn:
		return f.BurnInDue
	case fleet.FellIsolation:
		return !f.Isolated && !f.IsolationWaived
	case fleet.FellWires:
		return c.Wires != ""
	case fleet.FellTopology:
		return !c.Place.near(r)
	case fleet.FellLabels:
		return !fleet.Selects(r.Selector, c.Node.Labels)
	}
	return false
}

// falls is the first thing that forbids the node, or "".
func (c *Candidate) falls(r Request, lifted func(*Candidate, fleet.FallReason) bool) fleet.FallReason {
	for _, why := range reasons {
		if c.has(why, r) && (lifted == nil || !lifted(c, why)) {
			return why
		}
	}
	return ""
}

// falls are the counts, each with the words for it.
func falls(fell map[fleet.FallReason][]*Candidate, r Request) []fleet.Fall {
	var out []fleet.Fall
	for _, why := range reasons {
		cs := fell[why]
		if len(cs) == 0 {
			continue
		}
		slices.SortFunc(cs, func(a, b *Candidate) int { return cmp.Compare(a.Node.Name, b.Node.Name) })
		f := fleet.Fall{Reason: why, Count: len(cs), Text: words(why, cs, r)}
		for _, c := range cs[:min(8, len(cs))] {
			f.Nodes = append(f.Nodes, c.Node.Name)
		}
		out = append(out, f)
	}
	return out
}

func words(why fleet.FallReason, cs []*Candidate, r Request) string {
	n := len(cs)
	is, has, does := "is", "has", "does"
	if n > 1 {
		is, has, does = "are", "have", "do"
	}
	switch why {
	case fleet.FellState:
		return fmt.Sprintf("%d %s not available (%s)", n, is, states(cs))
	case fleet.FellFault:
		return fmt.Sprintf("%d %s a fault that forbids it", n, has)
	case fleet.FellHold:
		return fmt.Sprintf("%d %s held", n, is)
	case fleet.FellFrozen:
		return fmt.Sprintf("%d %s frozen", n, is)
	case fleet.FellProtected:
		return fmt.Sprintf("%d %s protected", n, is)
	case fleet.FellDirty:
		return fmt.Sprintf("%d %s not clean", n, is)
	case fleet.FellErased:
		return fmt.Sprintf("%d %s not erased as the class wants now", n, is)
	case fleet.FellClass:
		return fmt.Sprintf("%d %s not match the class: %s", n, does, cs[0].Class)
	case fleet.FellBurnIn:
		return fmt.Sprintf("%d %s a burn-in due", n, has)
	case fleet.FellIsolation:
		return fmt.Sprintf("%d %s not proven to be isolated", n, is)
	case fleet.FellWires:
		return fmt.Sprintf("%d %s ports that cannot be given to the lease: %s", n, has, cs[0].Wires)
	case fleet.FellTopology:
		if len(r.Beside) > 0 {
			return fmt.Sprintf("%d %s not %s with the lease's other nodes, or too few", n, is, r.Topology)
		}
		return fmt.Sprintf("%d %s not %s with enough others", n, is, r.Topology)
	}
	return fmt.Sprintf("%d %s not have the labels that are asked for", n, does)
}

// states says how many are where, the most first.
func states(cs []*Candidate) string {
	count := map[string]int{}
	for _, c := range cs {
		at := string(c.Node.State)
		if c.Node.State == fleet.Available {
			at = "about to be something else"
			if c.Holder != "" {
				at = "claimed by a lease"
			}
		}
		count[at]++
	}
	return tally(count)
}

func tally(count map[string]int) string {
	var names []string
	for k := range count {
		names = append(names, k)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	for i, k := range names {
		names[i] = fmt.Sprintf("%d %s", count[k], k)
	}
	return strings.Join(names, ", ")
}
