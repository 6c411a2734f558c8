//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

var timelineView = view[fleet.TimelineEntry]{
	name: func(e fleet.TimelineEntry) string { return e.Source },
	columns: []column[fleet.TimelineEntry]{
		{"TIME", false, func(e fleet.TimelineEntry) string { return e.At.UTC().Format("2006-01-02T15:04:05.000Z") }},
		{"SOURCE", false, func(e fleet.TimelineEntry) string { return e.Source }},
		{"WHAT", false, func(e fleet.TimelineEntry) string {
			s := e.Text
			if e.Length > 0 {
				s += fmt.Sprintf("  bytes %d-%d in %d reads", e.Offset, e.Offset+e.Length-1, max(1, e.Count))
			}
			if !e.Until.IsZero() {
				s += fmt.Sprintf("  the same answer %d times until %s", e.Count, e.Until.UTC().Format(time.TimeOnly))
			}
			return s
		}},
	},
}

type timelineOptions struct {
	since   time.Duration
	sources []string
	limit   int
	follow  bool
}

func nodeTimeline(p *program) *cobra.Command {
	var o timelineOptions
	c := &cobra.Command{
		Use: "timeline NODE", Short: "Every Redfish call, byte range, agent line and step on one line of time", Args: exactly("NODE"),
		Long: `Timeline prints what happened around a node, of whatever source, in order of time: redfish (every call to its BMC with method, path, status and
duration, never with a body; what was read again and again with the same answer is one line), media and image (the byte ranges that firmware and agent read), serial and agent (what was said), step, state and lease
(what was decided). The server keeps the newest of it, between one and two MiB a node.`,
		Example: `  metalctl node timeline hgx-001 --since 1h
  metalctl node timeline hgx-001 --source redfish,step --follow`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, args[0]) },
	}
	f := c.Flags()
	f.DurationVar(&o.since, "since", 24*time.Hour, "how far back")
	f.StringSliceVar(&o.sources, "source", nil, "only these sources: redfish, media, image, agent, step, state, serial, lease")
	f.IntVar(&o.limit, "limit", 10_000, "at most so many lines, the newest")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on printing what happens")
	return c
}

func (o *timelineOptions) run(ctx context.Context, p *program, node string) error {
	if o.limit < 1 || o.limit > 10_000 {
		return usageError("node timeline: --limit is from 1 to 10000")
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	q := api.TimelineQuery{Since: time.Now().Add(-o.since), Sources: o.sources, Limit: o.limit}
	entries, err := cl.Timeline(ctx, node, q)
	if err != nil {
		return err
	}
	if !o.follow {
		return timelineView.print(p, entries, false)
	}
	if p.flags.output == "json" {
		p.flags.output = "jsonl"
	}
	t := newTail()
	for {
		for _, e := range t.fresh(entries) {
			if err := printEntry(p, e); err != nil {
				return err
			}
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
		q.Since = t.since(q.Since)
		next, err := cl.Timeline(ctx, node, q)
		switch {
		case err == nil:
			entries = next
		case fleet.KindOf(err) == fleet.Unavailable:
			entries = nil // the server is being restarted; what it kept comes with the next answer
		default:
			return err
		}
	}
}

func printEntry(p *program, e fleet.TimelineEntry) error {
	if !p.readable() {
		return timelineView.print(p, []fleet.TimelineEntry{e}, false)
	}
	cells := timelineView.rows([]fleet.TimelineEntry{e}, false)[1]
	_, err := fmt.Fprintf(p.stdout, "%s  %-8s %s\n", cells[0], cells[1], cells[2])
	return err
}

// tailWindow is how late an entry may come: a call to a BMC stands where it began and is recorded when it ended.
const tailWindow = 5 * time.Minute

// tail tells what is new in answers that overlap.
type tail struct {
	printed map[fleet.TimelineEntry]bool
	// growing is a byte range that neighbours may still be merged into, as it was seen last.
	growing fleet.TimelineEntry
}

func newTail() *tail { return &tail{printed: map[fleet.TimelineEntry]bool{}} }

// mark is an entry without what changes while a byte range grows.
func mark(e fleet.TimelineEntry) fleet.TimelineEntry {
	if e.Length > 0 {
		e.Length, e.Count = 0, 0
	}
	return e
}

// fresh returns what was not printed yet, in order. A byte range is printed when it was seen twice alike, and what follows it waits with it.
func (t *tail) fresh(entries []fleet.TimelineEntry) []fleet.TimelineEntry {
	var out []fleet.TimelineEntry
	for _, e := range entries {
		if t.printed[mark(e)] {
			continue
		}
		if e.Length > 0 && t.growing != e {
			t.growing = e
			break
		}
		t.printed[mark(e)] = true
		out = append(out, e)
	}
	return out
}

// since is where to read on; what lies before is forgotten.
func (t *tail) since(old time.Time) time.Time {
	var newest time.Time
	for e := range t.printed {
		if e.At.After(newest) {
			newest = e.At
		}
	}
	from := newest.Add(-tailWindow)
	if !from.After(old) {
		return old
	}
	for e := range t.printed {
		if !e.At.After(from) {
			delete(t.printed, e)
		}
	}
	return from
}

// pause waits and reports whether there is a reason to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
