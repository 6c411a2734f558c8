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

func networkNoun(p *program) *cobra.Command {
	return noun("network", "Networks of VLANs; what all wires carry, and what they shall", networkList(p), networkShow(p), networkCreate(p), networkRemove(p), networkPlan(p), networkApply(p), networkVerify(p))
}

var networkPlanView = view[api.NetworkPlan]{name: func(x api.NetworkPlan) string { return x.Digest }}

func networkPlan(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "plan", Short: "Read every fabric and switch and print what would be written, and who reaches whom by it; exit code 9 where anything differs", Args: exactly(), Example: "  metalctl network plan",
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
	files := applyVerb(p, "network")
	c := &cobra.Command{
		Use: "apply [DIGEST]", Short: "Do exactly the plan with that digest, or nothing, and read everything back; with -f, apply a fleet file", Args: cobra.MaximumNArgs(1),
		Example: "  metalctl network apply sha256:…\n  metalctl network apply -f networks.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == c.Flags().Changed("file") {
				return usageError("network apply: either a digest, which metalctl network plan prints, or -f FILE")
			}
			if len(args) == 0 {
				return files.RunE(c, args)
			}
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
	c.Flags().AddFlagSet(files.Flags())
	return c
}

func networkVerify(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Read every fabric and switch and say who is where; exit code 9 where anything is not proven", Args: exactly(), Example: "  metalctl network verify",
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

// wireRows say for each port of a node where it is, and since when that is proven.
func wireRows(w fleet.NodeWires) [][]string {
	var rows [][]string
	for _, x := range w.Ports {
		at := x.Port
		if x.Device() != "" {
			at += " of " + x.Device()
		}
		at += " in " + whereText(w, x)
		var text string
		switch {
		case x.Doubt != "":
			text = fmt.Sprintf("%s, not proven: %s", at, x.Doubt)
		case x.Absent:
			text = fmt.Sprintf("%s since %s: its link is down", at, x.Since.UTC().Format(time.RFC3339))
		default:
			text = fmt.Sprintf("%s, proven since %s: %s", at, x.Since.UTC().Format(time.RFC3339), x.Carries)
		}
		rows = append(rows, []string{"wire:", printable(text)})
	}
	if len(rows) > 0 {
		rows = append(rows, []string{"shown by:", packetsText(w.Ports)})
	}
	return rows
}

// packetsText says of which Ethernet ports packets showed where they are. The others are as their switches and fabrics say.
func packetsText(ports []fleet.WireProof) string {
	var passed, silent, others []string
	var newest time.Time
	for _, x := range ports {
		switch {
		case x.Packets == nil:
			others = append(others, x.Port)
			continue
		case x.Packets.Outcome == fleet.ProbePass:
			passed = append(passed, x.Port)
		default:
			silent = append(silent, x.Port)
		}
		newest = latest(newest, x.Packets.At)
	}
	if newest.IsZero() {
		return "reading back"
	}
	text := "packets at " + newest.UTC().Format(time.RFC3339) + ":"
	if len(passed) == 1 {
		text += fmt.Sprintf(" %s heard in its network and nowhere else;", passed[0])
	} else if len(passed) > 1 {
		text += fmt.Sprintf(" %s heard in their networks and nowhere else;", strings.Join(passed, ", "))
	}
	if len(silent) > 0 {
		text += fmt.Sprintf(" %s silent;", strings.Join(silent, ", "))
	}
	if len(others) > 0 {
		text += " read back: " + strings.Join(others, ", ")
	}
	return printable(strings.TrimSuffix(text, ";"))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// whereText says which partition or network a port is in, or leaves.
func whereText(w fleet.NodeWires, x fleet.WireProof) string {
	switch {
	case x.Fabric != "" && w.Leaving && w.Partition != "":
		return "leaving partition " + w.Partition
	case x.Fabric != "" && x.Where != "":
		return "partition " + x.Where
	case x.Was != "" && x.Was != x.Where && x.Where == "":
		return "leaving network " + x.Was
	case x.Where != "":
		return "network " + x.Where
	}
	return "quarantine"
}

// unmanagedText says which of a node's ports nobody moves.
func unmanagedText(n api.Node) string {
	moved, others := 0, 0
	if n.Wires != nil {
		moved = len(n.Wires.Ports)
	}
	for _, x := range n.Ports {
		if x.MAC != "" && (n.Wires == nil || !slices.ContainsFunc(n.Wires.Ports, func(p fleet.WireProof) bool { return p.Switch != "" && p.Switch == x.Switch && p.Port == x.Port })) {
			others++
		}
	}
	if moved == 0 || others == 0 {
		return ""
	}
	return fmt.Sprintf(" for its %d ports with a driver; its %d other Ethernet ports are as their switches have them", moved, others)
}
