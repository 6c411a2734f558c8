//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet/topology"
)

func nodeTopology(p *program) *cobra.Command {
	var svg string
	c := &cobra.Command{
		Use: "topology NODE", Short: "Draw what a node is made of, with what is wrong marked", Args: exactly("NODE"), Example: "  metalctl node topology hgx-001 --svg hgx-001.svg",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			l, err := cl.Topology(c.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case svg == "-":
				_, err = p.stdout.Write(l.SVG())
				return err
			case svg != "":
				if err := os.WriteFile(svg, l.SVG(), 0o644); err != nil {
					return errors.Join(fmt.Errorf("write the picture: %w", err), os.Remove(svg))
				}
				fmt.Fprintf(p.stderr, "%s: written\n", svg)
				return nil
			case p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide":
				v := view[topology.Layout]{name: func(l topology.Layout) string { return l.Title }}
				return v.print(p, []topology.Layout{l}, true)
			}
			_, err = fmt.Fprint(p.stdout, l.Text(p.textOptions()))
			return err
		},
	}
	c.Flags().StringVar(&svg, "svg", "", "write an SVG picture to this file (- for standard output)")
	return c
}
