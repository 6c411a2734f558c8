//go:build !ramdisk

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func leaseShow(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show LEASE", Short: "Show a lease, its members, and what it waits for", Args: exactly("LEASE"), Example: "  metalctl lease show training-a -o yaml",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			l, err := cl.Lease(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !p.readable() {
				return leaseView.print(p, []api.Lease{l}, true)
			}
			e, err := cl.ExplainLease(c.Context(), string(l.ID))
			if err != nil {
				return err
			}
			if err := showLease(p, l); err != nil {
				return err
			}
			return showReasons(p, e.Reasons, time.Now())
		},
	}
}

func showLease(p *program, l api.Lease) error {
	rows := [][]string{{"lease:", string(l.ID) + " " + l.Name}, {"state:", string(l.State) + " since " + l.Since.UTC().Format(time.RFC3339)}, {"image:", l.Request.Image}}
	if l.Isolation == "none" {
		rows = append(rows, []string{"isolation:", "none: nothing separates this lease's nodes from others"})
	} else if l.Isolation == fleet.IsolationInfiniBand {
		rows = append(rows, []string{"isolation:", "infiniband: Ethernet ports that are not listed here are as their switches have them"})
	}
	if l.Fault != "" {
		rows = append(rows, []string{"fault:", printable(l.Fault)})
	}
	if !l.GraceEnds.IsZero() {
		rows = append(rows, []string{"grace ends:", l.GraceEnds.UTC().Format(time.RFC3339)})
	}
	for _, m := range l.Members {
		if m.Image != "" {
			m.Proof = "with image " + m.Image + " " + m.Proof
		}
		rows = append(rows, []string{"member:", printable(fmt.Sprintf("%s %s as %s %s", m.Name, m.State, m.Hostname, m.Proof))})
		if len(m.Addresses) > 0 {
			rows = append(rows, []string{"address:", m.Name + " " + strings.Join(m.Addresses, " ")})
		}
		for _, line := range memberStory(l.Members, m) {
			rows = append(rows, []string{"", printable(line)})
		}
	}
	if l.Request.Partition != "" {
		rows = append(rows, []string{"partition:", l.Request.Partition})
	}
	if l.Request.Network != "" {
		rows = append(rows, []string{"network:", l.Request.Network})
	}
	for _, w := range l.Wires {
		rows = append(rows, wireRows(w)...)
	}
	return printTable(p.stdout, rows)
}

// memberStory says how a member came into the lease and what became of its place.
func memberStory(all []fleet.Member, m fleet.Member) []string {
	var out []string
	if m.Chosen != "" {
		out = append(out, "  chosen: "+m.Chosen)
	}
	if m.Identity != "" {
		out = append(out, "  has the identity of "+m.Identity)
	}
	if m.ReplacedBy != "" {
		by := string(m.ReplacedBy)
		if i := slices.IndexFunc(all, func(x fleet.Member) bool { return x.Node == m.ReplacedBy && !x.Out() }); i >= 0 {
			by = all[i].Name
		}
		why := m.Replaced
		if why == "" {
			why = "as it failed on the way"
		}
		out = append(out, "  replaced by "+by+", "+why)
	}
	if m.Unreplaced != "" {
		out = append(out, "  not replaced: "+m.Unreplaced)
	}
	return out
}

// leaseExplain prints what a lease waits for.
func leaseExplain(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "explain LEASE", Short: "What the lease waits for, since when, until when, and the command that unsticks it", Args: exactly("LEASE"),
		Example: "  metalctl lease explain training-a",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			e, err := cl.ExplainLease(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !p.readable() {
				v := view[api.LeaseExplain]{name: func(e api.LeaseExplain) string { return "lease/" + string(e.Lease) }}
				return v.print(p, []api.LeaseExplain{e}, true)
			}
			fmt.Fprintf(p.stdout, "lease %s is %s since %s\n", firstText(e.Name, string(e.Lease)), e.State, e.Since.UTC().Format(time.RFC3339))
			return showReasons(p, e.Reasons, time.Now())
		},
	}
}
