//go:build !ramdisk

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestBenchInspect prints how long reading a machine with eight GPUs takes beside reading all of its files once in one loop.
func TestBenchInspect(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: set METALCTL_BENCH=1")
	}
	used := func() time.Duration {
		var total time.Duration
		for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
			var r syscall.Rusage
			if err := syscall.Getrusage(who, &r); err != nil {
				t.Fatal(err)
			}
			total += time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
		return total
	}
	for _, profile := range []string{"hgx-h200", "hgx-b200"} {
		dir := profileFolder(t, profile)
		var whole, cores, beside, ratio []float64
		files := 0
		for range 11 {
			start, before := time.Now(), used()
			if inv := inspected(t, dir); len(inv.GPUs) != 8 || inv.GPUs[7].Lost != "" || len(inv.HCAs) < 8 {
				t.Fatalf("%d GPUs, %d HCAs, missing %+v", len(inv.GPUs), len(inv.HCAs), inv.Missing)
			}
			took := time.Since(start)
			whole, cores = append(whole, took.Seconds()), append(cores, (used()-before).Seconds())
			files = 0
			start = time.Now()
			err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				files++
				_, err = os.ReadFile(name)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			b := time.Since(start)
			beside, ratio = append(beside, b.Seconds()), append(ratio, took.Seconds()/b.Seconds())
		}
		median := func(list []float64) float64 { return slices.Sorted(slices.Values(list))[len(list)/2] }
		t.Logf("%s: read in %.0f ms, worst %.0f ms, %.0f ms of processor time with the GPUs' children (medians of 11, limit 2000 ms); its %d files in one loop %.0f ms, ratio %.1f",
			profile, 1000*median(whole), 1000*slices.Max(whole), 1000*median(cores), files, 1000*median(beside), median(ratio))
	}
}
