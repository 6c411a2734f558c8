package main

import (
	"os"

	"github.com/spf13/cobra"
)

// globalFlags are the flags of every verb.
type globalFlags struct {
	server, token, cacert string
	output                string
}

// newRoot builds the whole command tree. It does no work: tests build it, too.
func newRoot(p *program) *cobra.Command {
	root := &cobra.Command{
		Use:   "metalctl",
		Short: "Bare-metal lifecycle for GPU servers",
		Long: `metalctl enrols, inspects, cleans, leases, images and takes back GPU servers, over Redfish and without PXE.
The same program is the fleet server (metalctl server), the CLI, and the agent that nodes boot.`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError("%v\n  try: %s --help", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&p.flags.server, "server", os.Getenv("METALCTL_SERVER"), "address of the fleet server (METALCTL_SERVER)")
	f.StringVar(&p.flags.token, "token-file", os.Getenv("METALCTL_TOKEN_FILE"), "file with the bearer token (METALCTL_TOKEN_FILE, or the token itself in METALCTL_TOKEN)")
	f.StringVar(&p.flags.cacert, "cacert", os.Getenv("METALCTL_CACERT"), "file with the server's CA certificate (METALCTL_CACERT)")
	f.StringVarP(&p.flags.output, "output", "o", "", "table, wide, json, jsonl, yaml, name or csv")
	addVerbs(root, p)
	return root
}

// noun makes a command that only groups verbs.
func noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Annotations: map[string]string{"noun": "yes"},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("%s has no verb %q\n  try: %s --help", c.CommandPath(), args[0], c.CommandPath())
			}
			return c.Help()
		},
	}
	c.AddCommand(verbs...)
	return c
}

// exactly wants n arguments with these names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usageError("%s: %s is missing\n  usage: %s", c.CommandPath(), names[len(args)], c.UseLine())
		}
		if len(args) > len(names) {
			return usageError("%s: one argument too many: %q\n  usage: %s", c.CommandPath(), args[len(names)], c.UseLine())
		}
		return nil
	}
}

// noneOr wants no argument, or exactly these.
func noneOr(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return exactly(names...)(c, args)
	}
}

// some wants at least one argument of that name.
func some(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError("%s: %s is missing\n  usage: %s", c.CommandPath(), name, c.UseLine())
		}
		return nil
	}
}

// must stops on a programmer's mistake: a flag that was looked up a line ago is not there, or is completed twice.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
