package gpu

import (
	"os"
	"slices"
	"testing"
	"time"
)

// TestBench prints how long eight GPUs take, from the start of the first child to the last answer.
func TestBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: set METALCTL_BENCH=1")
	}
	for _, device := range []string{"10de:2335", "10de:2901"} {
		opts, pci := board(t, device, "595.91.07", "")
		var whole []time.Duration
		for range 11 {
			start := time.Now()
			if r := Read(t.Context(), opts, pci); len(r.GPUs) != 8 || r.GPUs[7].Lost != "" || len(r.GPUs[7].P2P) != 7 {
				t.Fatalf("%+v", r)
			}
			whole = append(whole, time.Since(start))
		}
		slices.Sort(whole)
		t.Logf("%s: eight GPUs with NVLinks and P2P in %d ms (median of 11; worst %d ms), limit 2000 ms", device, whole[5].Milliseconds(), whole[10].Milliseconds())
	}
}
