package redfish_test

import (
	"net/http"
	"testing"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish"
)

// TestReadOnce: what enrolment asks of a BMC, it asks once.
func TestReadOnce(t *testing.T) {
	for _, personality := range bmc.Personalities() {
		t.Run(personality, func(t *testing.T) {
			look := func(once bool) map[string]int {
				e := emulate(t, bmc.Config{Personality: personality})
				o := options(e)
				o.ReadOnce = once
				b, err := redfish.Dial(t.Context(), e.URL(), o)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := b.Identity(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Capabilities(t.Context()); err != nil {
					t.Fatal(err)
				}
				if once {
					if err := b.SetPower(t.Context(), redfish.On); fleet.KindOf(err) != fleet.Invalid {
						t.Errorf("one that only looks was let write: %v", err)
					}
				}
				if err := b.Close(t.Context()); err != nil {
					t.Error(err)
				}
				gets := map[string]int{}
				for _, r := range e.RequestLog() {
					if r.Method == http.MethodGet {
						gets[r.Path]++
					}
				}
				return gets
			}
			before, after := 0, 0
			for _, n := range look(false) {
				before += n
			}
			for path, n := range look(true) {
				after += n
				if n > 1 {
					t.Errorf("%d reads of %s", n, path)
				}
			}
			t.Logf("%d reads, %d without repetition", before, after)
		})
	}
}
