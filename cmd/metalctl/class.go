//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Where a class is: on the server, or in this program as something to begin with.
const (
	originSite     = "site"
	originTemplate = "template"
)

// classRow is a class with where it is.
type classRow struct {
	Origin string `json:"origin"`
	fleet.Class
}

var classView = view[classRow]{
	name: func(c classRow) string {
		return map[string]string{originSite: "class/", originTemplate: "template/"}[c.Origin] + c.Name
	},
	columns: []column[classRow]{
		{"NAME", false, func(c classRow) string { return c.Name }},
		{"ORIGIN", false, func(c classRow) string { return c.Origin }},
		{"BURN-IN", false, func(c classRow) string { return c.BurnIn }},
		{"ERASE", false, func(c classRow) string { return orDash(c.EraseLevel) }},
		{"GPUS", false, func(c classRow) string { return fmt.Sprint(c.Expect.GPUs.Count) }},
		{"MODEL", false, func(c classRow) string { return orDash(c.Expect.GPUs.Model) }},
		{"NVME", false, func(c classRow) string { return fmt.Sprint(c.Expect.NVMe.Count) }},
		{"RAMDISK", false, func(c classRow) string {
			return orDash(fleet.Ramdisk{SHA256: strings.TrimPrefix(c.Ramdisk, "sha256:")}.Name())
		}},
		{"LIMITS", true, func(c classRow) string { return fmt.Sprint(len(c.Expect.Limits)) }},
		{"SOURCE", true, func(c classRow) string { return orDash(c.Expect.Source) }},
	},
}

func classNoun(p *program) *cobra.Command {
	return noun("class", "What nodes of a kind must be", classList(p), classShow(p), classTemplateVerb(p), classCreate(p), classLearn(p), applyVerb(p, "class"), classRemove(p))
}

func classList(p *program) *cobra.Command {
	var origin string
	c := &cobra.Command{
		Use: "list", Short: "List the site's classes, and those that ship to begin with", Args: exactly(),
		Long:    "List the site's classes (origin site), and those that ship to begin with (origin template), which hold for no node: copy one with metalctl class create.",
		Example: "  metalctl class list\n  metalctl class list --origin template",
		RunE: func(c *cobra.Command, _ []string) error {
			var rows []classRow
			switch origin {
			case "", originSite, originTemplate:
			default:
				return usageError("--origin %s: want %s or %s", origin, originSite, originTemplate)
			}
			if origin != originTemplate {
				cl, err := p.client()
				if err != nil {
					return err
				}
				cs, err := cl.Classes(c.Context())
				if err != nil {
					return err
				}
				for _, x := range cs {
					rows = append(rows, classRow{originSite, x})
				}
			}
			if origin != originSite {
				ts, err := classTemplates()
				if err != nil {
					return err
				}
				for _, t := range ts {
					rows = append(rows, classRow{originTemplate, t.class})
				}
			}
			return classView.print(p, rows, false)
		},
	}
	c.Flags().StringVar(&origin, "origin", "", "only those of the site, or only each template (no server is asked)")
	return c
}

func classShow(p *program) *cobra.Command {
	var asFile bool
	c := &cobra.Command{
		Use: "show CLASS", Short: "Show a class, or print it as a file to change and apply", Args: exactly("CLASS"),
		Example: "  metalctl class show hgx-h200 -o yaml\n  metalctl class show hgx-h200 --as-file > hgx-h200.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.Class(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asFile {
				return printClassFile(p.stdout, x)
			}
			return classView.print(p, []classRow{{originSite, x}}, true)
		},
	}
	c.Flags().BoolVar(&asFile, "as-file", false, "print the file that class apply takes")
	return c
}

func classTemplateVerb(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "template NAME", Short: "Print a class that ships, as a file to change and apply", Args: exactly("NAME"),
		Example:           "  metalctl class template hgx-h200 > hgx-h200.yaml",
		ValidArgsFunction: templateNames,
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := classTemplateOf(args[0])
			if err != nil {
				return err
			}
			_, err = p.stdout.Write(t.text)
			return err
		},
	}
}

func templateNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if ts, err := classTemplates(); err == nil && len(args) == 0 {
		for _, t := range ts {
			names = append(names, t.class.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func classCreate(p *program) *cobra.Command {
	var template string
	c := &cobra.Command{
		Use: "create NAME --template T", Short: "Make a class of one that ships", Args: exactly("NAME"),
		Example: "  metalctl class create hgx-h200 --template hgx-h200\n  metalctl class create gpu --template hgx-h100-xe9680",
		RunE: func(c *cobra.Command, args []string) error {
			if template == "" {
				return usageError("class create: --template T is needed; metalctl class list --origin template has what ships")
			}
			t, err := classTemplateOf(template)
			if err != nil {
				return err
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			t.class.Name = args[0]
			return p.storeClass(c.Context(), cl, t.class, false)
		},
	}
	c.Flags().StringVar(&template, "template", "", "class that ships, of those that \"class list --origin template\" shows")
	must(c.RegisterFlagCompletionFunc("template", func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return templateNames(c, nil, begun)
	}))
	return c
}

// storeClass puts a class on the server; one that is there already is replaced only where that was asked for, as its nodes are held to it.
func (p *program) storeClass(ctx context.Context, cl *api.Client, c fleet.Class, replace bool) error {
	if !replace {
		_, err := cl.Class(ctx, c.Name)
		switch {
		case err == nil:
			return fleet.Errorf(fleet.Conflict, "MC-CLASS-TWICE", "there is a class %s already, and its nodes are held to it", c.Name).WithHint("metalctl class show %s --as-file", c.Name)
		case fleet.KindOf(err) != fleet.NotFound:
			return err
		}
	}
	if _, err := cl.PutClass(ctx, c); err != nil {
		return fmt.Errorf("store class %s: %w", c.Name, err)
	}
	fmt.Fprintf(p.stderr, "class/%s: stored; nodes get it with: metalctl node set NODE --class %s\n", c.Name, c.Name)
	return nil
}

func classRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove CLASS", Short: "Remove a class that no node names", Args: exactly("CLASS"), Example: "  metalctl class remove hgx-h200",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if err := cl.RemoveClass(c.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(p.stderr, "class/%s: removed\n", args[0])
			return nil
		},
	}
}
