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

func leaseNoun(p *program) *cobra.Command {
	return noun("lease", "Hand nodes to tenants and take them back", leaseCreate(p), leasePlan(p), leaseList(p), leaseShow(p), leaseExplain(p), leaseExtend(p), leaseReplace(p), leaseRelease(p),
		leaseProtection(p, api.VerbProtect, "Make the lease refuse its release, also at its end"), leaseProtection(p, api.VerbUnprotect, "End the protection of a lease"))
}

var leaseView = view[api.Lease]{
	name: func(l api.Lease) string { return "lease/" + string(l.ID) },
	columns: []column[api.Lease]{
		{"ID", false, func(l api.Lease) string { return string(l.ID) }},
		{"NAME", false, func(l api.Lease) string { return orDash(l.Name) }},
		{"STATE", false, func(l api.Lease) string { return string(l.State) }},
		{"SINCE", false, func(l api.Lease) string { return age(l.Since) }},
		{"NODES", false, func(l api.Lease) string { return membersText(l.Members) }},
		{"IMAGE", false, func(l api.Lease) string { return l.Request.Image }},
		{"UNTIL", false, func(l api.Lease) string {
			if l.Request.Until.IsZero() {
				return "-"
			}
			return l.Request.Until.UTC().Format(time.RFC3339)
		}},
		{"FAULT", true, func(l api.Lease) string { return orDash(l.Fault) }},
		{"ISOLATION", true, func(l api.Lease) string { return l.Isolation }},
	},
}

func membersText(ms []fleet.Member) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Name+":"+string(m.State))
	}
	return strings.Join(out, ",")
}

func leaseList(p *program) *cobra.Command {
	var o api.ListOptions
	c := &cobra.Command{
		Use: "list", Short: "List leases", Args: exactly(), Example: "  metalctl lease list --state active",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			ls, err := cl.Leases(c.Context(), o)
			if err != nil {
				return err
			}
			return leaseView.print(p, ls.Items, false)
		},
	}
	c.Flags().StringVar(&o.State, "state", "", "only leases in this state")
	c.Flags().StringVar(&o.Node, "node", "", "only leases that hold this node")
	return c
}

func leaseExtend(p *program) *cobra.Command {
	var until string
	c := &cobra.Command{
		Use: "extend LEASE --until T", Short: "Give a lease more time, also within its grace", Args: exactly("LEASE"), Example: "  metalctl lease extend training-a --until 48h",
		RunE: func(c *cobra.Command, args []string) error {
			t, err := parseUntil(until, time.Now())
			if err != nil {
				return err
			}
			if t.IsZero() {
				return usageError("lease extend: --until is needed")
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			l, err := cl.ExtendLease(c.Context(), args[0], t)
			if err != nil {
				return err
			}
			return leaseView.print(p, []api.Lease{l}, true)
		},
	}
	c.Flags().StringVar(&until, "until", "", "RFC 3339, or a duration from now")
	return c
}

func leaseRelease(p *program) *cobra.Command {
	var yes, noWait, dryRun bool
	var plan string
	c := &cobra.Command{
		Use: "release LEASE", Short: "End a lease: isolate its nodes, power them off, keep the disks for the grace time", Args: exactly("LEASE"),
		Example: "  metalctl lease release training-a --yes",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if dryRun {
				pl, err := cl.ReleasePlan(c.Context(), args[0])
				if err != nil {
					return err
				}
				return printRelease(p, pl)
			}
			if !yes {
				l, err := cl.Lease(c.Context(), args[0])
				if err != nil {
					return err
				}
				if err := p.confirm(fmt.Sprintf("release lease %s with %s?", l.ID, membersText(l.Members))); err != nil {
					return err
				}
			}
			release := cl.ReleaseLease
			if plan != "" {
				release = func(ctx context.Context, lease string) (api.Lease, error) { return cl.ReleaseLeaseAs(ctx, lease, plan) }
			}
			l, err := release(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !noWait && !l.State.Over() {
				if l, err = followLease(c.Context(), p, cl, l, fleet.LeaseReleased); err != nil {
					return err
				}
			}
			return leaseView.print(p, []api.Lease{l}, true)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not follow the release")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would run on each node, with the digest of all, and change nothing")
	c.Flags().StringVar(&plan, "plan", "", "release exactly as --dry-run printed with this digest, or not at all")
	return c
}

// printRelease prints the plan of each node, then what all of it comes to.
func printRelease(p *program, pl api.LeasePlan) error {
	if p.flags.output != "" && p.flags.output != "table" && p.flags.output != "wide" {
		v := view[api.LeasePlan]{name: func(pl api.LeasePlan) string { return pl.Digest }}
		return v.print(p, []api.LeasePlan{pl}, true)
	}
	for _, n := range pl.Nodes {
		if err := printPlan(p, n.Node, n.Plan); err != nil {
			return err
		}
	}
	name := pl.Name
	if name == "" {
		name = string(pl.Lease)
	}
	then := "the disks are erased at once"
	if pl.GraceSeconds > 0 {
		then = fmt.Sprintf("the disks stay untouched for %s, then they are erased", time.Duration(pl.GraceSeconds)*time.Second)
	}
	if len(pl.Nodes) == 0 {
		then = fmt.Sprintf("it is %s, nothing would run", pl.State)
	}
	_, err := fmt.Fprintf(p.stdout, "lease %s: release of %d nodes; %s; plan %s\n", name, len(pl.Nodes), then, pl.Digest)
	return err
}
