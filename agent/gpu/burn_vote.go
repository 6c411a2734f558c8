package gpu

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// findings are what a comparison of GPUs' results came to, by component.
type findings struct {
	order []string
	of    map[string]*finding
}

type finding struct {
	words    int64
	launches int64
	details  []string
	// open are tiles of which it is not known who is wrong.
	open []string
}

// asker returns the words that a component's tile had under a digest, or nil.
type asker func(component string, r wordsRequest) []uint64

// compareResults holds what GPUs computed against what most of them computed. Where no more than half agree, or only two differ, nobody is found wrong: who
// is cannot be told. A GPU is always held against itself. ask may be nil; then a wrong tile counts as one word.
func compareResults(reports map[string]*loadReport, ask asker) findings {
	f := findings{order: slices.Sorted(maps.Keys(reports)), of: map[string]*finding{}}
	kernels := map[string]int{} // and how many tiles the largest GPU has
	for _, who := range f.order {
		f.of[who] = &finding{}
		for _, r := range reports[who].Results {
			kernels[r.Kernel] = max(kernels[r.Kernel], len(r.Digests))
			f.of[who].launches += r.Launches
		}
	}
	for _, kernel := range slices.Sorted(maps.Keys(kernels)) {
		for tile := range kernels[kernel] {
			f.compare(kernel, tile, reports, ask)
		}
	}
	return f
}

// outcome is one of a tile's on a GPU.
type outcome struct {
	who    string
	digest uint64
	sms    []int
	count  int64
}

// compare looks at one tile over all GPUs.
func (f *findings) compare(kernel string, tile int, reports map[string]*loadReport, ask asker) {
	var all []outcome
	votes, voters := map[uint64]int{}, 0
	for _, who := range f.order {
		for _, r := range reports[who].Results {
			if r.Kernel != kernel || tile >= len(r.Digests) {
				continue
			}
			first := outcome{who, r.Digests[tile], r.SMs[tile], r.Launches}
			mine := []outcome{}
			for _, o := range r.Odd {
				if o.Tile == tile {
					mine = append(mine, outcome{who, o.Digest, o.SMs, o.Count})
					first.count -= o.Count
				}
			}
			first.count = max(first.count, 0)
			mine = append(mine, first)
			most := slices.MaxFunc(mine, func(a, b outcome) int { return cmp.Compare(a.count, b.count) })
			all = append(all, mine...)
			votes[most.digest]++ // what it computes mostly is its vote
			voters++
		}
	}
	if len(votes) == 0 {
		return
	}
	var truth uint64
	for digest, n := range votes {
		if n > votes[truth] {
			truth = digest
		}
	}
	if 2*votes[truth] <= voters { // voters is 2 or more: of one alone there is one vote
		f.undecided(kernel, tile, all)
		return
	}
	var right []uint64
	for _, o := range all {
		if o.digest == truth || o.count == 0 {
			continue
		}
		if ask != nil && right == nil {
			for _, good := range all {
				if good.digest == truth && right == nil {
					right = ask(good.who, wordsRequest{kernel, tile, truth})
				}
			}
		}
		f.wrong(kernel, tile, o, right, ask)
	}
}

// undecided notes a tile of which nobody knows who is wrong.
func (f *findings) undecided(kernel string, tile int, all []outcome) {
	said := map[string]bool{}
	for _, o := range all {
		if said[o.who] {
			continue
		}
		said[o.who] = true
		at := f.of[o.who]
		at.open = append(at.open, fmt.Sprintf("%s tile %d on SM %s", kernel, tile, join(o.sms)))
	}
}

func join(sms []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(sms), " ", ", "), "[]")
}

// wrong notes an outcome that is not what it has to be.
func (f *findings) wrong(kernel string, tile int, o outcome, right []uint64, ask asker) {
	at := f.of[o.who]
	text := fmt.Sprintf("SM %s, %s tile %d, %d of its launches", join(o.sms), kernel, tile, o.count)
	differ := int64(1)
	if ask != nil && len(right) > 0 {
		if got := ask(o.who, wordsRequest{kernel, tile, o.digest}); len(got) == len(right) {
			n, first := 0, ""
			for i := range 2 * len(right) { // two words of 32 bits in one
				want, have := uint32(right[i/2]>>(32*(i%2))), uint32(got[i/2]>>(32*(i%2)))
				if want == have {
					continue
				}
				if n++; n == 1 {
					first = fmt.Sprintf(", thread %d: expected %#08x, got %#08x, %s", i, want, have, bitsOf(uint64(want^have)))
				}
			}
			differ, text = int64(max(n, 1)), text+fmt.Sprintf(", %d words", n)+first
		}
	}
	at.words += differ * o.count
	if len(at.details) < maxDetails {
		at.details = append(at.details, text)
	}
}

func (f *findings) measured() (all []fleet.Measured) {
	for _, who := range f.order {
		x := f.of[who]
		if len(x.open) > 0 && x.words == 0 {
			continue // untold
		}
		all = append(all, fleet.Measured{Check: "gpu-mismatches", Component: who, Value: float64(x.words), N: x.launches, Details: x.details})
	}
	return all
}

// untold says of which GPUs nobody knows whether they are right.
func (f *findings) untold() (all []fleet.Untold) {
	for _, who := range f.order {
		if x := f.of[who]; len(x.open) > 0 {
			all = append(all, fleet.Untold{Check: "gpu-mismatches", Component: who, Cause: "other",
				Words: fmt.Sprintf("%d tiles differ between the GPUs, and too few agree to say which are right: %s", len(x.open), x.open[0])})
		}
	}
	return all
}

// bitsOf names the bits that differ.
func bitsOf(x uint64) string {
	if n := bits.OnesCount64(x); n != 1 {
		return fmt.Sprintf("%d bits", n)
	}
	return fmt.Sprintf("bit %d", bits.TrailingZeros64(x))
}
