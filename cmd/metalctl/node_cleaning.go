//go:build !ramdisk

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
)

var cleanedView = view[fleet.CleanedComponent]{
	name: func(x fleet.CleanedComponent) string { return x.Component },
	columns: []column[fleet.CleanedComponent]{
		{"COMPONENT", false, func(x fleet.CleanedComponent) string { return x.Component }},
		{"RESULT", false, func(x fleet.CleanedComponent) string { return strings.TrimSpace(string(x.Result) + " " + x.Level) }},
		{"METHOD", false, func(x fleet.CleanedComponent) string { return orDash(x.Method) }},
		{"READ BACK", false, func(x fleet.CleanedComponent) string {
			if x.Why != "" {
				return x.Why
			}
			return orDash(x.ReadBack)
		}},
		{"IDENTITY", true, func(x fleet.CleanedComponent) string { return orDash(x.Identity) }},
		{"MODEL", true, func(x fleet.CleanedComponent) string { return orDash(x.Model) }},
		{"ASKED", true, func(x fleet.CleanedComponent) string { return orDash(x.Asked) }},
		{"SAID", true, func(x fleet.CleanedComponent) string { return orDash(x.Said) }},
		{"STEP", true, func(x fleet.CleanedComponent) string { return orDash(x.Step) }},
		{"AT", true, func(x fleet.CleanedComponent) string { return orDash(timeText(x.At)) }},
	},
}

func nodeCleaning(p *program) *cobra.Command {
	var lease string
	c := &cobra.Command{
		Use: "cleaning NODE", Short: "Show what a cleaning did to each component, and what it did not deal with", Args: exactly("NODE"),
		Long: `Cleaning prints the record of the newest cleaning: for each component what was asked, by which method, what it reported and what was read back, or why
it was not dealt with. --lease shows the record of the cleaning after that lease.`,
		Example: "  metalctl node cleaning hgx-001\n  metalctl node cleaning hgx-001 --lease training -o json",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			rec, err := cl.Cleaning(c.Context(), args[0], lease)
			if err != nil {
				return err
			}
			if p.flags.output == "json" || p.flags.output == "yaml" || p.flags.output == "jsonl" {
				return view[fleet.CleaningRecord]{}.print(p, []fleet.CleaningRecord{rec}, true)
			}
			if err := cleanedView.print(p, rec.Components, false); err != nil || !p.readable() {
				return err
			}
			_, err = fmt.Fprintln(p.stdout, printable(fmt.Sprintf("%s (serial %s), data of %s, class %s, agent %s, plan %s\n%s", rec.NodeName, orDash(rec.Serial),
				orDash(string(rec.Data)), orDash(rec.Class), orDash(rec.Agent), rec.Plan, rec.Summary())))
			return err
		},
	}
	c.Flags().StringVar(&lease, "lease", "", "the cleaning after this lease, by id or name")
	return c
}
