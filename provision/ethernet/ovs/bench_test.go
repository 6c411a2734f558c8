package ovs_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// TestBench moves 64 ports of a real Open vSwitch to other VLANs in one change that is read back, beside one call of ovs-vsctl for each, which reads nothing back.
func TestBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
	const ports = 64
	r := start(t)
	var names []string
	for i := range ports {
		names = append(names, fmt.Sprintf("p%d", i))
	}
	r.plug(t, fmt.Sprintf("tag=%d", quarantine), names...)
	r.manage(t, names...)
	all := func(n int) map[string]fleet.Carries {
		want := map[string]fleet.Carries{}
		for i, p := range names {
			want[p] = tenant((n + i) % 100)
		}
		return want
	}
	r.move(t, all(0))
	var ours, theirs time.Duration
	for round := 1; round <= 3; round++ {
		began := time.Now()
		r.move(t, all(round))
		ours += time.Since(began)
		began = time.Now()
		for i, p := range names {
			r.vsctl(t, fmt.Sprintf("set port %s tag=%d", p, 100+(round+i+50)%100))
		}
		theirs += time.Since(began)
	}
	fmt.Printf("64 ports of a real Open vSwitch to other VLANs, means of 3 rounds: %.0f ms in one change, read before it and twice after; %.0f ms by 64 calls of ovs-vsctl, not read back: %.1f times as long\n",
		float64(ours.Milliseconds())/3, float64(theirs.Milliseconds())/3, theirs.Seconds()/ours.Seconds())
}
