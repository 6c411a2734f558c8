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

// faultRow is a line of `sim profile --faults`.
type faultRow struct {
	Name  string `json:"name"`
	At    string `json:"at"`
	Words string `json:"words"`
}

var faultView = view[faultRow]{
	name: func(r faultRow) string { return "fault/" + r.Name },
	columns: []column[faultRow]{
		{"NAME", false, func(r faultRow) string { return r.Name }},
		{"AT", false, func(r faultRow) string { return r.At }},
		{"WORDS", false, func(r faultRow) string { return r.Words }},
	},
}

func simProfile(p *program) *cobra.Command {
	var faults bool
	c := &cobra.Command{
		Use: "profile [NAME DIR]", Short: "List the GPU servers that are built in, or write the files of one", Args: noneOr("NAME", "DIR"),
		Long: `Without arguments, profile lists the machines that are built in as data. With a name and a folder it writes what a kernel would show of that machine,
for metalctl agent inspect --fixture DIR; docs/inventory.md has the layout. --faults lists the faults that are built in, for agent inspect --fault NAME.`,
		Example: "  metalctl sim profile\n  metalctl sim profile hgx-h200 /tmp/h200\n  metalctl sim profile --faults",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return profiles.Names(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if faults {
				if len(args) > 0 {
					return usageError("sim profile: --faults lists; it takes no arguments")
				}
				return listFaults(p)
			}
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
	c.Flags().BoolVar(&faults, "faults", false, "list the faults that are built in")
	return c
}

func listFaults(p *program) error {
	var rows []faultRow
	for _, name := range profiles.FaultNames() {
		f, err := profiles.ReadFaults(name)
		if err != nil {
			return err
		}
		for _, x := range f.Faults {
			rows = append(rows, faultRow{name, x.At, x.Words})
		}
	}
	return faultView.print(p, rows, false)
}
