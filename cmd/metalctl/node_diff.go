//go:build !ramdisk

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func nodeInventory(p *program) *cobra.Command {
	var diff, now bool
	var against []string
	c := &cobra.Command{
		Use: "inventory NODE", Short: "Print what the newest inspection found, or in which ways that is not what it should be", Args: exactly("NODE"),
		Long: "Print what the newest inspection found.\n\nWith --diff print by component what is wrong by itself, what its class does not say, what has changed since the inspection before, and in what it " +
			"differs from most other nodes of its class; and where its BMC showed a GPU baseboard at the last inspection, in what the host and that baseboard's own controller disagree: GPUs that not both see, " +
			"firmware, both ends of the NVLinks, memory, PCIe retimers, roots of trust. Exit code 9 where there are differences.\n\nWith --now the BMC is asked for the baseboard now, by reads only and for two minutes at most: " +
			"what the next inspection would find.",
		Example: "  metalctl node inventory hgx-001 --diff\n  metalctl node inventory hgx-001 --diff --against bmc --now",
		RunE: func(c *cobra.Command, args []string) error {
			if (len(against) > 0 || now) && !diff {
				return usageError("--against and --now go with --diff")
			}
			if now && len(against) > 0 && !slices.Contains(against, fleet.AgainstBMC) {
				return usageError("--now asks the BMC, and --against leaves bmc out")
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			if !diff {
				inv, err := cl.Inventory(c.Context(), args[0])
				if err != nil {
					return err
				}
				return printInventory(p, inv)
			}
			ask := cl.Differences
			if now {
				ask = cl.DifferencesNow
			}
			d, err := ask(c.Context(), args[0], against...)
			if err != nil {
				return err
			}
			return printDifferences(p, d)
		},
	}
	f := c.Flags()
	f.BoolVar(&diff, "diff", false, "print the differences; exit code 9 where there are any")
	f.StringSliceVar(&against, "against", nil, "with --diff: class (with what is wrong by itself), last, fleet, bmc; default all that is known")
	f.BoolVar(&now, "now", false, "with --diff: ask the BMC for its GPU baseboard now instead of taking what the last inspection read")
	return c
}

var differenceView = view[fleet.Difference]{
	name: func(d fleet.Difference) string { return d.Component },
	columns: []column[fleet.Difference]{
		{"COMPONENT", false, func(d fleet.Difference) string { return d.Component }},
		{"BLOCKS", false, func(d fleet.Difference) string { return string(d.Blocks) }},
		{"AGAINST", false, func(d fleet.Difference) string { return d.Against }},
		{"DO", false, func(d fleet.Difference) string { return orDash(d.Do) }},
		{"CODE", false, func(d fleet.Difference) string { return d.Code }},
		{"WHAT", false, func(d fleet.Difference) string { return d.Words }},
		{"WANT", true, func(d fleet.Difference) string { return orDash(d.Want) }},
		{"GOT", true, func(d fleet.Difference) string { return orDash(d.Got) }},
	},
}

// printDifferences prints them by component, and what was compared on the other stream.
func printDifferences(p *program, d api.Differences) error {
	switch p.flags.output {
	case "json", "jsonl", "yaml":
		v := view[api.Differences]{name: func(d api.Differences) string { return d.Node }}
		if err := v.print(p, []api.Differences{d}, true); err != nil {
			return err
		}
	default:
		if len(d.Differences) > 0 {
			if err := differenceView.print(p, d.Differences, false); err != nil {
				return err
			}
		}
	}
	for _, why := range d.NotCompared {
		fmt.Fprintf(p.stderr, "not compared with %s\n", printable(why))
	}
	if len(d.Differences) == 0 {
		fmt.Fprintf(p.stderr, "%s is as it should be: %s\n", d.Node, comparedWords(d))
		return nil
	}
	blocking := 0
	for _, x := range d.Differences {
		if x.Blocks != fleet.BlocksNothing {
			blocking++
		}
	}
	return &exitError{exitDiffers, fmt.Errorf("%s: %s (%s)", d.Node, differencesWords(len(d.Differences), blocking), comparedWords(d))}
}

// differencesWords says how many there are, and how many of them block.
func differencesWords(n, blocking int) string {
	switch {
	case n == 1 && blocking == 1:
		return "1 difference, which keeps it from being handed out"
	case n == 1:
		return "1 difference, which does not keep it from being handed out"
	case blocking == n:
		return fmt.Sprintf("%d differences, all of which keep it from being handed out", n)
	case blocking == 0:
		return fmt.Sprintf("%d differences, none of which keeps it from being handed out", n)
	case blocking == 1:
		return fmt.Sprintf("%d differences, 1 of which keeps it from being handed out", n)
	}
	return fmt.Sprintf("%d differences, %d of which keep it from being handed out", n, blocking)
}

func comparedWords(d api.Differences) string {
	var out []string
	for _, a := range d.Against {
		switch {
		case a == fleet.AgainstClass && d.Class != "":
			out = append(out, "class "+d.Class)
		case a == fleet.AgainstLast && !d.LastAt.IsZero():
			out = append(out, "the inspection of "+d.LastAt.UTC().Format(time.RFC3339))
		case a == fleet.AgainstBMC && !d.BoardAt.IsZero():
			out = append(out, "the baseboard by its BMC"+boardAge(d))
		case a == fleet.AgainstFleet && d.Fellows > 1:
			out = append(out, fmt.Sprintf("%d fellows", d.Fellows))
		}
	}
	if len(out) == 0 {
		return "compared with nothing but itself"
	}
	return "compared with " + strings.Join(out, ", ")
}

// boardAge says how old the view of a baseboard is.
func boardAge(d api.Differences) string {
	if d.BoardNow {
		return ", read now"
	}
	return ", read " + age(d.BoardAt) + " ago"
}
