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

func approveNoun(p *program) *cobra.Command {
	return noun("approve", "Let a second person decide about harm to many nodes", approveList(p),
		approveDecide(p, "grant", "Let exactly what was asked happen; with another token than it was asked with"), approveDecide(p, "deny", "Refuse what was asked"))
}

var approvalView = view[fleet.Approval]{
	name: func(a fleet.Approval) string { return "approval/" + string(a.ID) },
	columns: []column[fleet.Approval]{
		{"ID", false, func(a fleet.Approval) string { return string(a.ID) }},
		{"STATE", false, func(a fleet.Approval) string { return string(a.State) }},
		{"ACT", false, func(a fleet.Approval) string { return a.Act }},
		{"NODES", false, func(a fleet.Approval) string { return namesText(a.Names, 8) }},
		{"ASKED", false, func(a fleet.Approval) string { return age(a.AskedAt) }},
		{"BY", false, func(a fleet.Approval) string { return a.AskedBy }},
		{"EXPIRES", false, func(a fleet.Approval) string { return a.Expires.UTC().Format(time.RFC3339) }},
		{"DECIDED", true, func(a fleet.Approval) string { return orDash(a.DecidedBy) }},
		{"REASON", true, func(a fleet.Approval) string { return orDash(a.Reason) }},
		{"WHY", true, func(a fleet.Approval) string { return a.Why }},
		{"DIGEST", true, func(a fleet.Approval) string { return a.Digest }},
	},
}

func namesText(names []string, most int) string {
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ","), len(names)-most)
	}
	return strings.Join(names, ",")
}

func approveList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "What waits for a second person, and what was decided", Args: exactly(), Example: "  metalctl approve list -o wide",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Approvals(c.Context())
			if err != nil {
				return err
			}
			return approvalView.print(p, all, false)
		},
	}
}

func approveDecide(p *program, verb, short string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: verb + " APPROVAL...", Short: short, Args: some("APPROVAL"), Example: "  METALCTL_TOKEN_FILE=~/.config/metalctl/bob.token metalctl approve " + verb + " 0199a7c2-5b1e-7c3a-9d04-8f6f0f6f1a10",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			var done []fleet.Approval
			for _, id := range args {
				a, err := cl.Decide(c.Context(), fleet.ApprovalID(strings.TrimPrefix(id, "approval/")), verb, reason)
				if err != nil {
					return fmt.Errorf("%s %s: %w", verb, id, err)
				}
				done = append(done, a)
			}
			return approvalView.print(p, done, len(done) == 1)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why")
	return c
}

// leave asks, before the first of several nodes is touched, whether all of them may be.
func leave(ctx context.Context, cl *api.Client, l api.Leave) error {
	if len(l.Nodes) < 2 {
		return nil
	}
	return cl.AskLeave(ctx, l)
}

func tokenNoun(p *program) *cobra.Command {
	var role string
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a token for a person, or for a second server; it is printed once and kept nowhere", Args: exactly("NAME"),
		Example: "  metalctl token create bob > bob.token\n  metalctl token create mc2 --role standby > standby.token",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			t, err := cl.CreateToken(c.Context(), api.TokenCreate{Name: args[0], Role: role})
			if err != nil {
				return err
			}
			if p.flags.output != "" {
				return tokenView.print(p, []api.Token{t}, true)
			}
			_, err = fmt.Fprintln(p.stdout, t.Secret)
			return err
		},
	}
	create.Flags().StringVar(&role, "role", "", "standby: for a second server, which reads the whole store with it and can do nothing else")
	list := &cobra.Command{
		Use: "list", Short: "List named tokens", Args: exactly(), Example: "  metalctl token list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Tokens(c.Context())
			if err != nil {
				return err
			}
			return tokenView.print(p, all, false)
		},
	}
	revoke := &cobra.Command{
		Use: "revoke NAME", Short: "End a token at once", Args: exactly("NAME"), Example: "  metalctl token revoke bob",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if err := cl.RevokeToken(c.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stderr, "token %s is revoked\n", args[0])
			return err
		},
	}
	return noun("token", "Tokens of people, besides the admin token", create, list, revoke)
}

var tokenView = view[api.Token]{
	name: func(t api.Token) string { return "token/" + t.Name },
	columns: []column[api.Token]{
		{"NAME", false, func(t api.Token) string { return t.Name }},
		{"CREATED", false, func(t api.Token) string { return age(t.CreatedAt) }},
		{"BY", false, func(t api.Token) string { return t.CreatedBy }},
		{"ROLE", true, func(t api.Token) string { return t.Role }},
	},
}
