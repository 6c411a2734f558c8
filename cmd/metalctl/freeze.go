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

type freezeOptions struct {
	all, yes               bool
	site, selector, reason string
	freeze                 string
}

func freezeNoun(p *program) *cobra.Command {
	var o freezeOptions
	c := &cobra.Command{
		Use: "freeze [NODE...]", Short: "Stop every write to BMCs, switches and fabrics; reads go on",
		Long: `Freeze stops every write to the outside for everything (--all), a site, the nodes with some labels (-l), or named nodes. A call to a BMC that is under
way ends, and what an agent does at that moment goes on to its end; nothing else begins, the isolation of a release included. It holds over restarts of
the server, until a thaw. What was under way then goes on by itself.`,
		Example: "  metalctl freeze --all --reason 'switch upgrade in row 3'\n  metalctl freeze -l rack=r7 --reason 'smoke'\n  metalctl freeze status",
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, args) },
	}
	f := c.Flags()
	f.BoolVar(&o.all, "all", false, "everything")
	f.StringVar(&o.site, "site", "", "the nodes whose label \"site\" is this")
	f.StringVarP(&o.selector, "selector", "l", "", "the nodes with these labels, such as rack=r7,row=2")
	f.StringVar(&o.reason, "reason", "", "why, for whoever finds it")
	c.AddCommand(freezeStatus(p))
	return c
}

func (o *freezeOptions) run(ctx context.Context, p *program, args []string) error {
	names, err := expandHosts(args)
	if err != nil {
		return err
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	f, err := cl.Freeze(ctx, api.FreezeCreate{All: o.all, Site: o.site, Selector: o.selector, Nodes: names, Reason: o.reason})
	if err != nil {
		return err
	}
	if p.flags.output != "" {
		return freezeView.print(p, []api.FreezeView{f}, true)
	}
	_, err = fmt.Fprintf(p.stderr, "frozen: %s, %d nodes now: %s\n", f.What(), f.Covered, printable(f.Reason))
	return err
}

var freezeView = view[api.FreezeView]{
	name: func(f api.FreezeView) string { return "freeze/" + string(f.ID) },
	columns: []column[api.FreezeView]{
		{"ID", false, func(f api.FreezeView) string { return string(f.ID) }},
		{"WHAT", false, func(f api.FreezeView) string { return f.What() }},
		{"NODES", false, func(f api.FreezeView) string { return fmt.Sprint(f.Covered) }},
		{"SINCE", false, func(f api.FreezeView) string { return age(f.Since) }},
		{"BY", false, func(f api.FreezeView) string { return f.By }},
		{"SOURCE", false, func(f api.FreezeView) string { return string(f.Source) }},
		{"REASON", false, func(f api.FreezeView) string { return f.Reason }},
	},
}

func freezeStatus(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "What is frozen, by whom and why", Args: exactly(), Example: "  metalctl freeze status",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			st, err := cl.FreezeStatus(c.Context())
			if err != nil {
				return err
			}
			return printFreezes(p, st)
		},
	}
}

func printFreezes(p *program, st api.FreezeStatus) error {
	if err := freezeView.print(p, st.Freezes, false); err != nil {
		return err
	}
	if p.flags.output != "" {
		return nil
	}
	_, err := fmt.Fprintf(p.stderr, "%d of %d nodes are frozen\n", len(st.Frozen), st.Nodes)
	return err
}

func thawVerb(p *program) *cobra.Command {
	var o freezeOptions
	c := &cobra.Command{
		Use: "thaw [NODE...]", Short: "End freezes, or let nodes out of them one by one",
		Long: `Thaw ends every freeze (--all), one of them (--freeze), or lets nodes out of whatever freeze covers them, while it goes on for the others. What waited for
the thaw goes on at once.`,
		Example: "  metalctl thaw hgx-001 --reason 'looked at it: store and world agree'\n  metalctl thaw --all --reason 'switch upgrade is done'",
		RunE:    func(c *cobra.Command, args []string) error { return o.thaw(c.Context(), p, args) },
	}
	f := c.Flags()
	f.BoolVar(&o.all, "all", false, "end every freeze")
	f.StringVar(&o.freeze, "freeze", "", "end this freeze, by its id")
	f.StringVarP(&o.selector, "selector", "l", "", "let out the nodes that these labels select")
	f.StringVar(&o.reason, "reason", "", "why the reason of the freeze is gone")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	return c
}

func (o *freezeOptions) thaw(ctx context.Context, p *program, args []string) error {
	names, err := expandHosts(args)
	if err != nil {
		return err
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	if o.selector != "" {
		l, err := cl.Nodes(ctx, api.ListOptions{Selector: o.selector})
		if err != nil {
			return err
		}
		if len(l.Items) == 0 {
			return fleet.Errorf(fleet.NotFound, "", "no node has %s", o.selector).WithHint("metalctl node list -l %s", o.selector)
		}
		for _, n := range l.Items {
			names = append(names, n.Name)
		}
	}
	if o.all && !o.yes {
		st, err := cl.FreezeStatus(ctx)
		if err != nil {
			return err
		}
		for _, f := range st.Freezes {
			fmt.Fprintf(p.stderr, "%s, frozen %s ago by %s (%s): %s\n", f.What(), age(f.Since), f.By, f.Source, printable(f.Reason))
		}
		if err := p.confirm(fmt.Sprintf("thaw all %d frozen nodes?", len(st.Frozen))); err != nil {
			return err
		}
	}
	st, err := cl.Thaw(ctx, api.Thaw{All: o.all, Freeze: fleet.FreezeID(strings.TrimPrefix(o.freeze, "freeze/")), Nodes: names, Reason: o.reason})
	if err != nil {
		return err
	}
	return printFreezes(p, st)
}
