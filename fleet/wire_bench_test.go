package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

// TestBench plans and takes back a move of 10,000 ports of one switch, beside writing down what the switch says.
func TestBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
	const ports = 10_000
	s := Switch{Name: "leaf", First: 100, Last: 199, Quarantine: 4000}
	v, want := WireView{Device: s.Name}, map[string]Carries{}
	for i := range ports {
		p := fmt.Sprintf("swp%05d", i)
		s.Managed = append(s.Managed, p)
		v.Ports = append(v.Ports, PortView{Port: p, Carries: s.InQuarantine()})
		want[p] = Carries{Untagged: VLAN(100 + i%100)}
	}
	var plan WirePlan
	took := func(do func() error) time.Duration {
		best := time.Duration(1 << 62)
		for range 5 {
			began := time.Now()
			if err := do(); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	floor := took(func() error { _, err := json.Marshal(v.Ports); return err })
	mark := took(func() (err error) { v.Mark, err = s.MarkOf(v.Ports); return err })
	planned := took(func() (err error) { plan, err = s.Plan(v, want); return err })
	if len(plan.Changes) != ports {
		t.Fatalf("%d changes", len(plan.Changes))
	}
	back := took(func() error { _, err := s.Back(v, plan); return err })
	fmt.Printf("10,000 ports of one switch: mark %.1f ms, plan %.1f ms, the way back %.1f ms (best of 5): %.1f times the JSON of what it says (%.1f ms)\n",
		ms(mark), ms(planned), ms(back), float64(mark+planned+back)/float64(floor), ms(floor))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
