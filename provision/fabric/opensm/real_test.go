package opensm_test

import (
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
)

func TestContractReal(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real OpenSM on a simulated fabric for each case")
	}
	contract.Wires(t, func(t *testing.T) *contract.WireWorld {
		r := startReal(t, small(), "")
		r.adopt(t, t.Context())
		return r.world(func(t *testing.T, port string, c fleet.Carries) {
			if err := r.sim.SetTable(t.Context(), fleet.GUID(port), c); err != nil {
				t.Fatal(err)
			}
		})
	})
}
