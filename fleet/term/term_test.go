package term

import (
	"fmt"
	"testing"
	"time"
)

const span = 15 * time.Minute

// TestNeverBothAct is the invariant: whatever breaks, two servers never have the right to act at one time, a takeover by itself loses no more than Late of what was
// acknowledged, and when all is well again one acts.
func TestNeverBothAct(t *testing.T) {
	seeds, takeovers := 200, 0
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		s := simulate(uint64(seed), "", span)
		if s.found != "" {
			t.Fatalf("seed %d: %s", seed, s.found)
		}
		takeovers += s.takeovers
	}
	t.Logf("%d seeds, %d takeovers", seeds, takeovers)
	if takeovers < seeds {
		t.Errorf("only %d takeovers in %d seeds: the search does not search", takeovers, seeds)
	}
}

// TestPlantedBugsAreFound takes one thing away at a time, and wants the search to see it.
func TestPlantedBugsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("long: searches for nineteen mistakes")
	}
	// Some are rare: the search for them begins near where they were found before.
	near := map[string]uint64{"no wait after the arbiter's restart": 285, "a claim holds in spite of a promise": 235}
	for _, bug := range []string{
		"a clock that somebody sets",
		"a clock that stands still in a sleep",
		"no wait after the arbiter's restart",
		"marks are not compared",
		"granted to one that is behind",
		"granted to anybody",
		"granted before the term is over",
		"answered before it is kept",
		"a server that was followed acts when it begins",
		"a standby that begins has promised nothing",
		"acknowledged though nobody else has it",
		"the term is taken back without a promise",
		"the term counts from its answer",
		"no margin",
		"a promise to an earlier process counts",
		"a promise counts from when it comes",
		"claimed in spite of a promise",
		"a claim holds in spite of a promise",
		"forgotten before the arbiter knows",
	} {
		t.Run(bug, func(t *testing.T) {
			for i := range uint64(2000) {
				seed := near[bug] + i
				if s := simulate(seed, bug, span); s.found != "" {
					t.Logf("seed %d: %.80s", seed, s.found)
					return
				}
			}
			t.Error("was not found")
		})
	}
}

func ExampleArbiter() {
	a := NewArbiter(State{ID: "x"}, "boot", 0)
	_, r := a.Judge(time.Second, Request{Kind: Renew, Server: "mc1", Mark: "boot/0"})
	fmt.Println(r.Why, r.WaitMS)
	// Output: early 9000
}
