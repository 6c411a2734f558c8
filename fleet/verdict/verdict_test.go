package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestWholeMachines: what is as it must be has no difference, with its class and without one, and against itself.
func TestWholeMachines(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			inv := machine(k)
			for what, got := range map[string][]fleet.Difference{"class": Judge(inv, classOf(k)), "no class": Judge(inv, fleet.Class{}), "last": Last(inv, inv),
				"fleet": Fellows(inv, []Fellow{{"a", machine(k)}, {"b", machine(k)}, {"c", machine(k)}})} {
				for _, d := range got {
					t.Errorf("against %s: %+v", what, d)
				}
			}
		})
	}
}

// TestHopperWiring: 144 links lead to 144 different ports, 32, 40, 40 and 32 of the four switches.
func TestHopperWiring(t *testing.T) {
	seen, per := map[end]bool{}, [4]int{}
	for m := range 8 {
		for l := range 18 {
			chip, port, ok := Wired("hgx-hopper", m+1, l)
			if !ok || seen[end{chip, port}] {
				t.Errorf("module %d link %d: switch %d port %d, %v", m+1, l, chip, port, ok)
			}
			seen[end{chip, port}] = true
			per[chip]++
		}
	}
	if d := cmp.Diff([4]int{32, 40, 40, 32}, per); d != "" {
		t.Error(d)
	}
}
