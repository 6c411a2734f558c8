//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func nodeNoun(p *program) *cobra.Command {
	c := noun("node", "Enrol, inspect, clean and hand out machines",
		nodeEnroll(p), nodeList(p), nodeShow(p), nodeInventory(p), nodeBaseboard(p), nodeTopology(p), nodePlan(p), nodeTimeline(p), nodeHistory(p), nodeExplain(p), nodeCleaning(p),
		nodePower(p), nodeForget(p), nodeSet(p))
	c.AddCommand(nodeVerbs(p)...)
	return c
}

var nodeView = view[api.Node]{
	name: func(n api.Node) string { return "node/" + n.Name },
	columns: []column[api.Node]{
		{"NAME", false, func(n api.Node) string { return n.Name }},
		{"STATE", false, func(n api.Node) string { return string(n.State) }},
		{"SINCE", false, func(n api.Node) string { return age(n.StateSince) }},
		{"CLASS", false, func(n api.Node) string { return n.Class }},
		{"LEASE", false, func(n api.Node) string { return short(string(n.Lease)) }},
		{"DIRTY", false, func(n api.Node) string { return short(string(n.Dirty)) }},
		{"AGENT", false, func(n api.Node) string { return n.Agent }},
		{"FAULTS", false, func(n api.Node) string { return faultsText(n.Faults) }},
		{"HOLD", true, func(n api.Node) string {
			if n.Hold == nil {
				return ""
			}
			return n.Hold.By + ": " + n.Hold.Reason
		}},
		{"ISOLATION", true, func(n api.Node) string { return n.Isolation }},
		{"BMC", true, func(n api.Node) string { return n.BMC.Address }},
		{"MODEL", true, func(n api.Node) string { return strings.TrimSpace(n.BMC.Vendor + " " + n.BMC.Model) }},
		{"ID", true, func(n api.Node) string { return string(n.ID) }},
	},
}

func faultsText(fs []fleet.Fault) string {
	if len(fs) == 0 {
		return "-"
	}
	s := fs[0].Code
	if len(fs) > 1 {
		s += fmt.Sprintf(" +%d", len(fs)-1)
	}
	return s
}

// short cuts a UUID to its last eight digits, which differ; other texts stay.
func short(id string) string {
	if len(id) == 36 {
		return id[28:]
	}
	if id == "" {
		return "-"
	}
	return id
}

func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func nodeList(p *program) *cobra.Command {
	var o api.ListOptions
	var state string
	c := &cobra.Command{
		Use: "list", Short: "List nodes", Args: exactly(),
		Example: "  metalctl node list -l rack=r7 -o wide",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			o.State = state
			all, err := cl.Nodes(c.Context(), o)
			if err != nil {
				return err
			}
			return nodeView.print(p, all.Items, false)
		},
	}
	c.Flags().StringVarP(&o.Selector, "selector", "l", "", "only nodes with these labels (key=value,…)")
	c.Flags().StringVar(&state, "state", "", "only nodes in this state")
	c.Flags().StringVar(&o.Class, "class", "", "only nodes of this class")
	return c
}

func nodeShow(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show NODE", Short: "Show a node: state, facts, faults, what it takes next", Args: exactly("NODE"),
		Example: "  metalctl node show hgx-001",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			n, err := cl.Node(c.Context(), args[0])
			if err != nil {
				return err
			}
			if p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide" {
				return nodeView.print(p, []api.Node{n}, true)
			}
			return showNode(p, n)
		},
	}
}

