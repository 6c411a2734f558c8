//go:build !ramdisk

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// applyVerb reads a fleet file and applies all of it but its nodes.
func applyVerb(p *program, what string) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Apply a fleet file: its site, fabrics, partitions, switches, networks, burn-in profiles, classes and images", Args: exactly(), Example: "  metalctl " + what + " apply -f fleet.yaml",
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
	for _, f := range ff.fabrics {
		if _, err := cl.PutFabric(ctx, f); err != nil {
			return fmt.Errorf("apply fabric %s: %w", f.Name, err)
		}
		fmt.Fprintf(p.stderr, "fabric/%s: applied\n", f.Name)
	}
	for _, x := range ff.partitions {
		if _, err := cl.CreatePartition(ctx, x); err != nil {
			return fmt.Errorf("create partition %s: %w", x.Name, err)
		}
		fmt.Fprintf(p.stderr, "partition/%s: created\n", x.Name)
	}
	for _, x := range ff.switches {
		if _, err := cl.PutSwitch(ctx, x); err != nil {
			return fmt.Errorf("apply switch %s: %w", x.Name, err)
		}
		fmt.Fprintf(p.stderr, "switch/%s: applied\n", x.Name)
	}
	for _, x := range ff.networks {
		if _, err := cl.PutNetwork(ctx, x); err != nil {
			return fmt.Errorf("apply network %s: %w", x.Name, err)
		}
		fmt.Fprintf(p.stderr, "network/%s: applied\n", x.Name)
	}
	for _, x := range ff.profiles { // a class may name one
		if _, err := cl.PutProfile(ctx, x); err != nil {
			return fmt.Errorf("apply profile %s: %w", x.Name, err)
		}
		fmt.Fprintf(p.stderr, "profile/%s: applied\n", x.Name)
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
