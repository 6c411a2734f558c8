//go:build !ramdisk

package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// TestTail: answers that overlap are printed once; a call that is recorded late is not missed, and a byte range is printed when it has stopped growing.
func TestTail(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s int, source, text string, length int64) fleet.TimelineEntry {
		return fleet.TimelineEntry{At: t0.Add(time.Duration(s) * time.Second), Source: source, Text: text, Length: length}
	}
	step, late := at(10, "step", "power-on begins", 0), at(5, "redfish", "GET / -> 200", 0)
	texts := func(es []fleet.TimelineEntry) (out []string) {
		for _, e := range es {
			out = append(out, e.Text)
		}
		return out
	}
	tl := newTail()
	for i, c := range []struct {
		answer []fleet.TimelineEntry
		want   []string
	}{
		{[]fleet.TimelineEntry{step}, []string{"power-on begins"}},
		{[]fleet.TimelineEntry{late, step}, []string{"GET / -> 200"}},
		{[]fleet.TimelineEntry{late, step, at(20, "media", "read", 100), at(21, "step", "x", 0)}, nil},
		{[]fleet.TimelineEntry{late, step, at(20, "media", "read", 900), at(21, "step", "x", 0)}, nil},
		{[]fleet.TimelineEntry{late, step, at(20, "media", "read", 900), at(21, "step", "x", 0)}, []string{"read", "x"}},
		{[]fleet.TimelineEntry{late, step, at(20, "media", "read", 900), at(21, "step", "x", 0)}, nil},
	} {
		if diff := cmp.Diff(texts(tl.fresh(c.answer)), c.want); diff != "" {
			t.Errorf("answer %d: %s", i, diff)
		}
	}
	if got := tl.since(t0.Add(-time.Hour)); !got.Equal(t0.Add(21*time.Second - tailWindow)) {
		t.Errorf("reads on from %s", got)
	}
}
