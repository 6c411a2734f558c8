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

func standbyNoun(p *program) *cobra.Command {
	return noun("standby", "A second server that follows the first one and can take over from it", standbyStatus(p), standbyPromote(p), standbyForget(p))
}

// secondsText is a number of seconds for people.
func secondsText(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// byRight says by what right a server acts, or would.
func byRight(s api.Standby) string {
	a := s.Arbiter
	if a == nil {
		return ""
	}
	var by []string
	switch {
	case s.Role == string(fleet.RoleFollows) && a.Automatic:
		return "itself"
	case s.Role == string(fleet.RoleFollows) || s.Role == string(fleet.RoleRetired):
		return "command"
	case !a.Needed:
		return "no other"
	}
	if a.TermSeconds > 0 {
		by = append(by, fmt.Sprintf("term %d", a.Term))
	}
	if a.PromiseSeconds > 0 {
		by = append(by, "promise")
	}
	if by == nil {
		return "nothing"
	}
	return strings.Join(by, ", ")
}

var standbyView = view[api.Standby]{
	name: func(s api.Standby) string { return "standby/" + s.Role },
	columns: []column[api.Standby]{
		{"SERVER", false, func(s api.Standby) string { return s.URL }},
		{"ROLE", false, func(s api.Standby) string { return s.Role }},
		{"REVISION", false, func(s api.Standby) string { return fmt.Sprint(s.Revision) }},
		{"GENERATION", false, func(s api.Standby) string { return fmt.Sprint(s.Generation) }},
		{"OTHER", false, func(s api.Standby) string { return s.Peer }},
		{"IN TOUCH", false, func(s api.Standby) string {
			switch {
			case s.Peer == "":
				return ""
			case s.Connected:
				return "yes"
			case s.SilentSeconds > 0:
				return "not for " + secondsText(s.SilentSeconds)
			}
			return "no"
		}},
		{"BEHIND", false, func(s api.Standby) string {
			if s.Peer == "" || s.Role != string(fleet.RoleFollows) && s.Role != fleet.RoleActs.Word() {
				return ""
			}
			return fmt.Sprintf("%d revisions, %s", s.LagRevisions, secondsText(s.LagSeconds))
		}},
		{"BY", false, byRight},
		{"HANDS OFF", true, func(s api.Standby) string {
			if s.HandsOffSeconds == 0 {
				return ""
			}
			return secondsText(s.HandsOffSeconds)
		}},
		{"ARBITER", true, func(s api.Standby) string {
			if s.Arbiter == nil {
				return ""
			}
			return s.Arbiter.URL
		}},
		{"EPOCH", true, func(s api.Standby) string { return s.Epoch }},
		{"WHY", true, func(s api.Standby) string { return s.Why }},
		{"PROBLEM", true, func(s api.Standby) string { return s.Problem }},
	},
}

func standbyStatus(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Which of two servers this is, and how far the one that follows is behind", Args: exactly(),
		Long: `Status asks one server: the one that acts, or the one that follows it, which --server names. ROLE is acts, follows, retired (another one took over from
it), unsure (it does not know whether another one did, and does nothing until it does) or fenced (neither the arbiter nor its standby lets it act). With an
arbiter BY says by what right a server acts: its term, the standby's promise, or no other server that could; and by what one that follows would take over.`,
		Example: "  metalctl standby status\n  metalctl standby status --server https://mc2:8443",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			s, err := cl.Standby(c.Context())
			if err != nil {
				return err
			}
			if err := standbyView.print(p, []api.Standby{s}, true); err != nil {
				return err
			}
			if p.flags.output == "" {
				for _, line := range standbyWords(s) {
					fmt.Fprintln(p.stderr, printable(line))
				}
			}
			return nil
		},
	}
}

