//go:build !ramdisk

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

var ramdiskView = view[api.Ramdisk]{
	name: func(r api.Ramdisk) string { return "ramdisk/" + r.Name },
	columns: []column[api.Ramdisk]{
		{"NAME", false, func(r api.Ramdisk) string { return r.Name }},
		{"PROGRAM", false, func(r api.Ramdisk) string { return orDash(r.Program) }},
		{"KERNEL", false, func(r api.Ramdisk) string { return r.Kernel }},
		{"AGE", false, func(r api.Ramdisk) string { return age(r.AddedAt) }},
		{"NODES", false, func(r api.Ramdisk) string { return fmt.Sprint(r.Nodes) }},
		{"BOOTS", false, func(r api.Ramdisk) string { return fmt.Sprint(r.Boots) }},
		{"ARRIVED", false, func(r api.Ramdisk) string { return fmt.Sprint(r.Arrived) }},
		{"DONE", false, func(r api.Ramdisk) string { return fmt.Sprint(r.Done) }},
		{"FAILED", false, func(r api.Ramdisk) string { return fmt.Sprint(r.Failed) }},
		{"BOOTED BY", false, func(r api.Ramdisk) string { return orDash(rolesText(r.Roles)) }},
	},
}

func rolesText(roles []api.RamdiskRole) string {
	var out []string
	for _, r := range roles {
		who := "all that follow"
		if r.Class != "" {
			who = "class " + r.Class
		}
		text := r.Role + ": " + who
		if c := r.Canary; c != nil {
			text = fmt.Sprintf("canary: %d of %s, %d done, %d failed", len(c.Nodes), who, c.Done, c.Failed)
			if c.Stopped != "" {
				text += ", STOPPED: " + printable(c.Stopped)
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func ramdiskList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the boot media that the server has, who boots them, and what became of it", Args: exactly(), Example: "  metalctl ramdisk list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			rs, err := cl.Ramdisks(c.Context())
			if err != nil {
				return err
			}
			return ramdiskView.print(p, rs, false)
		},
	}
}

func ramdiskCanary(p *program) *cobra.Command {
	var in api.RamdiskCanary
	c := &cobra.Command{
		Use: "canary RAMDISK", Short: "Let some nodes boot a ramdisk before the others do",
		Long: `Canary lets one node (or --nodes N, --percent P, or each --node NODE) boot a ramdisk at its next boots, while all others go on with the one
that they have. Nodes that no tenant uses are chosen first; nothing is booted for it. After --stop-after failures (no agent came, or the agent itself
failed) it ends by itself, and its nodes boot the old one again. Promote makes it what all boot, rollback ends it.`,
		Example: "  metalctl ramdisk canary 3f9a1c --class hgx-h200 --nodes 2\n  metalctl ramdisk canary 3f9a1c --percent 5 --auto-after 10",
		Args:    exactly("RAMDISK"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			r, err := cl.CanaryRamdisk(c.Context(), args[0], in)
			if err != nil {
				return err
			}
			return p.printRollout(r, fmt.Sprintf("%d nodes boot ramdisk %s from now on; see: metalctl ramdisk list", len(r.Canary.Nodes), shortDigest(r.Canary.Ramdisk)))
		},
	}
	f := c.Flags()
	f.StringVar(&in.Class, "class", "", "nodes of this class (default: all whose class has no rollout of its own)")
	f.IntVar(&in.Count, "nodes", 0, "how many nodes (default 1)")
	f.IntVar(&in.Percent, "percent", 0, "how many of a hundred nodes")
	f.StringArrayVar(&in.Nodes, "node", nil, "exactly this node; may be given again")
	f.IntVar(&in.StopAfter, "stop-after", 0, "failures after which it ends by itself (default 2)")
	f.IntVar(&in.AutoAfter, "auto-after", 0, "plans that ended well, without a failure before, after which it is promoted by itself (default: never)")
	c.MarkFlagsMutuallyExclusive("nodes", "percent", "node")
	return c
}

func ramdiskPromote(p *program) *cobra.Command {
	var in api.RamdiskPromote
	c := &cobra.Command{
		Use: "promote RAMDISK", Short: "Make a ramdisk what the nodes of a class boot from now on", Args: exactly("RAMDISK"),
		Example: "  metalctl ramdisk promote 3f9a1c\n  metalctl ramdisk promote 3f9a1c --class hgx-h200",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			r, err := cl.PromoteRamdisk(c.Context(), args[0], in)
			if err != nil {
				return err
			}
			return p.printRollout(r, fmt.Sprintf("ramdisk %s is booted from now on; back with: metalctl ramdisk rollback%s", shortDigest(r.Current), classFlag(r.Class)))
		},
	}
	c.Flags().StringVar(&in.Class, "class", "", "nodes of this class (default: all whose class has no rollout of its own)")
	return c
}

func ramdiskRollback(p *program) *cobra.Command {
	var in api.RamdiskPromote
	c := &cobra.Command{
		Use: "rollback", Short: "End a canary, or go back to the ramdisk before", Args: exactly(),
		Example: "  metalctl ramdisk rollback\n  metalctl ramdisk rollback --class hgx-h200",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			r, err := cl.RollbackRamdisk(c.Context(), in)
			if err != nil {
				return err
			}
			return p.printRollout(r, fmt.Sprintf("ramdisk %s is booted from now on", shortDigest(r.Current)))
		},
	}
	c.Flags().StringVar(&in.Class, "class", "", "nodes of this class (default: all whose class has no rollout of its own)")
	return c
}

func classFlag(class string) string {
	if class == "" {
		return ""
	}
	return " --class " + class
}

func shortDigest(sha256 string) string { return fleet.Ramdisk{SHA256: sha256}.Name() }

var rolloutView = view[fleet.Rollout]{
	name: func(r fleet.Rollout) string { return "rollout/" + fleet.RolloutID(r.Class) },
	columns: []column[fleet.Rollout]{
		{"CLASS", false, func(r fleet.Rollout) string { return orDash(r.Class) }},
		{"CURRENT", false, func(r fleet.Rollout) string { return shortDigest(r.Current) }},
		{"PREVIOUS", false, func(r fleet.Rollout) string { return orDash(shortDigest(r.Previous)) }},
	},
}

func (p *program) printRollout(r fleet.Rollout, said string) error {
	if p.flags.output != "" {
		return rolloutView.print(p, []fleet.Rollout{r}, true)
	}
	_, err := fmt.Fprintln(p.stderr, said)
	return err
}
