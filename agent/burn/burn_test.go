package burn

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// testMachine has an inventory of its own for each reading, and the given stressors.
func testMachine(t *testing.T, stressors map[string]Func) Machine {
	t.Helper()
	reads := 0
	return Machine{
		Files: sysfs.New(t.TempDir()), Stressors: stressors,
		Read: func(context.Context) (fleet.Inventory, error) {
			reads++
			return fleet.Inventory{Version: reads, GPUs: []fleet.GPU{{Index: 0, ModuleID: 3, PCIAddress: "0000:9b:00.0"}}}, nil
		},
	}
}

// long is a stage that only an event ends.
func long(names ...string) fleet.BurnStage {
	return fleet.BurnStage{Name: "test", Stress: names, Seconds: 24 * 3600}
}

func untilEnd(ctx context.Context, _ Load, _ *Sink) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestStage(t *testing.T) {
	wrong := func(_ context.Context, l Load, say *Sink) error {
		say.Ran(fleet.StressRun{Stress: l.Stress, Engine: "builtin", Seconds: 1})
		say.Measured(fleet.Measured{Check: "cpu-mismatches", Component: "core/1", Value: 1})
		say.Measured(fleet.Measured{Check: "cpu-mismatches", Component: "core/1", Value: 2, Details: []string{strings.Repeat("x", 300)}})
		say.Wrong("core/1", "2 results differ")
		return nil
	}
	for situation, c := range map[string]struct {
		stressors map[string]Func
		stage     fleet.BurnStage
		want      fleet.BurnPart
	}{
		"nothing to stress":                  {nil, fleet.BurnStage{Name: "test"}, fleet.BurnPart{}},
		"all stressors have done their work": {map[string]Func{fleet.StressCPU: func(context.Context, Load, *Sink) error { return nil }}, long(fleet.StressCPU), fleet.BurnPart{Planned: 24 * 3600}},
		"wrong data ends the others, too": {map[string]Func{fleet.StressCPU: wrong, fleet.StressMemory: untilEnd}, long(fleet.StressMemory, fleet.StressCPU), fleet.BurnPart{
			Planned: 24 * 3600, Stopped: "wrong data: core/1: 2 results differ", Ran: []fleet.StressRun{{Stress: "cpu", Engine: "builtin", Seconds: 1}},
			Measured: []fleet.Measured{{Check: "cpu-mismatches", Component: "core/1", Value: 2, Unit: "results", Details: []string{strings.Repeat("x", 200)}}},
		}},
		"one that panics takes no other along": {map[string]Func{fleet.StressCPU: func(context.Context, Load, *Sink) error { panic("oops") }, fleet.StressMemory: wrong}, fleet.BurnStage{Name: "test", Stress: []string{"cpu"}, Seconds: 9}, fleet.BurnPart{
			Planned: 9, Untold: []fleet.Untold{{Check: "cpu", Component: "node", Cause: "crashed", Words: "panic: oops"}},
		}},
		"an error is told": {map[string]Func{fleet.StressCPU: func(context.Context, Load, *Sink) error { return errors.New("no such thing") }}, long(fleet.StressCPU), fleet.BurnPart{
			Planned: 24 * 3600, Untold: []fleet.Untold{{Check: "cpu", Component: "node", Cause: "other", Words: "no such thing"}},
		}},
		"nobody can do it": {nil, long(fleet.StressGPUCopy), fleet.BurnPart{
			Planned: 24 * 3600, Untold: []fleet.Untold{{Check: "gpu-copy", Component: "node", Cause: "no-tool", Words: "this agent has nothing that does it"}},
		}},
	} {
		t.Run(situation, func(t *testing.T) {
			part, err := Stage(t.Context(), testMachine(t, c.stressors), c.stage, 2, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			var got fleet.BurnPart
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if got.Before == nil || got.Before.Version != 1 || got.After == nil || got.After.Version != 2 || got.EndedAt.Before(got.BeganAt) || got.Round != 2 || got.Stage != "test" {
				t.Errorf("the part's frame is not whole: %+v", got)
			}
			want := c.want
			want.Version, want.Stage, want.Round, want.BeganAt, want.EndedAt, want.Before, want.After = 1, "test", 2, got.BeganAt, got.EndedAt, got.Before, got.After
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("part (-want +got):\n%s", d)
			}
		})
	}
}

func TestTheEndOfTheTimeEndsTheLoad(t *testing.T) {
	m := testMachine(t, map[string]Func{fleet.StressCPU: untilEnd})
	part, err := Stage(t.Context(), m, fleet.BurnStage{Name: "test", Stress: []string{fleet.StressCPU}, Seconds: 1}, 1, nil)
	if err != nil || part.Stopped != "" || len(part.Untold) > 0 || part.After == nil {
		t.Errorf("%+v, %v", part, err)
	}
}

