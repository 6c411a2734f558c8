package opensm_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
)

// TestStubbornDevice: a tenant's device that keeps its table is never proven, and keeps no other node from leaving.
func TestStubbornDevice(t *testing.T) {
	for name, how := range map[string]wires.Stubborn{"it refuses": wires.Refusing, "it says nothing of it": wires.Deaf} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("long: the subnet manager is given its three seconds")
			}
			t.Parallel()
			r, e := emulated(t)
			ports := r.net.Nodes()
			bad, other, third := string(ports[0]), string(ports[1]), string(ports[2])
			put := func(want map[string]fleet.Carries) fleet.WirePlan {
				t.Helper()
				v, err := r.drivers[0].Observe(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				p, err := r.drivers[0].Plan(v, want)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.drivers[0].Apply(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				return p
			}
			p := put(map[string]fleet.Carries{bad: tenant(1), other: tenant(1), third: tenant(1)})
			if _, err := r.drivers[0].Verify(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			e.SetStubborn(fleet.GUID(bad), how)

			p = put(map[string]fleet.Carries{bad: fleet.InPartitions()})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := r.drivers[0].Verify(ctx, p); fleet.KindOf(err) != fleet.Timeout {
				t.Errorf("a device that keeps its table is called proven: %v", err)
			}
			settled := func(when string) {
				t.Helper()
				if _, err := os.Stat(r.path + ".next"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s the change is not settled: %v", when, err)
				}
			}
			settled("when its time was over")

			p = put(map[string]fleet.Carries{other: fleet.InPartitions()})
			if _, err := r.drivers[1].Verify(t.Context(), p); err != nil {
				t.Errorf("another node cannot leave: %v", err)
			}

			put(map[string]fleet.Carries{third: fleet.InPartitions()}) // and its process dies
			for range 3 {
				if _, _, err := r.drivers[1].Guard(t.Context()); err != nil {
					t.Fatalf("the guard cannot read the fabric: %v", err)
				}
			}
			settled("after the guard")
			v, err := r.drivers[1].Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c := v.Port(bad).Carries; c.Equal(fleet.InPartitions()) || v.Stops() == nil {
				t.Errorf("the device shows %s and nothing stops", c)
			}
			if c := v.Port(third).Carries; !c.Equal(fleet.InPartitions()) {
				t.Errorf("the third node shows %s", c)
			}
		})
	}
}
