//go:build ramdisk

package main

import "github.com/spf13/cobra"

const ramdiskBuild = true

// addVerbs gives the ramdisk's build the agent's verbs only: server, emulators and client stay out of PID 1.
func addVerbs(root *cobra.Command, p *program) {
	root.AddCommand(agentNoun(p), versionVerb(p))
}
