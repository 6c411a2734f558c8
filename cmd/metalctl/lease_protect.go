//go:build !ramdisk

package main

import (
	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet/api"
)

func leaseProtection(p *program, verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " LEASE", Short: short, Args: exactly("LEASE"), Example: "  metalctl lease " + verb + " training-a",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			l, err := cl.LeaseProtection(c.Context(), args[0], verb)
			if err != nil {
				return err
			}
			return leaseView.print(p, []api.Lease{l}, true)
		},
	}
}
