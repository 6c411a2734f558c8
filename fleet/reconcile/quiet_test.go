package reconcile

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestAtRestMeansRest: what is not read again because its record says that nothing is to do would have rested whatever else is the case.
func TestAtRestMeansRest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	some := func(n int) bool { return rng.IntN(n) == 0 }
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	states := fleet.States()
	rested := map[fleet.State]int{}
	for range 20_000 {
		n := fleet.Node{ID: "n", Name: "n", State: states[rng.IntN(len(states))]}
		if some(4) {
			n.Wish = &fleet.Wish{Verb: fleet.VerbClean}
		}
		if some(4) {
			n.Undo = &fleet.Undo{Power: some(2), Medium: some(2), NotBefore: now.Add(time.Duration(rng.IntN(3)-1) * time.Minute)}
		}
		if some(4) {
			n.Hold = &fleet.Hold{By: "somebody"}
		}
		n.Protected = some(4)
		if some(4) {
			n.Operation = "op"
		}
		if !atRest(&n) {
			continue
		}
		rested[n.State]++
		var lease *fleet.Lease
		if some(2) {
			lease = &fleet.Lease{ID: "l", State: fleet.LeaseActive, GraceEnds: now.Add(time.Duration(rng.IntN(3)-1) * time.Hour),
				Members: []fleet.Member{{Node: "n", State: fleet.MemberReserved}}}
		}
		f := Facts{AgentUp: some(2), AgentSince: now.Add(-time.Hour), Sure: now.Add(-time.Minute)}
		if some(3) {
			f.Frozen = "frozen"
		}
		if got := Decide(n, nil, lease, f, now); !cmp.Equal(got, Move{}) {
			t.Fatalf("%s is at rest, and its next move is %+v", n.State, got)
		}
	}
	if rested[fleet.Active] == 0 || rested[fleet.Available] == 0 || rested[fleet.Cleaning] != 0 || rested[fleet.Grace] != 0 {
		t.Errorf("at rest: %v", rested)
	}
}
