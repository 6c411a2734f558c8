//go:build !ramdisk

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fixtures/profiles"
)

// profileRow is a line of `sim profile`.
type profileRow struct {
	Name  string `json:"name"`
	GPUs  int    `json:"gpus"`
	Words string `json:"words"`
}

var profileView = view[profileRow]{
	name: func(r profileRow) string { return "profile/" + r.Name },
	columns: []column[profileRow]{
		{"NAME", false, func(r profileRow) string { return r.Name }},
		{"GPUS", false, func(r profileRow) string { return fmt.Sprint(r.GPUs) }},
		{"WORDS", false, func(r profileRow) string { return r.Words }},
	},
}

func simProfile(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "profile [NAME DIR]", Short: "List the GPU servers that are built in, or write the files of one", Args: noneOr("NAME", "DIR"),
		Long: `Without arguments, profile lists the machines that are built in as data. With a name and a folder it writes what a kernel would show of that machine,
for metalctl agent inspect --fixture DIR; docs/inventory.md has the layout.`,
		Example: "  metalctl sim profile\n  metalctl sim profile hgx-h200 /tmp/h200",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return profiles.Names(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 2 {
				m, err := profiles.Load(args[0])
				if err != nil {
					return err
				}
				if err := m.Materialise(args[1]); err != nil {
					return err
				}
				fmt.Fprintf(p.stderr, "%s is in %s; read it with: metalctl agent inspect --fixture %s\n", m.Name, args[1], args[1])
				return nil
			}
			var rows []profileRow
			for _, name := range profiles.Names() {
				m, err := profiles.Load(name)
				if err != nil {
					return err
				}
				rows = append(rows, profileRow{m.Name, len(m.GPUs()), m.Words})
			}
			return profileView.print(p, rows, false)
		},
	}
}
