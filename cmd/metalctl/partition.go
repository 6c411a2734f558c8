//go:build !ramdisk

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// partitionFile is kind Partition of a fleet file.
type partitionFile struct {
	Kind string `json:"kind" enum:"Partition" required:"true"`
	Name string `json:"name" required:"true"`
	// Keys are the fabrics that it is in; a key that is left out is chosen of the fabric's range.
	Keys []fleet.FabricKey `json:"keys" required:"true"`
}

var partitionView = view[api.Partition]{
	name: func(x api.Partition) string { return "partition/" + x.Name },
	columns: []column[api.Partition]{
		{"NAME", false, func(x api.Partition) string { return x.Name }},
		{"KEYS", false, func(x api.Partition) string {
			var s []string
			for _, k := range x.Keys {
				s = append(s, k.Fabric+"="+k.PKey.String())
			}
			return strings.Join(s, ",")
		}},
		{"LEASE", false, func(x api.Partition) string { return orDash(string(x.Lease)) }},
		{"NODES", false, func(x api.Partition) string { return orDash(strings.Join(x.Nodes, ",")) }},
		{"CREATED", true, func(x api.Partition) string { return age(x.CreatedAt) }},
		{"BY", true, func(x api.Partition) string { return x.CreatedBy }},
	},
}

func partitionNoun(p *program) *cobra.Command {
	return noun("partition", "Tenants' InfiniBand partitions", partitionCreate(p), partitionList(p), partitionShow(p), partitionRemove(p))
}

func partitionCreate(p *program) *cobra.Command {
	var fabrics []string
	c := &cobra.Command{
		Use: "create NAME --fabric FABRIC[=PKEY]", Short: "Make a partition that leases can name", Args: exactly("NAME"),
		Long: `A lease that names no partition gets one of its own, which goes with it. Leases that name the same partition reach each other.`,
		Example: `  metalctl partition create team-a --fabric ib0
  metalctl partition create team-b --fabric ib0=0x0102 --fabric ib1`,
		RunE: func(c *cobra.Command, args []string) error {
			x := fleet.TenantPartition{Name: args[0]}
			if len(fabrics) == 0 {
				return usageError("partition create: --fabric is needed; metalctl fabric list shows which there are")
			}
			for _, f := range fabrics {
				name, text, given := strings.Cut(f, "=")
				k := fleet.FabricKey{Fabric: name}
				if given {
					if err := k.PKey.UnmarshalText([]byte(text)); err != nil {
						return usageError("--fabric %s: %v", f, err)
					}
				}
				x.Keys = append(x.Keys, k)
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			made, err := cl.CreatePartition(c.Context(), x)
			if err != nil {
				return err
			}
			return partitionView.print(p, []api.Partition{made}, true)
		},
	}
	c.Flags().StringSliceVar(&fabrics, "fabric", nil, "fabric that it is in, and its key there where that matters")
	return c
}

func partitionList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List partitions, those of leases included", Args: exactly(), Example: "  metalctl partition list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Partitions(c.Context())
			if err != nil {
				return err
			}
			return partitionView.print(p, all, false)
		},
	}
}

func partitionShow(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show PARTITION", Short: "Show a partition and the nodes that are in it", Args: exactly("PARTITION"), Example: "  metalctl partition show team-a",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.Partition(c.Context(), args[0])
			if err != nil {
				return err
			}
			return partitionView.print(p, []api.Partition{x}, true)
		},
	}
}

func partitionRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove PARTITION", Short: "Drop a partition that no node is in; its keys rest before others get them", Args: exactly("PARTITION"), Example: "  metalctl partition remove team-a",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if err := cl.RemovePartition(c.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stderr, "partition/%s: removed\n", args[0])
			return err
		},
	}
}
