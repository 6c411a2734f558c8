package allocate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// choose picks as many of the free nodes as are asked for, or nil. near are those that it chose from: the most that are near enough to each other where they
// are too few.
func choose(free []*Candidate, r Request) (picked, near []*Candidate) {
	groups := map[string][]*Candidate{}
	for _, c := range free {
		groups[c.Place.of(r.Topology)] = append(groups[c.Place.of(r.Topology)], c)
	}
	best := ""
	for name, g := range groups {
		if was := groups[best]; was == nil || better(name, len(g), best, len(was), r.Count) {
			best = name
		}
	}
	if near = groups[best]; len(near) < r.Count {
		return nil, near
	}
	used := map[string]bool{}
	for _, p := range r.Beside {
		used[p.Leaf] = true
	}
	return pack(near, r.Count, used), near
}

// better reports whether the group a is to be preferred: one that suffices, and of those the smallest, so that large ones stay whole; else the largest.
func better(a string, hasA int, b string, hasB, count int) bool {
	switch enoughA, enoughB := hasA >= count, hasB >= count; {
	case enoughA != enoughB:
		return enoughA
	case hasA != hasB:
		return (hasA < hasB) == enoughA
	}
	return a < b
}

// pack takes the fewest leaves that suffice: a leaf that is used already or the smallest that has what is left, else the largest whole.
func pack(free []*Candidate, count int, used map[string]bool) []*Candidate {
	leaves := map[string][]*Candidate{}
	for _, c := range free {
		leaves[c.Place.Leaf] = append(leaves[c.Place.Leaf], c)
	}
	var out []*Candidate
	for len(out) < count {
		left, best, any := count-len(out), "", false
		for name, g := range leaves {
			if !any || prefer(name, len(g), used[name], best, len(leaves[best]), used[best], left) {
				best, any = name, true
			}
		}
		g := leaves[best]
		delete(leaves, best)
		slices.SortFunc(g, func(a, b *Candidate) int {
			return cmp.Or(a.Node.StateSince.Compare(b.Node.StateSince), cmp.Compare(a.Node.Name, b.Node.Name), cmp.Compare(a.Node.ID, b.Node.ID))
		})
		out = append(out, g[:min(left, len(g))]...)
	}
	return out
}

// prefer is better for leaves: of those that suffice, one that the lease uses already comes first, and one that nobody knows last.
func prefer(a string, hasA int, usedA bool, b string, hasB int, usedB bool, left int) bool {
	if hasA >= left && hasB >= left {
		if usedA != usedB {
			return usedA
		}
		if (a == "") != (b == "") {
			return b == ""
		}
	}
	return better(a, hasA, b, hasB, left)
}

// explain says for each picked node why it is that one.
func explain(picked, free []*Candidate) []fleet.Pick {
	have, taken := map[string]int{}, map[string]int{}
	for _, c := range free {
		have[c.Place.Leaf]++
	}
	for _, c := range picked {
		taken[c.Place.Leaf]++
	}
	out := make([]fleet.Pick, len(picked))
	for i, c := range picked {
		at := c.Place.Leaf
		out[i] = fleet.Pick{Node: c.Node.ID, Name: c.Node.Name,
			Why: fmt.Sprintf("%s (%d of %d free there), available since %s", c.Place, taken[at], have[at], c.Node.StateSince.UTC().Format(time.RFC3339))}
	}
	return out
}
