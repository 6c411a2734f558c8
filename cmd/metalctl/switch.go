//go:build !ramdisk

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// switchFile is kind Switch of a fleet file.
type switchFile struct {
	Kind string `json:"kind" enum:"Switch" required:"true"`
	Name string `json:"name" required:"true"`
	// Domain names the switches that pass each other's VLANs on; left out, this one is alone.
	Domain string `json:"domain"`
	// Managed are the ports to nodes, by the switch's names for them; a LAG by its own name. Every other port is read only.
	Managed []string `json:"managed" required:"true"`
	// Uplinks are the ports to other switches and to routers.
	Uplinks []string `json:"uplinks"`
	// First and Last bound the VLANs of networks.
	First fleet.VLAN `json:"first" required:"true"`
	Last  fleet.VLAN `json:"last" required:"true"`
	// Quarantine is the VLAN of ports that nobody has, outside of that range.
	Quarantine fleet.VLAN `json:"quarantine" required:"true"`
}

func (f switchFile) ethernet() fleet.Switch {
	return fleet.Switch{Name: f.Name, Domain: f.Domain, Managed: f.Managed, Uplinks: f.Uplinks, First: f.First, Last: f.Last, Quarantine: f.Quarantine}
}

var switchView = view[api.Switch]{
	name: func(x api.Switch) string { return "switch/" + x.Name },
	columns: []column[api.Switch]{
		{"NAME", false, func(x api.Switch) string { return x.Name }},
		{"DOMAIN", false, func(x api.Switch) string { return x.Segment() }},
		{"STATE", false, func(x api.Switch) string { return x.State }},
		{"MANAGED", false, func(x api.Switch) string { return fmt.Sprint(len(x.Managed)) }},
		{"VLANS", false, func(x api.Switch) string { return fmt.Sprintf("%d of %d", x.VLANs, int(x.Last)-int(x.First)+1) }},
		{"RESTING", true, func(x api.Switch) string { return fmt.Sprint(len(x.Resting)) }},
		{"READ", false, func(x api.Switch) string {
			if x.ReadAt.IsZero() {
				return "-"
			}
			return age(x.ReadAt)
		}},
		{"WHY", false, func(x api.Switch) string { return orDash(printable(x.Why)) }},
	},
}

func switchNoun(p *program) *cobra.Command {
	return noun("switch", "Ethernet switches, whose VLANs keep tenants apart", switchList(p), switchShow(p), applyVerb(p, "switch"), switchAdopt(p), switchVerify(p), switchRemove(p))
}

func switchList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List switches, and whether they can be trusted", Args: exactly(), Example: "  metalctl switch list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Switches(c.Context())
			if err != nil {
				return err
			}
			return switchView.print(p, all, false)
		},
	}
}

func switchShow(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show SWITCH", Short: "Show what was read last: every port with its VLANs, and what is wrong", Args: exactly("SWITCH"), Example: "  metalctl switch show leaf-1",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.Switch(c.Context(), args[0])
			if err != nil {
				return err
			}
			return showSwitch(p, x)
		},
	}
}

func showSwitch(p *program, x api.Switch) error {
	if !p.readable() {
		return switchView.print(p, []api.Switch{x}, true)
	}
	rows := [][]string{{"switch:", x.Name, ""}, {"domain:", x.Segment(), ""}}
	rows = append(rows, readingRows(x.Reading)...)
	rows = append(rows, []string{"vlans:", fmt.Sprintf("%d to %d, %d used, %d resting; quarantine %d", x.First, x.Last, x.VLANs, len(x.Resting), x.Quarantine), ""})
	return printTable(p.stdout, append(rows, portRows(x.Reading)...))
}

// readingRows say whether a fabric or switch can be trusted, portRows what its ports carry.
func readingRows(r api.Reading) [][]string {
	rows := [][]string{{"state:", strings.TrimSpace(r.State + " " + printable(r.Why)), ""}}
	if !r.ReadAt.IsZero() {
		rows = append(rows, []string{"read:", r.ReadAt.UTC().Format(time.RFC3339), ""})
	}
	return rows
}

func portRows(r api.Reading) (rows [][]string) {
	for _, x := range r.Findings {
		rows = append(rows, []string{"finding:", x.Code, printable(x.Text)})
	}
	for _, x := range r.Ports {
		rows = append(rows, []string{"port:", x.Port, strings.TrimSpace(printable(x.Carries.String() + " " + peerText(x.Peer) + " " + x.Doubt))})
	}
	return rows
}

func switchAdopt(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "adopt SWITCH", Short: "Look whether every managed port of a switch can be understood; nothing is written", Args: exactly("SWITCH"),
		Long:    `Adopt is done once. Where a managed port carries what cannot be said in VLANs nothing begins, and the error lists all of them. metalctl network plan shows then what would be changed.`,
		Example: "  metalctl switch adopt leaf-1",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.AdoptSwitch(c.Context(), args[0])
			if err != nil {
				return err
			}
			return switchView.print(p, []api.Switch{x}, true)
		},
	}
}

func switchVerify(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "verify SWITCH", Short: "Read every port of a switch now; exit code 9 where it cannot be trusted", Args: exactly("SWITCH"), Example: "  metalctl switch verify leaf-1",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.VerifySwitch(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := showSwitch(p, x); err != nil {
				return err
			}
			if x.State != api.FabricTrusted {
				return &exitError{exitDiffers, nil}
			}
			return nil
		},
	}
}

func switchRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove SWITCH", Short: "Drop a switch that no node is at; it is not touched", Args: exactly("SWITCH"), Example: "  metalctl switch remove leaf-1",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			return cl.RemoveSwitch(c.Context(), args[0])
		},
	}
}
