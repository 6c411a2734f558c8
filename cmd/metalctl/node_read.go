//go:build !ramdisk

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func isTerminalReader(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func nodePlan(p *program) *cobra.Command {
	var q api.PlanQuery
	c := &cobra.Command{
		Use: "plan NODE --use USE", Short: "Print what would run, why, and how many reboots it costs; changes nothing", Args: exactly("NODE"),
		Example: "  metalctl node plan hgx-001 --use clean",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			plan, err := cl.NodePlan(c.Context(), args[0], q)
			if err != nil {
				return err
			}
			return printPlan(p, args[0], plan)
		},
	}
	f := c.Flags()
	f.StringVar(&q.Use, "use", "clean", "inspect, clean, burn, deploy, rebuild, release or resume")
	f.StringSliceVar(&q.Devices, "device", nil, "serials that accept would agree to, for a clean of a managed node (default: all that node show lists)")
	f.BoolVar(&q.OutOfBand, "out-of-band", false, "plan for an inspection through the BMC only")
	f.BoolVar(&q.AllowReboot, "allow-reboot", false, "plan for an inspection that may restart the machine")
	return c
}

func printPlan(p *program, node string, plan api.Plan) error {
	if p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide" {
		v := view[api.Plan]{name: func(pl api.Plan) string { return pl.Digest }}
		return v.print(p, []api.Plan{plan}, true)
	}
	rows := [][]string{{"STEP", "SIDE", "WHY"}}
	for _, s := range plan.Steps {
		name := s.Name
		if s.Destroys {
			name += " (destroys data)"
		}
		rows = append(rows, []string{name, s.Side, printable(s.Why)})
	}
	if err := printTable(p.stdout, rows); err != nil {
		return err
	}
	for _, d := range plan.Erases {
		fmt.Fprintf(p.stdout, "erases or writes %s  %s  %s\n", printable(d.Serial), bytesText(d.SizeBytes), printable(d.Model))
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %s, %d reboots, plan %s\n", node, plan.Use, plan.Reboots, plan.Digest)
	return err
}

var eventView = view[fleet.Event]{
	name: func(e fleet.Event) string { return fmt.Sprint(e.ID) },
	columns: []column[fleet.Event]{
		{"ID", false, func(e fleet.Event) string { return fmt.Sprint(e.ID) }},
		{"TIME", false, func(e fleet.Event) string { return e.At.UTC().Format(time.RFC3339) }},
		{"TYPE", false, func(e fleet.Event) string { return e.Type }},
		{"WHAT", false, func(e fleet.Event) string { return e.Text }},
		{"SUBJECT", true, func(e fleet.Event) string { return string(e.Subject) }},
		{"DATA", true, func(e fleet.Event) string { return string(json.RawMessage(e.Data)) }},
	},
}

func nodePower(p *program) *cobra.Command {
	verb := func(use, short, action string) *cobra.Command {
		return &cobra.Command{
			Use: use + " NODE", Short: short, Args: exactly("NODE"), Example: "  metalctl node power " + use + " hgx-001",
			RunE: func(c *cobra.Command, args []string) error {
				cl, err := p.client()
				if err != nil {
					return err
				}
				var pw api.Power
				if action == "" {
					pw, err = cl.Power(c.Context(), args[0])
				} else {
					pw, err = cl.SetPower(c.Context(), args[0], action)
				}
				if err != nil {
					return err
				}
				v := view[api.Power]{name: func(x api.Power) string { return x.State }, columns: []column[api.Power]{{"POWER", false, func(x api.Power) string { return x.State }}}}
				return v.print(p, []api.Power{pw}, true)
			},
		}
	}
	return noun("power", "Switch a node's power", verb("on", "Power on", "on"), verb("off", "Power off at once", "off"),
		verb("shutdown", "Ask the operating system to shut down", "shutdown"), verb("cycle", "Power off and on", "cycle"), verb("status", "Read the power state", ""))
}
