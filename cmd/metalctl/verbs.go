//go:build !ramdisk

package main

import "github.com/spf13/cobra"

const ramdiskBuild = false

// addVerbs lists every verb there is.
func addVerbs(root *cobra.Command, p *program) {
	root.AddCommand(
		serverNoun(p), arbiterVerb(p), nodeNoun(p), leaseNoun(p), imageNoun(p), classNoun(p), profileNoun(p), burninNoun(p), siteNoun(p), fabricNoun(p), partitionNoun(p), switchNoun(p), networkNoun(p), schemaVerb(p), operationNoun(p), eventsVerb(p), waitVerb(p),
		freezeNoun(p), thawVerb(p), standbyNoun(p), approveNoun(p), tokenNoun(p),
		bmcNoun(p), ramdiskNoun(p), packNoun(p), simNoun(p), agentNoun(p), configVerb(p), capabilitiesVerb(p), doctorVerb(p), supportBundle(p), versionVerb(p),
	)
	root.SetHelpCommand(helpVerb(p, root))
	addCompletion(root, p)
}
