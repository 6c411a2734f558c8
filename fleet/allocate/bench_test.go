package allocate

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// TestBench chooses 128 of 10,000 nodes in 625 racks of 16, beside sorting them by name.
func TestBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
	var all []Candidate
	for i := range 10_000 {
		c := good(fmt.Sprintf("n%05d", (i*7919)%10_000), fmt.Sprintf("r%03d", i/16), i%100)
		if i%3 == 0 {
			c.Holder = "somebody"
		}
		all = append(all, c)
	}
	best := func(do func()) time.Duration {
		out := time.Duration(1 << 62)
		for range 5 {
			began := time.Now()
			do()
			out = min(out, time.Since(began))
		}
		return out
	}
	floor := best(func() {
		x := slices.Clone(all)
		slices.SortFunc(x, func(a, b Candidate) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	})
	var fits, none fleet.Choice
	chosen := best(func() { fits = Choose(all, Request{Count: 128, Class: "h"}, now) })
	refused := best(func() {
		none = Choose(all, Request{Count: 17, Class: "h", Topology: fleet.TopologySameLeaf, Options: true}, now)
	})
	if !fits.Fits || none.Fits {
		t.Fatalf("fits %t, does not fit %t", fits.Fits, !none.Fits)
	}
	fmt.Printf("choosing of 10,000 nodes: 128 in %.1f ms, %.1f times sorting them by name (%.1f ms); saying why 17 in one rack do not fit, and what would, %.1f ms (best of 5)\n",
		ms(chosen), float64(chosen)/float64(floor), ms(floor), ms(refused))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
