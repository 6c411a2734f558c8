package herd

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/herd"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// TestBenchCycles prints how many nodes a second go through a whole tenancy when 200 do so at once and the hardware takes no time: from available through a
// lease and its deployment to a system that runs, released, isolated, booted again, erased, verified, and available. Everything goes over the wire: Redfish
// with a TLS connection per request, agents that register with keys of their own, every step journalled before and after with an fsync.
func TestBenchCycles(t *testing.T) {
	needBench(t)
	nodes, seconds := setting("METALCTL_BENCH_CYCLERS", 200), setting("METALCTL_BENCH_CYCLE_SECONDS", 60)
	f := newFarm(t, nodes, herd.Options{}, "log_level: warn\n")
	f.iso = f.medium(f.kernel())
	f.start()
	f.found()
	all := f.herd.Machines()
	f.enrol(all)
	f.ready(all)
	f.recount()
	before := f.usage()
	over := before.at.Add(time.Duration(seconds) * time.Second)
	active := map[string]bool{}
	cycles := 0
	for time.Now().Before(over) {
		var wg sync.WaitGroup
		for name, n := range f.nodes() {
			switch {
			case len(n.Faults) > 0:
				t.Fatalf("%s: %+v", name, n.Faults)
			case n.State == fleet.Available:
				if active[name] {
					delete(active, name)
					cycles++
				}
				wg.Go(func() {
					_, err := f.client.CreateLease(t.Context(), api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{name}, Image: "small", Ready: fleet.ReadyOS}}, "")
					if err != nil && fleet.KindOf(err) != fleet.Conflict {
						t.Error(err)
					}
				})
			case n.State == fleet.Active:
				active[name] = true
				wg.Go(func() {
					if _, err := f.client.ReleaseLease(t.Context(), string(n.Lease)); err != nil && fleet.KindOf(err) != fleet.Conflict {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		pause(t.Context(), 250*time.Millisecond)
	}
	after := f.usage()
	wall, cpu := after.at.Sub(before.at).Seconds(), (after.cpu - before.cpu).Seconds()
	if cycles == 0 {
		t.Fatalf("no cycle within %.0f s", wall)
	}
	fmt.Printf("cycles, %d nodes at once, over the wire: %.1f a second beside the herd on the same cores (Ironic %.1f with its fake hardware: %.1f times as many)\n", nodes,
		float64(cycles)/wall, ironicCycles, float64(cycles)/wall/ironicCycles)
	fmt.Printf("cycles, %d nodes at once, over the wire: %.0f ms of the server's CPU a cycle, so %.1f a second and core; %.1f Redfish requests a cycle, %d KiB to the disk\n", nodes,
		1000*cpu/float64(cycles), float64(cycles)/cpu, float64(f.total())/float64(cycles), (after.written-before.written)>>10/int64(cycles))
	wrongs(t, all)
}
