package burn

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/kmsg"
	"github.com/metalctl/metalctl/agent/rdma"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fixtures/profiles"
	"github.com/metalctl/metalctl/fleet"
)

// TestBenchSampling prints what a second of watching costs on an HGX H200's tree of attributes, with as many values of GPUs as their sampler tells: METALCTL_BENCH=1
// go test -run TestBenchSampling -v ./agent/burn. The children that ask GPUs are processes of their own, and not in it.
func TestBenchSampling(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") != "1" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
	m, err := profiles.Load("hgx-h200")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := m.Materialise(dir); err != nil {
		t.Fatal(err)
	}
	inv, err := inspect.Read(t.Context(), inspect.Options{Root: dir, HCAs: rdma.Read})
	if err != nil {
		t.Fatal(err)
	}
	meters := newMeters(sysfs.New(dir), &inv)
	log, err := kmsg.Open(kmsg.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	follower, values := &follower{log: log}, newRecorder()
	const seconds, gpus, names = 500, 8, 16
	var gpuSamples []fleet.Sample
	for g := range gpus {
		for n := range names {
			gpuSamples = append(gpuSamples, fleet.Sample{Name: string(rune('a' + n)), Component: "gpu/" + string(rune('0'+g)), Value: float64(n)})
		}
	}
	start, read := time.Now(), 0
	before := cpuTime(t)
	for i := range seconds {
		got, err := meters.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		read = len(got)
		at := start.Add(time.Duration(i) * time.Second)
		values.add(at, got)
		values.add(at, gpuSamples)
		follower.look(t.Context())
	}
	took := cpuTime(t) - before
	share := 100 * took.Seconds() / seconds
	t.Logf("a second of watching %d attributes (%d of them told) and %d values of GPUs costs %s of one core: %.2f %%", len(meters.all), read, len(gpuSamples), (took / seconds).Round(time.Microsecond), share)
	if share >= 1 {
		t.Errorf("watching costs %.2f %% of one core, at most 1 %% is promised", share)
	}
}

// cpuTime is what this process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
