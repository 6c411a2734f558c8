//go:build !ramdisk

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func networkNoun(p *program) *cobra.Command {
	return noun("network", "What all wires carry, and what they shall", networkPlan(p), networkApply(p), networkVerify(p))
}

var networkPlanView = view[api.NetworkPlan]{name: func(x api.NetworkPlan) string { return x.Digest }}

func networkPlan(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "plan", Short: "Read every fabric and print what would be written, and who reaches whom by it; exit code 9 where anything differs", Args: exactly(), Example: "  metalctl network plan",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			plan, err := cl.NetworkPlan(c.Context())
			if err != nil {
				return err
			}
			if p.readable() {
				err = showNetworkPlan(p, plan)
			} else {
				err = networkPlanView.print(p, []api.NetworkPlan{plan}, true)
			}
			if err == nil && (plan.Digest != "" || refused(plan)) {
				return &exitError{exitDiffers, nil}
			}
			return err
		},
	}
}

func refused(plan api.NetworkPlan) bool {
	for _, d := range plan.Devices {
		if d.Refused != "" {
			return true
		}
	}
	return false
}

func showNetworkPlan(p *program, plan api.NetworkPlan) error {
	rows := [][]string{{"digest:", firstText(plan.Digest, "none: every port carries what it shall")}}
	for _, d := range plan.Devices {
		for _, c := range d.Changes {
			rows = append(rows, []string{d.Device + ":", fmt.Sprintf("%s: %s becomes %s", c.Port, c.From, c.To)})
		}
		if d.Refused != "" {
			rows = append(rows, []string{d.Device + ":", "refused: " + printable(d.Refused)})
		}
	}
	for _, x := range plan.Lost {
		rows = append(rows, []string{"lost:", x})
	}
	for _, x := range plan.Gained {
		rows = append(rows, []string{"gained:", x})
	}
	for _, x := range plan.Notes {
		rows = append(rows, []string{"note:", printable(x)})
	}
	return printTable(p.stdout, rows)
}

var verdictView = view[api.NetworkVerdict]{name: func(api.NetworkVerdict) string { return "network" }}

func networkApply(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "apply DIGEST", Short: "Do exactly the plan with that digest, or nothing, and read everything back", Args: exactly("DIGEST"), Example: "  metalctl network apply sha256:…",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			v, err := cl.ApplyNetwork(c.Context(), args[0])
			if err != nil {
				return err
			}
			return showVerdict(p, v)
		},
	}
}

func networkVerify(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Read every fabric and say who is where; exit code 9 where anything is not proven", Args: exactly(), Example: "  metalctl network verify",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			v, err := cl.VerifyNetwork(c.Context())
			if err != nil {
				return err
			}
			return showVerdict(p, v)
		},
	}
}

func showVerdict(p *program, v api.NetworkVerdict) error {
	var err error
	if p.readable() {
		rows := [][]string{{"proven:", fmt.Sprint(v.Proven)}}
		for _, x := range v.Meetings {
			rows = append(rows, []string{"reach:", printable(x)})
		}
		for _, x := range v.Doubts {
			rows = append(rows, []string{"doubt:", printable(x)})
		}
		err = printTable(p.stdout, rows)
	} else {
		err = verdictView.print(p, []api.NetworkVerdict{v}, true)
	}
	if err == nil && !v.Proven {
		return &exitError{exitDiffers, nil}
	}
	return err
}

// wireRows say for each fabric port of a node where it is, and since when that is proven.
func wireRows(w fleet.NodeWires) [][]string {
	where := "quarantine"
	switch {
	case w.Leaving && w.Partition != "":
		where = "leaving partition " + w.Partition
	case w.Partition != "":
		where = "partition " + w.Partition
	}
	var rows [][]string
	for _, x := range w.Ports {
		text := fmt.Sprintf("%s of %s in %s, not proven: %s", x.Port, x.Fabric, where, x.Doubt)
		if x.Doubt == "" {
			text = fmt.Sprintf("%s of %s in %s, proven since %s: %s", x.Port, x.Fabric, where, x.Since.UTC().Format(time.RFC3339), x.Carries)
			if x.Absent {
				text = fmt.Sprintf("%s of %s in %s since %s: its link is down", x.Port, x.Fabric, where, x.Since.UTC().Format(time.RFC3339))
			}
		}
		rows = append(rows, []string{"wire:", printable(text)})
	}
	return rows
}

// unmanagedText says which of a node's ports nobody moves.
func unmanagedText(n api.Node) string {
	ethernet := 0
	for _, x := range n.Ports {
		if x.MAC != "" {
			ethernet++
		}
	}
	if n.Wires == nil || len(n.Wires.Ports) == 0 || ethernet == 0 {
		return ""
	}
	return fmt.Sprintf(" for its %d fabric ports; its %d Ethernet ports are as its switches have them, as no driver moves those", len(n.Wires.Ports), ethernet)
}
