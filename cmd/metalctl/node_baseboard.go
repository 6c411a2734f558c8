//go:build !ramdisk

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
)

func nodeBaseboard(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "baseboard NODE", Short: "Show what the BMC tells of the GPU baseboard: GPUs, retimers, NVLinks, roots of trust, firmware", Args: exactly("NODE"),
		Long: `Baseboard prints what the newest inspection read through the BMC, without the host. NVLinks are listed where they are not up at both ends. Sensors are printed
with -o wide, everything with -o json. What differs from what the host sees: metalctl node inventory NODE --diff --against bmc.`,
		Example: "  metalctl node baseboard hgx-001\n  metalctl node baseboard hgx-001 -o json | jq .roots_of_trust",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			b, err := cl.Baseboard(c.Context(), args[0])
			if err != nil {
				return err
			}
			switch p.flags.output {
			case "", "table", "wide":
				return boardRows(b, p.flags.output == "wide").print(p.stdout)
			}
			v := view[fleet.Baseboard]{name: func(b fleet.Baseboard) string { return b.URI }}
			return v.print(p, []fleet.Baseboard{b}, true)
		},
	}
}

func boardRows(b fleet.Baseboard, sensors bool) (rows partRows) {
	power := "powered"
	if !b.Powered {
		power = "without power"
	}
	rows.add("board", b.URI, power, "read "+timeText(b.TakenAt), fmt.Sprintf("%d requests", b.Requests))
	for _, g := range b.GPUs {
		rows.add("gpu", g.Name, orDash(g.Serial), orDash(g.Model), "VBIOS "+orDash(g.VBIOS), condition(g.State, g.Health))
	}
	for _, r := range b.Retimers {
		rows.add("retimer", r.Name, "firmware "+orDash(b.FirmwareOf(r.Name)), "to "+orDash(r.GPU), condition(r.State, r.Health))
	}
	whole := 0
	for _, l := range b.Links {
		if l.B != nil && l.A.State == fleet.LinkUp && l.B.State == fleet.LinkUp && l.Doubt == "" {
			whole++
			continue
		}
		far := "no other end seen"
		if l.B != nil {
			far = portText(*l.B)
		}
		rows.add("nvlink", portText(l.A), far, l.Doubt)
	}
	rows.add("nvlinks", fmt.Sprintf("%d of %d up at both ends", whole, len(b.Links)))
	for _, r := range b.Roots {
		on := "on"
		if !r.Enabled {
			on = "off"
		}
		rows.add("root", r.ID, "for "+orDash(r.Part), on, cmp.Or(r.Identity, "shows no certificate"), r.Subject)
	}
	for _, f := range b.Firmware {
		rows.add("firmware", f.ID, orDash(f.Version))
	}
	for _, s := range b.Sensors {
		note := ""
		if s.Stale {
			note = "stale"
		}
		if sensors {
			rows.add("sensor", s.Name, fmt.Sprintf("%g", s.Value), note)
		}
	}
	for _, part := range slices.Sorted(maps.Keys(b.Health)) {
		rows.add("health", part, b.Health[part])
	}
	for _, m := range b.Missing {
		rows.add("missing", m.What, m.Why)
	}
	return rows
}

// condition is a part's state and health in Redfish's words.
func condition(state, health string) string {
	return orDash(strings.TrimSpace(state + " " + health))
}

func portText(p fleet.BoardPort) string { return fmt.Sprintf("%s/%d %s", p.Part, p.Port, p.State) }
