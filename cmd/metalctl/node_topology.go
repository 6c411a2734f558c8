//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

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

// textOptions are what the terminal shows: no colour where it is none or NO_COLOR is set, plain characters where its locale knows no others.
func (p *program) textOptions() topology.TextOptions {
	o := topology.TextOptions{Unicode: true}
	locale := os.Getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = os.Getenv(name)
		}
	}
	if l := strings.ToLower(locale); !strings.Contains(l, "utf-8") && !strings.Contains(l, "utf8") {
		o.Unicode = false
	}
	if f, ok := p.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		o.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			o.Width = w
		}
	}
	return o
}