// standbyWords says what an operator should know beyond the table.
func standbyWords(s api.Standby) []string {
	var out []string
	if s.Why != "" {
		out = append(out, s.Why)
	}
	if s.HandsOffSeconds > 0 {
		out = append(out, fmt.Sprintf("nothing is written to BMCs for another %s: the server before may still be speaking to them", secondsText(s.HandsOffSeconds)))
	}
	if a := s.Arbiter; a != nil && !a.Reached && s.Role != string(fleet.RoleRetired) {
		out = append(out, fmt.Sprintf("the arbiter %s has not answered for %s: nobody takes over by itself", a.URL, secondsText(a.SilentSeconds)))
	}
	if s.Problem != "" {
		out = append(out, s.Problem)
		if s.Code != "" {
			out = append(out, "  see: metalctl help "+s.Code)
		}
	}
	return out
}

func standbyPromote(p *program) *cobra.Command {
	var force, yes bool
	c := &cobra.Command{
		Use: "promote", Short: "Let the server that follows take over", Args: exactly(),
		Long: `Promote is said to the server that follows, which --server names. It asks the other one to step down: that one lets its calls to BMCs end, takes nothing
more and never acts again by itself; this one takes over its last commit and acts. Nothing is lost.

With --force the other one is not asked, and must not answer. Its machine must be off, or its process stopped for certain: no program can tell a server that
is dead from one behind a cut cable. What it committed after the last that came here is lost ("metalctl standby status" says what was heard). For a minute
after that nothing is written to BMCs, because its last calls may still run there; agents go on meanwhile.`,
		Example: "  metalctl standby promote --server https://mc2:8443\n  metalctl standby promote --force --server https://mc2:8443",
		RunE: func(c *cobra.Command, _ []string) error {
			return promoteStandby(c.Context(), p, force, yes)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "the other server is off for certain: take over without it")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func promoteStandby(ctx context.Context, p *program, force, yes bool) error {
	cl, err := p.client()
	if err != nil {
		return err
	}
	before, err := cl.Standby(ctx)
	if err != nil {
		return err
	}
	if force {
		lost := fmt.Sprintf("It was last heard of %s ago, at revision %d; this server is at %d. What it committed since is lost.",
			secondsText(before.SilentSeconds), before.PeerRevision, before.Revision)
		if before.Role != string(fleet.RoleFollows) {
			lost = "This server does not follow it: what it did since is not known here."
		}
		text := fmt.Sprintf("%s\ntaking over from %s without asking it, as that machine is off for certain,", lost, before.Peer)
		if !yes {
			if err := p.confirm(text); err != nil {
				return err
			}
		}
	}
	if _, err := cl.Promote(ctx, api.Promote{Force: force}); err != nil {
		return err
	}
	// The same address answers as the server a moment later.
	var after api.Standby
	for end := time.Now().Add(2 * time.Minute); ; {
		if after, err = cl.Standby(ctx); err == nil && after.Role == fleet.RoleActs.Word() || ctx.Err() != nil || time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	if err != nil {
		return err
	}
	if p.flags.output != "" {
		return standbyView.print(p, []api.Standby{after}, true)
	}
	fmt.Fprintf(p.stderr, "%s acts, at revision %d, generation %d\n", after.URL, after.Revision, after.Generation)
	for _, line := range standbyWords(after) {
		fmt.Fprintln(p.stderr, printable(line))
	}
	return nil
}

func standbyForget(p *program) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "forget", Short: "Let the server forget the one that follows it", Args: exactly(), Example: "  metalctl standby forget",
		Long: `Forget is said to the server that acts, where the one that follows it is gone for good or another one shall take its place. Agents' next credentials do
not name it any more. Revoke its token, too: metalctl token revoke NAME`,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			s, err := cl.Standby(c.Context())
			if err != nil {
				return err
			}
			if !yes {
				if err := p.confirm(fmt.Sprintf("forgetting %s, which has surely not taken over,", s.Peer)); err != nil {
					return err
				}
			}
			if err := cl.ForgetStandby(c.Context()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stderr, "%s is forgotten\n", s.Peer)
			return err
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}