func showNode(p *program, n api.Node) error {
	var rows [][]string
	add := func(k, format string, args ...any) {
		rows = append(rows, []string{k + ":", printable(fmt.Sprintf(format, args...))})
	}
	add("name", "%s (%s)", n.Name, n.ID)
	add("state", "%s since %s", n.State, n.StateSince.UTC().Format(time.RFC3339))
	add("class", "%s", orDash(n.Class))
	if n.Simulated {
		add("simulated", "the machine is of a simulated rack; its GPUs may be made up")
	}
	switch n.Dirty {
	case "":
		add("data", "clean")
	case fleet.DirtyUnknown:
		add("data", "unknown: the disks may hold anything until they were cleaned")
	default:
		add("data", "dirty: may hold data of lease %s", n.Dirty)
	}
	if n.Cleaned != "" {
		add("cleaned", "%s", n.Cleaned)
	}
	switch n.Isolation {
	case "none":
		add("isolation", "none: the site hands nodes out without a network driver; nothing separates tenants")
	default:
		add("isolation", "%s%s", n.Isolation, unmanagedText(n))
	}
	if n.Wires != nil {
		rows = append(rows, wireRows(*n.Wires)...)
	}
	add("lease", "%s", orDash(string(n.Lease)))
	add("agent", "%s", n.Agent)
	add("bmc", "%s as %s (%s %s, firmware %s, quirks %s)", n.BMC.Address, n.BMC.User, n.BMC.Vendor, n.BMC.Model, orDash(n.BMC.Firmware), orDash(n.BMC.Quirk))
	add("boots by", "%s", orDash(n.BMC.BootMethod))
	if n.Boot.Ramdisk != "" {
		add("ramdisk", "%s (%s)", shortDigest(n.Boot.Ramdisk), orDash(n.Boot.Program))
	}
	if n.Boot.Refused != "" {
		add("refused", "%s", n.Boot.Refused)
	}
	if n.Boot.Unauthenticated {
		add("boot path", "unauthenticated: plain http, or a BMC that does not verify the server, without Secure Boot")
	}
	if n.Breaker != "" {
		add("credential", "not used: %s", n.Breaker)
	}
	if n.Hold != nil {
		add("hold", "by %s since %s: %s", n.Hold.By, n.Hold.Since.UTC().Format(time.RFC3339), n.Hold.Reason)
	}
	if f := n.Frozen; f != nil {
		add("frozen", "since %s by %s (%s): %s", f.Since.UTC().Format(time.RFC3339), f.By, f.Source, f.Reason)
	}
	if n.Protected {
		add("protected", "yes: refuses release, rebuild, erase and power-off")
	}
	if n.Waits != "" {
		add("waits for", "%s", n.Waits)
	}
	for _, d := range n.WouldErase {
		add("would erase", "%s  %s  %s", d.Serial, bytesText(d.SizeBytes), d.Model)
	}
	for _, d := range n.Accepted {
		add("may erase", "%s  %s  %s", d.Serial, bytesText(d.SizeBytes), d.Model)
	}
	for _, f := range n.Faults {
		add("fault", "%s %s (%s, blocks %s, seen %d): %s", f.Code, f.Component, f.Severity, f.Blocks, f.Seen, f.Evidence)
		if f.Hint != "" {
			add("", "try: %s", fleet.HintFor(f.Hint, n.Name))
		}
	}
	verbs := make([]string, len(n.Verbs))
	for i, v := range n.Verbs {
		verbs[i] = string(v)
	}
	add("takes", "%s", orDash(strings.Join(verbs, ", ")))
	return printTable(p.stdout, rows)
}

func nodeForget(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "forget NODE...", Short: "Drop a node's record; the machine is not touched", Args: some("NODE"),
		Example: "  metalctl node forget hgx-001",
		RunE: func(c *cobra.Command, args []string) error {
			return p.eachNode(c.Context(), args, func(ctx context.Context, cl *api.Client, name string) error {
				if err := cl.ForgetNode(ctx, name); err != nil {
					return err
				}
				_, err := fmt.Fprintf(p.stderr, "%s: forgotten\n", name)
				return err
			})
		},
	}
}

// eachNode does one thing to many nodes and gives a result line for each that failed; exit code 8 where only some did.
func (p *program) eachNode(ctx context.Context, lists []string, do func(context.Context, *api.Client, string) error) error {
	names, err := expandHosts(lists)
	if err != nil {
		return err
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	if len(names) == 1 {
		return do(ctx, cl, names[0])
	}
	failed := 0
	for _, name := range names {
		if err := do(ctx, cl, name); err != nil {
			failed++
			fmt.Fprintf(p.stderr, "%s: ", name)
			printError(p.stderr, err)
		}
	}
	switch failed {
	case 0:
		return nil
	case len(names):
		return fmt.Errorf("all %d nodes failed", failed)
	}
	return &exitError{exitSomeFailed, fmt.Errorf("%d of %d nodes failed", failed, len(names))}
}
