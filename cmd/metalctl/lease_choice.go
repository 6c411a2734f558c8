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

func leasePlan(p *program) *cobra.Command {
	var o leaseOptions
	c := &cobra.Command{
		Use: "plan (--node N[,N] | --count N --class C) --image I", Short: "Say which nodes a lease would get and why, or what keeps it from any; takes nothing", Args: exactly(),
		Example: "  metalctl lease plan --count 8 --class hgx-h200 --topology same-leaf --image debian-12",
		RunE: func(c *cobra.Command, _ []string) error {
			req, err := o.request()
			if err != nil {
				return err
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			choice, err := cl.PlanLease(c.Context(), req)
			if err != nil {
				return err
			}
			if err := printChoice(p, choice); err != nil {
				return err
			}
			if !choice.Fits {
				return &exitError{code: exitConflict}
			}
			return nil
		},
	}
	o.flags(c.Flags())
	return c
}

// printChoice prints each chosen node with its reason, or what binds and what would make it fit.
func printChoice(p *program, c fleet.Choice) error {
	if !p.readable() {
		v := view[fleet.Choice]{name: func(c fleet.Choice) string {
			return strings.Join(namesOf(c.Chosen, func(x fleet.Pick) string { return "node/" + x.Name }), "\n")
		}}
		return v.print(p, []fleet.Choice{c}, true)
	}
	of := ""
	if c.Class != "" {
		of = fmt.Sprintf(" of class %s; of its %d nodes %d are free", c.Class, c.Considered, c.Free)
	}
	rows := [][]string{{"wanted:", fmt.Sprintf("%d%s", c.Count, of)}}
	for _, x := range c.Chosen {
		rows = append(rows, []string{"chosen:", printable(x.Name + ": " + x.Why)})
	}
	for _, f := range c.Fell {
		more := ""
		if n := f.Count - len(f.Nodes); n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		rows = append(rows, []string{"not " + string(f.Reason) + ":", printable(f.Text + ": " + strings.Join(f.Nodes, ", ") + more)})
	}
	if !c.Fits {
		rows = append(rows, []string{"fits:", "no, nothing would be taken"})
	}
	for _, r := range c.Relaxations {
		text := r.Text
		if r.Command != "" {
			text += ": " + r.Command
		}
		rows = append(rows, []string{"it would fit:", printable(text)})
	}
	return printTable(p.stdout, rows)
}

func leaseReplace(p *program) *cobra.Command {
	var r api.LeaseReplace
	var yes, dryRun, noWait bool
	c := &cobra.Command{
		Use: "replace LEASE --node N [--with M]", Short: "Take a sick node out of a lease and put another into its place", Args: exactly("LEASE"),
		Long: `Replace isolates the node, switches it off and releases it with its faults as they are, and deploys another of its class in its place: the one that is
named, or one that the server chooses near to the others. With --keep-identity the other has the same host name, index and instance id; it is deployed when
the first is separated from the lease, as two machines never answer to one name. What is on the first one's disks stays there for the lease's grace time.`,
		Example: "  metalctl lease replace training-a --node hgx-007 --keep-identity",
		RunE: func(c *cobra.Command, args []string) error {
			if r.Node == "" {
				return usageError("lease replace: --node is needed")
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			if dryRun || !yes {
				s, err := cl.PlanReplace(c.Context(), args[0], r)
				if err != nil {
					return err
				}
				if dryRun {
					return printSwap(p, s)
				}
				if err := p.confirm(fmt.Sprintf("replace %s in lease %s by %s? Its system is switched off", s.Out, args[0], s.In)); err != nil {
					return err
				}
				r.With = s.In
			}
			l, err := cl.ReplaceNode(c.Context(), args[0], r)
			if err != nil {
				return err
			}
			if !noWait {
				if l, err = followSwap(c.Context(), p, cl, l); err != nil {
					return err
				}
			}
			return leaseView.print(p, []api.Lease{l}, true)
		},
	}
	f := c.Flags()
	f.StringVar(&r.Node, "node", "", "the node that goes")
	f.StringVar(&r.With, "with", "", "the node that comes (default: the server chooses)")
	f.BoolVar(&r.KeepIdentity, "keep-identity", false, "the one that comes has the host name, index and instance id of the one that goes")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.BoolVar(&dryRun, "dry-run", false, "print what would be done, and change nothing")
	f.BoolVar(&noWait, "no-wait", false, "do not follow the replacement")
	return c
}

func printSwap(p *program, s api.LeaseSwap) error {
	if !p.readable() {
		v := view[api.LeaseSwap]{name: func(s api.LeaseSwap) string { return "node/" + s.In }}
		return v.print(p, []api.LeaseSwap{s}, true)
	}
	rows := [][]string{{"goes:", s.Out}, {"comes:", s.In + " as " + s.Hostname}}
	for _, x := range s.Choice.Chosen {
		rows = append(rows, []string{"chosen:", printable(x.Why)})
	}
	return printTable(p.stdout, rows)
}

// followSwap follows the node that was put into the lease last, and the one that leaves, until the former is ready or will not be.
func followSwap(ctx context.Context, p *program, cl *api.Client, l api.Lease) (api.Lease, error) {
	in := l.Members[len(l.Members)-1].Node
	f := newFollowing(cl, nil)
	f.lease, f.now, f.again = l.ID, l, true
	since := l.Member(in).Since
	f.shows = func(op api.Operation) bool { return !op.CreatedAt.Before(since) }
	_, l, err := f.run(ctx, p, "metalctl lease show "+string(l.ID), func(_ []api.Operation, l api.Lease) bool {
		m := l.Member(in)
		return m.State == fleet.MemberReady || m.State == fleet.MemberFailed && (m.Out() || m.Unreplaced != "" || l.Request.Count == 0) || l.State.Over() || l.State == fleet.LeaseReleasing
	})
	if m := l.Member(in); err == nil && m.State != fleet.MemberReady {
		err = &exitError{exitNodeFailed, fleet.Errorf(fleet.Broken, "MC-LEASE-FAILED", "%s is %s in lease %s: %s", m.Name, m.State, l.ID, orDash(m.Proof)).WithHint("metalctl lease show %s", l.ID)}
	}
	return l, err
}
