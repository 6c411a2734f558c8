//go:build !ramdisk

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// networkFile is kind Network of a fleet file.
type networkFile struct {
	Kind string `json:"kind" enum:"Network" required:"true"`
	Name string `json:"name" required:"true"`
	// Role is provisioning: where agents are spoken to; or tenant.
	Role string `json:"role" enum:"provisioning,tenant" required:"true"`
	// Domain is that of its switches, or the name of one that is alone.
	Domain string `json:"domain" required:"true"`
	// VLAN is chosen of the domain's range where it is left out.
	VLAN fleet.VLAN `json:"vlan"`
	// MTU is in bytes.
	MTU     int            `json:"mtu"`
	Subnets []fleet.Subnet `json:"subnets"`
	// Protected keeps ports of one switch from each other.
	Protected bool `json:"protected"`
}

func (f networkFile) network() fleet.Network {
	return fleet.Network{Name: f.Name, Role: f.Role, Domain: f.Domain, VLAN: f.VLAN, MTU: f.MTU, Subnets: f.Subnets, Protected: f.Protected}
}

var networkView = view[api.Network]{
	name: func(x api.Network) string { return "network/" + x.Name },
	columns: []column[api.Network]{
		{"NAME", false, func(x api.Network) string { return x.Name }},
		{"ROLE", false, func(x api.Network) string { return x.Role }},
		{"DOMAIN", false, func(x api.Network) string { return x.Domain }},
		{"VLAN", false, func(x api.Network) string { return fmt.Sprint(x.VLAN) }},
		{"SUBNETS", true, func(x api.Network) string {
			var s []string
			for _, n := range x.Subnets {
				s = append(s, n.CIDR)
			}
			return orDash(strings.Join(s, ","))
		}},
		{"LEASE", false, func(x api.Network) string { return orDash(string(x.Lease)) }},
		{"NODES", false, func(x api.Network) string { return orDash(strings.Join(x.Nodes, ",")) }},
		{"CREATED", true, func(x api.Network) string { return age(x.CreatedAt) }},
		{"BY", true, func(x api.Network) string { return x.CreatedBy }},
	},
}

func networkCreate(p *program) *cobra.Command {
	x := fleet.Network{}
	var vlan uint16
	c := &cobra.Command{
		Use: "create NAME --domain DOMAIN", Short: "Make a network that leases can name, or one where agents are spoken to", Args: exactly("NAME"),
		Long: `A lease that names no network gets one of its own, which goes with it. Leases that name the same network reach each other. Each domain has at most one network
of the role provisioning. Subnets are given in a fleet file: network apply -f FILE.`,
		Example: `  metalctl network create prov --role provisioning --domain hall-1
  metalctl network create team-a --domain hall-1 --vlan 1201`,
		RunE: func(c *cobra.Command, args []string) error {
			x.Name, x.VLAN = args[0], fleet.VLAN(vlan)
			if x.Domain == "" {
				return usageError("network create: --domain is needed; metalctl switch list shows which there are")
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			made, err := cl.PutNetwork(c.Context(), x)
			if err != nil {
				return err
			}
			return networkView.print(p, []api.Network{made}, true)
		},
	}
	f := c.Flags()
	f.StringVar(&x.Role, "role", fleet.RoleTenant, "provisioning or tenant")
	f.StringVar(&x.Domain, "domain", "", "domain of its switches, or the name of a switch that is alone")
	f.Uint16Var(&vlan, "vlan", 0, "its VLAN; default: one of the domain's range")
	f.IntVar(&x.MTU, "mtu", 0, "bytes")
	f.BoolVar(&x.Protected, "protected", false, "keep ports of one switch from each other")
	return c
}

func networkList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List networks, those of leases included", Args: exactly(), Example: "  metalctl network list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Networks(c.Context())
			if err != nil {
				return err
			}
			return networkView.print(p, all, false)
		},
	}
}

func networkShow(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show NETWORK", Short: "Show a network, the nodes that are in it, and who has which of its addresses", Args: exactly("NETWORK"), Example: "  metalctl network show team-a",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			x, err := cl.Network(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := networkView.print(p, []api.Network{x}, true); err != nil || !p.readable() {
				return err
			}
			var rows [][]string
			for _, g := range x.Given {
				rows = append(rows, []string{"address:", g.Address, g.Node, "lease " + string(g.Lease)})
			}
			return printTable(p.stdout, rows)
		},
	}
}

func networkRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove NETWORK", Short: "Drop a network that no node is in; its VLAN rests before others get it", Args: exactly("NETWORK"), Example: "  metalctl network remove team-a",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if err := cl.RemoveNetwork(c.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stderr, "network/%s: removed\n", args[0])
			return err
		},
	}
}
