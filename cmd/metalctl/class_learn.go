//go:build !ramdisk

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet/api"
)

type learnOptions struct {
	from          string
	save, replace bool
}

func classLearn(p *program) *cobra.Command {
	var o learnOptions
	c := &cobra.Command{
		Use: "learn [NAME] --from NODE", Short: "Make a class of what a golden node is", Args: noneOr("NAME"),
		Long: `Make a class of what the newest inspection found of a node: numbers and models of parts, memory, links, rails, NUMA places, the firmware and the BIOS that it has,
but no serial number or address, so that its twins match. The class is printed as a file to look at, change and apply; --save stores it at once. Burn-in, erase level,
packs and ramdisk are those of the node's own class. What looks unhealthy is told; a node with a blocking fault is refused.`,
		Example: "  metalctl class learn hgx-h200-r7 --from hgx-001 > hgx-h200-r7.yaml\n  metalctl class learn hgx-h200-r7 --from hgx-001 --save",
		RunE: func(c *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return o.run(c.Context(), p, name)
		},
	}
	f := c.Flags()
	f.StringVar(&o.from, "from", "", "golden node, inspected by its agent and without a blocking fault")
	f.BoolVar(&o.save, "save", false, "store the class instead of printing it")
	f.BoolVar(&o.replace, "replace", false, "with --save: replace the class of that name, to which its nodes are held from then on")
	return c
}

func (o learnOptions) run(ctx context.Context, p *program, name string) error {
	switch {
	case o.from == "":
		return usageError("class learn: --from NODE is needed")
	case o.replace && !o.save:
		return usageError("--replace goes with --save")
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	l, err := cl.LearnClass(ctx, o.from, name)
	if err != nil {
		return err
	}
	for _, d := range l.Suspicions {
		fmt.Fprintf(p.stderr, "look at %s before others are held to it: %s\n", printable(d.Component), printable(d.Words))
	}
	for _, m := range l.Unread {
		fmt.Fprintf(p.stderr, "not read of %s, and not in the class: %s: %s\n", l.Node, printable(m.What), printable(m.Why))
	}
	if o.save {
		return p.storeClass(ctx, cl, l.Class, o.replace)
	}
	switch p.flags.output {
	case "", "yaml":
		return printClassFile(p.stdout, l.Class)
	}
	v := view[api.Learned]{name: func(l api.Learned) string { return "class/" + l.Class.Name }, columns: []column[api.Learned]{
		{"NAME", false, func(l api.Learned) string { return l.Class.Name }},
		{"NODE", false, func(l api.Learned) string { return l.Node }},
		{"SOURCE", false, func(l api.Learned) string { return l.Class.Expect.Source }},
	}}
	return v.print(p, []api.Learned{l}, true)
}
