//go:build !ramdisk

package main

import (
	"embed"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
)

// schemas describe the files that operators write, for editors; make generate writes them from the Go types that the files are read into.
//
//go:embed schemas/*.json
var schemas embed.FS

// schemaRow is a line of `schema`.
type schemaRow struct {
	Kind  string `json:"kind"`
	Title string `json:"title"`
}

var schemaView = view[schemaRow]{
	name: func(r schemaRow) string { return "schema/" + r.Kind },
	columns: []column[schemaRow]{
		{"KIND", false, func(r schemaRow) string { return r.Kind }},
		{"TITLE", false, func(r schemaRow) string { return r.Title }},
	},
}

func schemaVerb(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "schema [KIND]", Short: "Print the JSON Schema of a kind of file, for editors", Args: noneOr("KIND"),
		Long: `Without an argument, schema lists the kinds of files that people write, and the report that burn-ins make. With one it prints the JSON Schema of that kind: an editor that speaks YAML then completes
and explains keys, and marks what is wrong while it is written. Files name their schema in a comment: # yaml-language-server: $schema=fleet.schema.json`,
		Example: "  metalctl schema\n  metalctl schema fleet > fleet.schema.json",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var kinds []string
			if rows, err := schemaRows(); err == nil && len(args) == 0 {
				kinds = namesOf(rows, func(r schemaRow) string { return r.Kind })
			}
			return kinds, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			rows, err := schemaRows()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return schemaView.print(p, rows, false)
			}
			for _, r := range rows {
				if r.Kind == args[0] {
					b, err := schemas.ReadFile("schemas/" + r.Kind + ".json")
					if err != nil {
						return err
					}
					_, err = p.stdout.Write(b)
					return err
				}
			}
			return fleet.Errorf(fleet.NotFound, "MC-FILE-SCHEMA", "there is no kind of file %q; there are %s", args[0], strings.Join(namesOf(rows, func(r schemaRow) string { return r.Kind }), ", ")).
				WithHint("metalctl schema")
		},
	}
}

func schemaRows() ([]schemaRow, error) {
	files, err := schemas.ReadDir("schemas")
	if err != nil {
		return nil, err
	}
	var rows []schemaRow
	for _, f := range files {
		b, err := schemas.ReadFile("schemas/" + f.Name())
		if err != nil {
			return nil, err
		}
		r := schemaRow{Kind: strings.TrimSuffix(f.Name(), ".json")}
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}
