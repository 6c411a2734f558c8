//go:build !ramdisk

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet/api"
)

func capabilitiesVerb(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "capabilities", Short: "What the server is and can do: version, drivers, steps", Args: exactly(),
		Long: `Capabilities prints the server's version, the drivers that are bound, whether nodes are isolated, and the catalogue of steps that plans are
made of. With -o json the lifecycle table is there, too.`,
		Example: "  metalctl capabilities -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			caps, err := cl.Capabilities(c.Context())
			if err != nil {
				return err
			}
			return printCapabilities(p, caps)
		},
	}
}

func printCapabilities(p *program, caps api.Capabilities) error {
	if p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide" {
		v := view[api.Capabilities]{name: func(c api.Capabilities) string { return "server/" + c.Version }, columns: []column[api.Capabilities]{
			{"VERSION", false, func(c api.Capabilities) string { return c.Version }},
			{"ISOLATION", false, func(c api.Capabilities) string { return c.Isolation }},
		}}
		return v.print(p, []api.Capabilities{caps}, true)
	}
	rows := [][]string{{"version:", strings.TrimSpace(caps.Version + " " + caps.Commit)}, {"isolation:", caps.Isolation}}
	for _, k := range slices.Sorted(maps.Keys(caps.Drivers)) {
		rows = append(rows, []string{k + " driver:", caps.Drivers[k]})
	}
	if err := printTable(p.stdout, rows); err != nil {
		return err
	}
	steps := [][]string{{"STEP", "SIDE", "USES", "WHAT IT DOES"}}
	for _, s := range caps.Steps {
		name := s.Name
		if s.Destroys {
			name += " (destroys data)"
		}
		steps = append(steps, []string{name, s.Side, strings.Join(s.Uses, ","), s.Doc})
	}
	fmt.Fprintln(p.stdout)
	return printTable(p.stdout, steps)
}
