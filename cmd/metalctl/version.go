package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "development"

// commit returns the revision that the program was built from, or "".
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

func versionVerb(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the program's version", Args: exactly(), Example: "  metalctl version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "metalctl %s %s\n", version, commit())
			return err
		},
	}
}
