//go:build !ramdisk

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

var classView = view[fleet.Class]{
	name: func(c fleet.Class) string { return "class/" + c.Name },
	columns: []column[fleet.Class]{
		{"NAME", false, func(c fleet.Class) string { return c.Name }},
		{"BURN-IN", false, func(c fleet.Class) string { return c.BurnIn }},
		{"ERASE", false, func(c fleet.Class) string { return orDash(c.EraseLevel) }},
		{"GPUS", false, func(c fleet.Class) string { return fmt.Sprint(c.Expect.GPUs.Count) }},
		{"NVME", false, func(c fleet.Class) string { return fmt.Sprint(c.Expect.NVMe.Count) }},
	},
}

func classNoun(p *program) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List classes", Args: exactly(), Example: "  metalctl class list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			cs, err := cl.Classes(c.Context())
			if err != nil {
				return err
			}
			return classView.print(p, cs, false)
		},
	}
	show := &cobra.Command{
		Use: "show CLASS", Short: "Show a class", Args: exactly("CLASS"), Example: "  metalctl class show hgx-h200 -o yaml",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.Class(c.Context(), args[0])
			if err != nil {
				return err
			}
			return classView.print(p, []fleet.Class{x}, true)
		},
	}
	return noun("class", "What nodes of a kind must be", list, show, applyVerb(p, "class"))
}

// applyVerb reads a fleet file and applies its classes, images and site.
func applyVerb(p *program, what string) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Apply the classes, images and site of a fleet file", Args: exactly(), Example: "  metalctl " + what + " apply -f fleet.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usageError("%s apply: -f FILE is needed", what)
			}
			ff, err := readFleetFile(file, p.stdin)
			if err != nil {
				return err
			}
			if len(ff.nodes) > 0 {
				return usageError("%s holds nodes; enrol them with: metalctl node enroll -f %s", file, file)
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			return applyCatalog(c.Context(), p, cl, ff)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "fleet file (YAML, - for standard input)")
	return c
}

func applyCatalog(ctx context.Context, p *program, cl *api.Client, ff fleetFile) error {
	for _, s := range ff.sites {
		if _, err := cl.PutSite(ctx, s); err != nil {
			return fmt.Errorf("apply site: %w", err)
		}
		fmt.Fprintln(p.stderr, "site: applied")
	}
	for _, c := range ff.classes {
		if _, err := cl.PutClass(ctx, c); err != nil {
			return fmt.Errorf("apply class %s: %w", c.Name, err)
		}
		fmt.Fprintf(p.stderr, "class/%s: applied\n", c.Name)
	}
	for _, i := range ff.images {
		if _, err := cl.AddImage(ctx, api.ImageCreate{Image: i}); err != nil {
			return fmt.Errorf("apply image %s: %w", i.Name, err)
		}
		fmt.Fprintf(p.stderr, "image/%s: applied\n", i.Name)
	}
	return nil
}

var siteView = view[fleet.Site]{
	name: func(fleet.Site) string { return "site" },
	columns: []column[fleet.Site]{
		{"ISOLATION", false, func(s fleet.Site) string { return s.Isolation }},
		{"PHONE-HOME", false, func(s fleet.Site) string { return orDash(s.PhoneHome) }},
		{"IMAGE-ORIGINS", false, func(s fleet.Site) string { return fmt.Sprint(s.Origins) }},
	},
}

func siteNoun(p *program) *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Show the site's settings", Args: exactly(), Example: "  metalctl site show",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			s, err := cl.Site(c.Context())
			if err != nil {
				return err
			}
			return siteView.print(p, []fleet.Site{s}, true)
		},
	}
	return noun("site", "Settings that hold for all nodes", show, applyVerb(p, "site"))
}
