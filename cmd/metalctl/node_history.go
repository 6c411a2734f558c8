//go:build !ramdisk

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

var stayView = view[fleet.Stay]{
	name: func(s fleet.Stay) string { return string(s.State) },
	columns: []column[fleet.Stay]{
		{"SINCE", false, func(s fleet.Stay) string { return orDash(timeText(s.Since)) }},
		{"STATE", false, func(s fleet.Stay) string { return string(s.State) }},
		{"FOR", false, func(s fleet.Stay) string {
			if s.Since.IsZero() {
				return "-"
			}
			return span(time.Duration(s.Seconds * float64(time.Second)))
		}},
		{"BY", false, func(s fleet.Stay) string { return orDash(s.By) }},
		{"VERB", false, func(s fleet.Stay) string { return orDash(string(s.Verb)) }},
		{"WHY", false, func(s fleet.Stay) string { return orDash(s.Why) }},
	},
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func nodeHistory(p *program) *cobra.Command {
	var events bool
	c := &cobra.Command{
		Use: "history NODE", Short: "In which states the node was, how long, and how it came there", Args: exactly("NODE"),
		Long: `History prints every state that the node was in, how long, and who brought it there, with a total per state. It is derived from the committed events,
of which the server keeps the newest 100,000 of the whole fleet; where they no longer reach back, it says so. --events prints the events themselves.`,
		Example: "  metalctl node history hgx-001\n  metalctl node history hgx-001 --events",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			h, err := cl.History(c.Context(), args[0], 1000)
			switch {
			case err != nil:
				return err
			case events:
				return eventView.print(p, h.Events, false)
			case p.flags.output == "json" || p.flags.output == "yaml":
				return view[api.History]{}.print(p, []api.History{h}, true)
			}
			if err := stayView.print(p, h.Stays, false); err != nil || !p.readable() {
				return err
			}
			return showTotals(p, h)
		},
	}
	c.Flags().BoolVar(&events, "events", false, "print the committed events instead")
	return c
}

func showTotals(p *program, h api.History) error {
	rows := [][]string{{"TOTAL IN", "TIMES", "FOR"}}
	for _, t := range h.Totals {
		rows = append(rows, []string{string(t.State), fmt.Sprint(t.Times), span(time.Duration(t.Seconds * float64(time.Second)))})
	}
	fmt.Fprintln(p.stdout)
	if err := printTable(p.stdout, rows); err != nil {
		return err
	}
	if !h.Complete {
		fmt.Fprintln(p.stderr, "older events are no longer kept, so that the first state and the totals may be cut short")
	}
	return nil
}
