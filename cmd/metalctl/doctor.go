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

func doctorVerb(p *program) *cobra.Command {
	var world bool
	c := &cobra.Command{
		Use: "doctor [--world]", Short: "How the server does; with --world, what its store believes against what is", Args: exactly(),
		Long: `Doctor looks at the server: space on its disks, its clock and this machine's, its certificate, the age and soundness of its backups, its witness, BMCs
whose credential is refused, and freezes. Exit code 0: all is well; 9: something is not, each with a hint; 10: something could not be told.

With --world it compares the store with the world: every BMC is read once, and so are the logs outside that testify. It lists exactly the nodes that
differ (boot generation, handovers to tenants, power, media, agent), and those of which nobody can tell. Nothing is written. Exit code 0: store and
world agree; 9: they differ; 10: it could not be told.`,
		Example: "  metalctl doctor\n  metalctl doctor --world -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if world {
				w, err := cl.World(c.Context())
				if err != nil {
					return err
				}
				return reportWorld(p, w)
			}
			d, err := examine(c.Context(), cl)
			if err != nil {
				return err
			}
			return reportDoctor(p, d)
		},
	}
	c.Flags().BoolVar(&world, "world", false, "compare the store with BMCs, agents and the witness")
	return c
}

// examine asks the server and adds what only this side can see.
func examine(ctx context.Context, cl *api.Client) (api.Doctor, error) {
	asked := time.Now()
	d, err := cl.Doctor(ctx)
	if err != nil {
		return d, err
	}
	if off := d.At.Sub(asked.Add(time.Since(asked) / 2)); off > 30*time.Second || off < -30*time.Second {
		d.Findings = append(d.Findings, api.Finding{Check: "clock", Level: api.LevelWarning,
			Text: fmt.Sprintf("the server's clock is %s from this machine's", off.Round(time.Second)), Hint: "look at NTP on both: timedatectl"})
	}
	return d, nil
}

var findingView = view[api.Finding]{name: func(f api.Finding) string { return "doctor/" + f.Check }, columns: []column[api.Finding]{
	{"CHECK", false, func(f api.Finding) string { return f.Check }},
	{"LEVEL", false, func(f api.Finding) string { return f.Level }},
	{"FINDING", false, func(f api.Finding) string { return f.Text }},
	{"TRY", false, func(f api.Finding) string { return f.Hint }},
}}

func reportDoctor(p *program, d api.Doctor) error {
	if p.flags.output == "json" || p.flags.output == "yaml" {
		v := view[api.Doctor]{name: func(api.Doctor) string { return "doctor" }}
		if err := v.print(p, []api.Doctor{d}, true); err != nil {
			return err
		}
	} else if err := findingView.print(p, d.Findings, false); err != nil {
		return err
	}
	bad, unsure := 0, 0
	for _, f := range d.Findings {
		switch f.Level {
		case api.LevelWarning, api.LevelCritical:
			bad++
		case api.LevelUnknown:
			unsure++
		}
	}
	switch {
	case bad > 0:
		return &exitError{exitDiffers, fmt.Errorf("not well: %d of %d checks", bad, len(d.Findings))}
	case unsure > 0:
		return &exitError{exitUnsure, fmt.Errorf("%d of %d checks could not tell", unsure, len(d.Findings))}
	}
	return nil
}

// worldRow is one line of the table: a node and one thing in which it differs.
type worldRow struct {
	node                     api.WorldNode
	what, store, world, text string
}

func rowsOf(w api.World) []worldRow {
	var rows []worldRow
	for _, n := range w.Nodes {
		for _, d := range n.Differences {
			rows = append(rows, worldRow{n, d.What, d.Store, d.World, d.Text})
		}
		for _, u := range n.Unknown {
			rows = append(rows, worldRow{n, "unknown", "-", "-", u})
		}
	}
	return rows
}

var worldView = view[worldRow]{name: func(r worldRow) string { return "node/" + r.node.Name }, columns: []column[worldRow]{
	{"NODE", false, func(r worldRow) string { return r.node.Name }},
	{"STATE", false, func(r worldRow) string { return string(r.node.State) }},
	{"FROZEN", false, func(r worldRow) string {
		if r.node.Frozen {
			return "yes"
		}
		return "no"
	}},
	{"DIFFERS", false, func(r worldRow) string { return r.what }},
	{"STORE", false, func(r worldRow) string { return r.store }},
	{"WORLD", false, func(r worldRow) string { return r.world }},
	{"WHY", false, func(r worldRow) string { return r.text }},
}}

func reportWorld(p *program, w api.World) error {
	if p.flags.output == "json" || p.flags.output == "yaml" {
		v := view[api.World]{name: func(api.World) string { return "world" }}
		if err := v.print(p, []api.World{w}, true); err != nil {
			return err
		}
	} else if rows := rowsOf(w); len(rows) > 0 {
		if err := worldView.print(p, rows, false); err != nil {
			return err
		}
	}
	differ, unsure := len(w.Strangers), 0
	for _, n := range w.Nodes {
		if len(n.Differences) > 0 {
			differ++
		} else {
			unsure++
		}
	}
	for _, s := range w.Strangers {
		fmt.Fprintf(p.stderr, "not in the store: %s\n", printable(s))
	}
	fmt.Fprintf(p.stderr, "%d nodes compared, %d agree; witness %s: %s\n", w.Compared, w.Agree, w.Witness, printable(w.WitnessText))
	if len(w.NotCompared) > 0 {
		fmt.Fprintf(p.stderr, "not compared: %s\n", strings.Join(w.NotCompared, "; "))
	}
	switch {
	case differ > 0:
		return &exitError{exitDiffers, fmt.Errorf("store and world differ in %d nodes", differ)}
	case w.Witness == fleet.Stale:
		return &exitError{exitDiffers, fmt.Errorf("the store is older than its witness")}
	case unsure > 0:
		return &exitError{exitUnsure, fmt.Errorf("of %d nodes nobody can tell", unsure)}
	}
	return nil
}
