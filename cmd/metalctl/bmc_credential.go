//go:build !ramdisk

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// bmcCredential sets a new password, which closes the breaker that a wrong one opened, or a new trust.
func bmcCredential(p *program) *cobra.Command {
	var user, passwordFile, pin, caFile string
	var firstUse bool
	set := &cobra.Command{
		Use: "set NODE", Short: "Set the user, password or trust that the server uses at a node's BMC", Args: exactly("NODE"),
		Long: `Set replaces the credential that the server has for a node's BMC; the BMC's own account is not changed. A credential that the BMC once
refused is used again from then on. A BMC that has a new certificate is trusted again with one of --pin, --ca-file and --first-use: it is opened
with reads only, and must be the machine that was enrolled. The password then stays, unless --password-file is given.`,
		Example: `  metalctl bmc credential set hgx-001 --password-file secrets/hgx-001
  metalctl bmc credential set hgx-001 --first-use`,
		RunE: func(c *cobra.Command, args []string) error {
			var patch api.NodePatch
			if c.Flags().Changed("user") {
				patch.User = &user
			}
			if fl := c.Flags(); fl.Changed("pin") || fl.Changed("ca-file") || fl.Changed("first-use") {
				patch.TLS = &fleet.BMCTLS{Pin: pin, FirstUse: firstUse}
				if caFile != "" {
					ca, err := os.ReadFile(caFile)
					if err != nil {
						return fmt.Errorf("read --ca-file: %w", err)
					}
					patch.TLS.CAPEM = string(ca)
				}
			}
			if patch.TLS == nil || passwordFile != "" {
				pw, err := p.askPassword(passwordFile)
				if err != nil {
					return err
				}
				patch.Password = &pw
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			n, err := cl.PatchNode(c.Context(), args[0], patch, 0)
			if err != nil {
				return err
			}
			if firstUse {
				fmt.Fprintf(p.stderr, "%s: pinned at first use: %s\n", args[0], printable(n.BMC.TLS.Pin))
			}
			fmt.Fprintf(p.stderr, "%s: credential set\n", args[0])
			return nil
		},
	}
	set.Flags().StringVar(&user, "user", "", "another user than before")
	set.Flags().StringVar(&passwordFile, "password-file", "", "file with the password (- for standard input; default: ask, unless trust is set)")
	set.Flags().StringVar(&pin, "pin", "", "trust exactly this key from now on: sha256/BASE64")
	set.Flags().StringVar(&caFile, "ca-file", "", "trust certificates of this authority from now on")
	set.Flags().BoolVar(&firstUse, "first-use", false, "pin the key that the BMC shows now")
	return noun("credential", "What the server logs in to BMCs with", set)
}

// askPassword reads a password from a file or, where none is named, from the terminal without showing it.
func (p *program) askPassword(file string) (string, error) {
	if file != "" {
		return p.readSecretFile(file)
	}
	f, ok := p.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", usageError("--password-file is needed where there is no terminal to ask on")
	}
	fmt.Fprint(p.stderr, "password: ")
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(p.stderr)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return string(b), nil
}
