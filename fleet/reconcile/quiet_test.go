package reconcile

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
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

// TestManyNodesAtTheStart: of many nodes that nobody looked at yet, those are left alone whose records are at rest, and no other.
func TestManyNodesAtTheStart(t *testing.T) {
	db, err := store.Open(t.TempDir(), store.Options{Key: make([]byte, store.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	stirs := map[fleet.NodeID]bool{}
	for i := range 4 * many {
		n := fleet.Node{ID: fleet.NodeID(fmt.Sprintf("n%03d", i)), State: fleet.Available, Power: "off"}
		switch i % 16 {
		case 3:
			n.State = fleet.Cleaning
		case 5:
			n.Wish = &fleet.Wish{Verb: fleet.VerbClean}
		case 7:
			n.Undo = &fleet.Undo{Power: true}
		case 9:
			n.Operation = "op"
		case 11:
			n.State = fleet.Grace
		}
		if !atRest(&n) {
			stirs[n.ID] = true
		}
		if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}}}); err != nil {
			t.Fatal(err)
		}
	}
	l := New(&Loop{Store: db})
	l.setWaits("n000", "something that is over")
	stirs["n000"] = true
	all, stirring, err := l.nodes(t.Context())
	got := map[fleet.NodeID]bool{}
	for _, id := range stirring {
		got[id] = true
	}
	if diff := cmp.Diff(got, stirs); diff != "" || err != nil || len(all) != 4*many {
		t.Errorf("%d nodes, %v (-got +want):\n%s", len(all), err, diff)
	}
	if q := l.quiet["n001"]; q.power != "off" || q.rev == 0 {
		t.Errorf("of a node at rest %+v is known", q)
	}
}
