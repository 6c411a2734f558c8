//go:build !ramdisk

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func burninAbort(p *program) *cobra.Command {
	var all bool
	var rack, selector, reason string
	c := &cobra.Command{
		Use: "abort", Short: "End all load at once and let none begin; what was measured is kept", Args: exactly(),
		Long: `Abort ends the load of burn-ins for everything (--all), a rack, or the nodes with some labels: agents end it within 5 s. Until metalctl burnin resume no load begins there and
no machine is switched on, over restarts of the server. What a stage had measured is kept, and the stage runs again then. Machines of tenants are left alone.
To end the burn-in of one node for good: metalctl node abort NODE.`,
		Example: "  metalctl burnin abort --all --reason 'smoke in row 3'\n  metalctl burnin abort --rack r7 --reason 'smoke near the door'",
		RunE: func(c *cobra.Command, _ []string) error {
			var parts []string
			if rack != "" {
				parts = append(parts, "rack="+rack)
			}
			if selector != "" {
				parts = append(parts, selector)
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.StopLoad(c.Context(), api.LoadStopCreate{All: all, Selector: strings.Join(parts, ","), Reason: reason})
			if err != nil {
				return err
			}
			if p.flags.output != "" {
				return loadStopView.print(p, []fleet.LoadStop{x}, true)
			}
			_, err = fmt.Fprintf(p.stderr, "the load of %s is stopped: %s\nwhen the reason is gone: %s\n", x.What(), printable(x.Reason), x.Command())
			return err
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "everything")
	f.StringVar(&rack, "rack", "", "the nodes whose label \"rack\" is this")
	f.StringVarP(&selector, "selector", "l", "", "the nodes with these labels, such as row=3,feed=a")
	f.StringVar(&reason, "reason", "", "why, for whoever finds it")
	return c
}

func burninResume(p *program) *cobra.Command {
	var all bool
	var reason string
	c := &cobra.Command{
		Use: "resume [ID]", Short: "Let load begin again that was stopped", Args: cobra.MaximumNArgs(1),
		Long:    `Resume ends a stop of load, or every one (--all). Stages that were cut short run again, as far as the power budgets have room.`,
		Example: "  metalctl burnin resume --all --reason 'it was the toaster'",
		RunE: func(c *cobra.Command, args []string) error {
			r := api.LoadResume{All: all, Reason: reason}
			if len(args) > 0 {
				r.ID = fleet.LoadStopID(strings.TrimPrefix(args[0], "load-stop/"))
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			st, err := cl.ResumeLoad(c.Context(), r)
			if err != nil {
				return err
			}
			return printPower(p, st)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every stop that is in force")
	c.Flags().StringVar(&reason, "reason", "", "why the reason to stop it is gone")
	return c
}

func burninPower(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "power", Short: "What is drawn of each power budget, who waits for power, and which load is stopped", Args: exactly(), Example: "  metalctl burnin power",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			st, err := cl.PowerStatus(c.Context())
			if err != nil {
				return err
			}
			return printPower(p, st)
		},
	}
}

func printPower(p *program, st api.PowerStatus) error {
	if p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide" {
		v := view[api.PowerStatus]{name: func(api.PowerStatus) string { return "power" }}
		return v.print(p, []api.PowerStatus{st}, true)
	}
	if err := powerBudgetView.print(p, st.Budgets, false); err != nil {
		return err
	}
	for _, w := range st.Waiting {
		fmt.Fprintf(p.stderr, "%s, for %s: %s\n", w.Node, age(w.Since), printable(w.Text))
	}
	for _, x := range st.Stops {
		fmt.Fprintf(p.stderr, "stopped: %s, %s ago by %s: %s; %s\n", x.What(), age(x.Since), x.By, printable(x.Reason), x.Command())
	}
	_, err := fmt.Fprintf(p.stderr, "%d nodes wait for power, %d stops of load\n", len(st.Waiting), len(st.Stops))
	return err
}

var powerBudgetView = view[api.BudgetDrawn]{
	name: func(b api.BudgetDrawn) string { return b.Budget },
	columns: []column[api.BudgetDrawn]{
		{"BUDGET", false, func(b api.BudgetDrawn) string { return b.Budget }},
		{"MAY DRAW", false, func(b api.BudgetDrawn) string { return fleet.Watts(b.Watts) }},
		{"DRAWN", false, func(b api.BudgetDrawn) string { return fleet.Watts(b.DrawnWatts) }},
		{"LEFT", false, func(b api.BudgetDrawn) string { return fleet.Watts(b.Watts - b.DrawnWatts) }},
		{"NODES", false, func(b api.BudgetDrawn) string { return fmt.Sprint(b.Nodes) }},
	},
}

var loadStopView = view[fleet.LoadStop]{
	name: func(x fleet.LoadStop) string { return "load-stop/" + string(x.ID) },
	columns: []column[fleet.LoadStop]{
		{"ID", false, func(x fleet.LoadStop) string { return string(x.ID) }},
		{"WHAT", false, func(x fleet.LoadStop) string { return x.What() }},
		{"SINCE", false, func(x fleet.LoadStop) string { return age(x.Since) }},
		{"BY", false, func(x fleet.LoadStop) string { return x.By }},
		{"REASON", false, func(x fleet.LoadStop) string { return x.Reason }},
	},
}
