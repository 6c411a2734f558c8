//go:build !ramdisk

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
)

var burnProfileView = view[fleet.BurnProfile]{
	name: func(p fleet.BurnProfile) string { return "profile/" + p.Name },
	columns: []column[fleet.BurnProfile]{
		{"NAME", false, func(p fleet.BurnProfile) string { return p.Name }},
		{"ORIGIN", false, func(p fleet.BurnProfile) string {
			if slices.Contains(fleet.StandardProfiles, p.Name) {
				return "standard"
			}
			return originSite
		}},
		{"TIME", false, func(p fleet.BurnProfile) string { return shortTime(p.Duration()) }},
		{"ROUNDS", false, func(p fleet.BurnProfile) string { return fmt.Sprint(p.Rounds) }},
		{"OVERWRITES DISKS", false, func(p fleet.BurnProfile) string { return map[bool]string{true: "yes", false: "no"}[p.Destroys()] }},
		{"WHEN", false, func(p fleet.BurnProfile) string { return orDash(p.Doc) }},
		{"STAGES", true, func(p fleet.BurnProfile) string {
			return strings.Join(namesOf(p.Stages, func(s fleet.BurnStage) string { return s.Name }), ",")
		}},
		{"DIGEST", true, fleet.BurnProfile.Digest},
	},
}

// shortTime is a duration without what is zero in it: 5m, 24h, 1h30m.
func shortTime(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func profileNoun(p *program) *cobra.Command {
	return noun("profile", "What a burn-in runs, and for how long", profileList(p), profileShow(p), applyVerb(p, "profile"), profileRemove(p))
}

func profileList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List burn-in profiles: those that ship and the site's own", Args: exactly(), Example: "  metalctl profile list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Profiles(c.Context())
			if err != nil {
				return err
			}
			return burnProfileView.print(p, all, false)
		},
	}
}

func profileShow(p *program) *cobra.Command {
	var asFile bool
	c := &cobra.Command{
		Use: "show PROFILE", Short: "Show a burn-in profile, or print it as a file to change and apply", Args: exactly("PROFILE"),
		Example: "  metalctl profile show handover -o yaml\n  metalctl profile show handover --as-file > ours.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.Profile(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !asFile {
				return burnProfileView.print(p, []fleet.BurnProfile{x}, true)
			}
			j, err := json.Marshal(profileFile{Kind: "Profile", Name: x.Name, Doc: x.Doc, Rounds: x.Rounds, Stages: x.Stages, Limits: x.Limits})
			if err != nil {
				return fmt.Errorf("encode profile %s: %w", x.Name, err)
			}
			y, err := yaml.JSONToYAML(j)
			if err != nil {
				return fmt.Errorf("encode profile %s: %w", x.Name, err)
			}
			_, err = p.stdout.Write(append([]byte(editorLine), y...))
			return err
		},
	}
	c.Flags().BoolVar(&asFile, "as-file", false, "print the file that profile apply takes; give it another name than a standard profile's")
	return c
}

func profileRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove PROFILE", Short: "Remove a burn-in profile of the site's own that no class names", Args: exactly("PROFILE"), Example: "  metalctl profile remove ours",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if err := cl.RemoveProfile(c.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(p.stderr, "profile/%s: removed\n", args[0])
			return nil
		},
	}
}
