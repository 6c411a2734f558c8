//go:build !ramdisk

package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func TestRateText(t *testing.T) {
	for name, c := range map[string]struct {
		done, total int64
		took        time.Duration
		want        string
	}{
		"parts":                      {6, 8, 10 * time.Second, "6 of 8"},
		"the largest count":          {1, 65535, time.Minute, "1 of 65535"},
		"bytes before a second":      {1 << 20, 1 << 30, 900 * time.Millisecond, "1.05 MB of 1.07 GB"},
		"bytes":                      {500_000_000, 2_000_000_000, 10 * time.Second, "500 MB of 2 GB, 50 MB/s, 30s left"},
		"no estimate in 5 seconds":   {400_000_000, 2_000_000_000, 4999 * time.Millisecond, "400 MB of 2 GB, 80 MB/s"},
		"an estimate from then on":   {400_000_000, 2_000_000_000, 5 * time.Second, "400 MB of 2 GB, 80 MB/s, 20s left"},
		"the first bytes":            {65_000, 15_000_000_000, time.Minute, "65 kB of 15 GB, 1.08 kB/s"},
		"a hundredth":                {150_000_000, 15_000_000_000, 10 * time.Second, "150 MB of 15 GB, 15 MB/s, 16m30s left"},
		"little of very much":        {2_000_000_000, 20_000_000_000_000, 10 * time.Second, "2 GB of 20 TB, 200 MB/s, 27h46m30s left"},
		"the last bytes":             {1_999_999_999, 2_000_000_000, 10 * time.Second, "2 GB of 2 GB, 200 MB/s"},
		"no total":                   {5, 0, time.Second, ""},
		"nothing done":               {0, 1 << 30, time.Second, ""},
		"less than nothing was said": {-5, 8, time.Second, ""},
	} {
		if got := rateText(c.done, c.total, c.took); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestFollowPiped: without a terminal there is a line for each change of step or stage, and one each 15 seconds besides.
func TestFollowPiped(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	now := start
	var out bytes.Buffer
	f := newDrawer(&out)
	f.now = func() time.Time { return now }
	op := api.Operation{Operation: fleet.Operation{ID: "o1", NodeName: "n1", Use: "clean", State: fleet.OperationRunning, StartedAt: start,
		Steps: []fleet.StepRun{{Name: "inventory", State: fleet.StepStarted, StartedAt: start}, {Name: "erase-disks", State: fleet.StepPending}}}}
	f.draw([]api.Operation{op}, time.Time{})
	for range 40 { // 20 seconds of the same
		now = now.Add(500 * time.Millisecond)
		f.draw([]api.Operation{op}, time.Time{})
	}
	op.Percent, op.Steps[0].State = 12.5, fleet.StepFinished
	op.Steps[1] = fleet.StepRun{Name: "erase-disks", State: fleet.StepStarted, Try: 2, StartedAt: now}
	op.Progress = &fleet.Progress{Step: "erase-disks", Stage: "zeroes", Done: 1 << 30, Total: 4 << 30, At: now.Add(2 * time.Second)}
	f.draw([]api.Operation{op}, time.Time{})
	op.State, op.Percent, op.EndedAt = fleet.OperationDone, 100, now.Add(3*time.Second)
	f.draw([]api.Operation{op}, time.Time{})
	f.draw([]api.Operation{op}, time.Time{})
	want := `n1         clean    [....................]   0%  0s       inventory
n1         clean    [....................]   0%  15s      inventory
n1         clean    [###.................]  12%  20s      erase-disks (try 2) zeroes 1.07 GB of 4.29 GB, 537 MB/s
n1         clean    [####################] 100%  23s      done
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// TestBarEscapes: what a BMC or an agent says cannot move the cursor, and a percentage out of range cannot break the bar.
func TestBarEscapes(t *testing.T) {
	op := api.Operation{Operation: fleet.Operation{NodeName: "n1", Use: "clean", State: fleet.OperationRunning,
		Steps: []fleet.StepRun{{Name: "erase-disks", State: fleet.StepStarted}}}, Percent: 900,
		Progress: &fleet.Progress{Step: "erase-disks", Stage: "a\x1b[2Jb"}}
	got := bar(op, time.Now())
	if strings.ContainsRune(got, 0x1b) || !strings.Contains(got, `a\x1b[2Jb`) || !strings.Contains(got, "["+strings.Repeat("#", 20)+"]") {
		t.Errorf("got %q", got)
	}
}

// TestFollowWhatEndsWhileItIsRead: an operation that ends between the server's first answer and its arrival is read once more, though it was not known when
// the event of that came.
func TestFollowWhatEndsWhileItIsRead(t *testing.T) {
	var f *following
	reads := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := api.Operation{Operation: fleet.Operation{ID: "op", Node: "id-0", State: fleet.OperationRunning, Steps: []fleet.StepRun{{}}}}
		if reads++; reads > 1 {
			op.State, op.Revision = fleet.OperationDone, 1
		} else if err := f.event(fleet.Event{ID: 2, Type: "operation.done", Node: "id-0"}); err != nil {
			t.Error(err)
		}
		json.NewEncoder(w).Encode(op) //nolint:errcheck // whoever asked is gone
	}))
	t.Cleanup(s.Close)
	cl, err := api.NewClient(api.Config{Server: s.URL, Token: fleet.NewSecret("t"), CACert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	f = newFollowing(cl, []fleet.OperationID{"op"})
	for _, want := range []fleet.OperationState{fleet.OperationRunning, fleet.OperationDone, fleet.OperationDone} {
		if err := f.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ops, _, _ := f.snapshot(); len(ops) != 1 || ops[0].State != want {
			t.Fatalf("got %+v, want it %s", ops, want)
		}
	}
	if reads != 2 {
		t.Errorf("it was read %d times", reads)
	}
}