func TestAbortLeavesStuckStressorsBehind(t *testing.T) {
	ctx, abort := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	m := testMachine(t, map[string]Func{
		fleet.StressMemory: func(_ context.Context, _ Load, say *Sink) error {
			say.Measured(fleet.Measured{Check: "memory-bandwidth", Component: "numa/0", Value: 5})
			abort()
			<-release // as one that waits for a drive that does not answer
			say.Measured(fleet.Measured{Check: "memory-bandwidth", Component: "numa/0", Value: 6})
			return nil
		},
	})
	m.Samplers = []Sampler{{"stuck", func(context.Context) ([]fleet.Sample, error) { <-release; return nil, nil }}}
	m.after = func(what string, _ time.Duration) <-chan time.Time {
		c := make(chan time.Time)
		if what == "settle" || what == "letgo" {
			close(c)
		}
		return c
	}
	part, err := Stage(ctx, m, long(fleet.StressMemory), 1, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if part.Stopped != fleet.StoppedAborted || part.After != nil || part.Before == nil {
		t.Errorf("stopped %q, before %v, after %v", part.Stopped, part.Before, part.After)
	}
	want := []fleet.Untold{
		{Check: "memory", Component: "node", Cause: "hung", Words: "it did not stop when it was told to, and was left behind"},
		{Check: "samples", Component: "node", Cause: "hung", Words: "a reader of samples did not come back, and was left behind"},
	}
	if d := cmp.Diff(want, part.Untold); d != "" {
		t.Errorf("untold (-want +got):\n%s", d)
	}
	if len(part.Measured) != 1 || part.Measured[0].Value != 5 {
		t.Errorf("measured %+v, want what was told before the abort", part.Measured)
	}
}

func TestTheReaderOfTheMachineMayHang(t *testing.T) {
	ctx, abort := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	m := Machine{Files: sysfs.New(t.TempDir()), Read: func(context.Context) (fleet.Inventory, error) { abort(); <-release; return fleet.Inventory{}, nil }}
	if _, err := Stage(ctx, m, long(), 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestKernelLog(t *testing.T) {
	const head = "6,%,1000,-;"
	line := func(n, text string) string { return strings.Replace(head, "%", n, 1) + text + "\n" }
	xid := "NVRM: Xid (PCI:0000:9b:00): 79, pid=0, GPU has fallen off the bus."
	for situation, c := range map[string]struct {
		during  string
		stopped string
		lost    string
		kernel  int
	}{
		"what is fatal ends the load":     {line("8", xid), "kernel log: gpu/3: " + xid, "", 1},
		"lost records are told":           {line("8", "usb 1-1: new device") + line("12", xid), "kernel log: gpu/3: " + xid, "has lost 3 records before they were read", 1},
		"what was there before is not of": {line("8", "EDAC MC0: 1 UE memory read error on A5 (channel:4)"), "kernel log: dimm/A5: EDAC MC0: 1 UE memory read error on A5 (channel:4)", "", 1},
	} {
		t.Run(situation, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "kmsg")
			if err := os.WriteFile(log, []byte(line("7", xid)), 0o644); err != nil {
				t.Fatal(err)
			}
			m := testMachine(t, map[string]Func{fleet.StressCPU: func(ctx context.Context, l Load, say *Sink) error {
				f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
				if err == nil {
					_, err = f.WriteString(c.during)
				}
				if err := errors.Join(err, f.Close()); err != nil {
					return err
				}
				return untilEnd(ctx, l, say)
			}})
			m.Logs = []string{log}
			part, err := Stage(t.Context(), m, long(fleet.StressCPU), 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if part.Stopped != c.stopped || len(part.Kernel) != c.kernel {
				t.Errorf("stopped %q, kernel %+v; want %q and %d findings", part.Stopped, part.Kernel, c.stopped, c.kernel)
			}
			told := ""
			for _, u := range part.Untold {
				told += u.Words
			}
			if (c.lost == "") != (told == "") || !strings.Contains(told, c.lost) {
				t.Errorf("untold %q, want %q", told, c.lost)
			}
		})
	}
}

func TestSeriesDoubleTheirBuckets(t *testing.T) {
	s := &series{length: time.Second}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const hours = 72
	for i := range hours * 3600 {
		if i/3600 == 5 {
			continue // an hour without samples
		}
		s.add(start.Add(time.Duration(i)*time.Second), float64(i%3600))
	}
	out := s.series()
	if len(out.Mean) > maxBuckets || len(out.Mean) < maxBuckets/2-1 || out.Bucket != 512 {
		t.Errorf("%d buckets of %g s", len(out.Mean), out.Bucket)
	}
	gaps, n := 0, 0
	for i := range out.Mean {
		if out.Mean[i] == nil {
			gaps++
			continue
		}
		n += s.buckets[i].n
		if *out.Min[i] > *out.Mean[i] || *out.Mean[i] > *out.Max[i] {
			t.Errorf("bucket %d: %g, %g, %g", i, *out.Min[i], *out.Mean[i], *out.Max[i])
		}
	}
	if gaps != 6 || n != (hours-1)*3600 {
		t.Errorf("%d buckets without samples, %d samples in all", gaps, n)
	}
}

func TestSamplesUnderLoadAreMeasured(t *testing.T) {
	r := newRecorder()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sample := func(after int, watts float64) {
		r.add(start.Add(time.Duration(after)*time.Second), []fleet.Sample{{Name: "power", Component: "gpu/3", Unit: "W", Value: watts}, {Name: "power", Component: "node", Unit: "W", Value: 9999}})
	}
	sample(0, 70)
	r.under(start, []string{fleet.StressGPUTensor})
	sample(1, 300) // not warm yet
	sample(6, 700)
	sample(7, 680)
	r.over()
	sample(8, 100)
	want := []fleet.Measured{{Check: "gpu-power-load", Component: "gpu/3", Value: 690, Unit: "W", N: 2, Min: 680, Max: 700}}
	if d := cmp.Diff(want, r.measured()); d != "" {
		t.Errorf("measured (-want +got):\n%s", d)
	}
	if got := r.series(); len(got) != 2 || len(got[0].Mean) != 9 {
		t.Errorf("series %+v", got)
	}
}
