package opensm_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
)

// TestRepartitionBench moves every port of 2,048 HCAs to another tenant at once, on a real OpenSM, and reads all tables back.
func TestRepartitionBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: 2,048 HCAs; METALCTL_BENCH=1 runs it")
	}
	net := wires.Net{Hosts: 256, HCAs: 8, PerLeaf: 32, Spines: 16}
	r := startReal(t, net, "")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	began := time.Now()
	took := func(what string) {
		t.Logf("%-42s %8.3f s", what, time.Since(began).Seconds())
		began = time.Now()
	}
	r.adopt(t, ctx)
	took("take over")
	for round := range 3 {
		want := map[string]fleet.Carries{}
		for h := 1; h < net.Hosts; h++ {
			for i := range net.HCAs {
				want[string(net.GUID(h, i))] = tenant(1 + (h+round)%32)
			}
		}
		began = time.Now()
		v, err := r.drivers[0].Observe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		took("observe: walk and read all tables")
		p, err := r.drivers[0].Plan(v, want)
		if err != nil {
			t.Fatal(err)
		}
		took("plan")
		whole := time.Now()
		if err := r.drivers[0].Apply(ctx, p); err != nil {
			t.Fatal(err)
		}
		took("apply: look again, write, signal")
		if _, err := r.drivers[0].Verify(ctx, p); err != nil {
			t.Fatal(err)
		}
		took("verify: until two readings agree")
		t.Logf("%d ports re-partitioned and read back: %.3f s", len(p.Changes), time.Since(whole).Seconds())
	}
}
