//go:build !ramdisk

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// fabricFile is kind Fabric of a fleet file.
type fabricFile struct {
	Kind string `json:"kind" enum:"Fabric" required:"true"`
	Name string `json:"name" required:"true"`
	// SMs are the GUIDs of the ports where a subnet manager may run.
	SMs []fleet.GUID `json:"sms" required:"true"`
	// First and Last bound the partition keys that tenants get.
	First fleet.PKey `json:"first" required:"true"`
	Last  fleet.PKey `json:"last" required:"true"`
	// Managed are the GUIDs of the ports that are moved between partitions. Every other port is read only.
	Managed []fleet.GUID `json:"managed" required:"true"`
	// Fixed are partitions of other owners, such as storage: they are kept as they stand here.
	Fixed []fleet.Partition `json:"fixed"`
	// IPoIB gives each tenant's partition a broadcast group for IP, with packets of up to MTU bytes.
	IPoIB bool `json:"ipoib"`
	MTU   int  `json:"mtu"`
}

func (f fabricFile) fabric() fleet.Fabric {
	return fleet.Fabric{Name: f.Name, SMs: f.SMs, First: f.First, Last: f.Last, Managed: f.Managed, Fixed: f.Fixed, IPoIB: f.IPoIB, MTU: f.MTU}
}

var fabricView = view[api.Fabric]{
	name: func(f api.Fabric) string { return "fabric/" + f.Name },
	columns: []column[api.Fabric]{
		{"NAME", false, func(f api.Fabric) string { return f.Name }},
		{"STATE", false, func(f api.Fabric) string { return f.State }},
		{"MANAGED", false, func(f api.Fabric) string { return fmt.Sprint(len(f.Managed)) }},
		{"KEYS", false, func(f api.Fabric) string {
			return fmt.Sprintf("%d of %d", f.Keys, int(f.Last)-int(f.First)+1)
		}},
		{"RESTING", true, func(f api.Fabric) string { return fmt.Sprint(len(f.Resting)) }},
		{"READ", false, func(f api.Fabric) string {
			if f.ReadAt.IsZero() {
				return "-"
			}
			return age(f.ReadAt)
		}},
		{"WHY", false, func(f api.Fabric) string { return orDash(printable(f.Why)) }},
	},
}

func fabricNoun(p *program) *cobra.Command {
	return noun("fabric", "InfiniBand fabrics, whose partitions keep tenants apart", fabricList(p), fabricShow(p), applyVerb(p, "fabric"), fabricAdopt(p), fabricVerify(p), fabricRemove(p))
}

func fabricList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List fabrics, and whether they can be trusted", Args: exactly(), Example: "  metalctl fabric list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Fabrics(c.Context())
			if err != nil {
				return err
			}
			return fabricView.print(p, all, false)
		},
	}
}

func fabricShow(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show FABRIC", Short: "Show what was read last: every port with its partitions, and what is wrong", Args: exactly("FABRIC"), Example: "  metalctl fabric show ib0",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			f, err := cl.Fabric(c.Context(), args[0])
			if err != nil {
				return err
			}
			return showFabric(p, f)
		},
	}
}

func showFabric(p *program, f api.Fabric) error {
	if !p.readable() {
		return fabricView.print(p, []api.Fabric{f}, true)
	}
	rows := append([][]string{{"fabric:", f.Name, ""}}, readingRows(f.Reading)...)
	rows = append(rows, []string{"keys:", fmt.Sprintf("%s to %s, %d used, %d resting", f.First, f.Last, f.Keys, len(f.Resting)), ""})
	return printTable(p.stdout, append(rows, portRows(f.Reading)...))
}

// peerText says where a cable ends, "" where nobody knows.
func peerText(peer string) string {
	if peer == "" {
		return ""
	}
	return "at " + peer
}

func fabricAdopt(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "adopt FABRIC", Short: "Take the partition file of a fabric over; what managed ports carry they keep", Args: exactly("FABRIC"),
		Long: `Adopt is done once. Each managed port keeps the keys that it has, if they are in the tenants' range, and ports that were full members of the default partition
become limited ones. Where a managed port has any other key nothing is written, and the error lists them all.`,
		Example: "  metalctl fabric adopt ib0",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			f, err := cl.AdoptFabric(c.Context(), args[0])
			if err != nil {
				return err
			}
			return fabricView.print(p, []api.Fabric{f}, true)
		},
	}
}

func fabricVerify(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "verify FABRIC", Short: "Read every port of a fabric now; exit code 9 where it cannot be trusted", Args: exactly("FABRIC"), Example: "  metalctl fabric verify ib0",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			f, err := cl.VerifyFabric(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := showFabric(p, f); err != nil {
				return err
			}
			if f.State != api.FabricTrusted {
				return &exitError{exitDiffers, nil}
			}
			return nil
		},
	}
}

func fabricRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove FABRIC", Short: "Drop a fabric that nothing uses; its devices are not touched", Args: exactly("FABRIC"), Example: "  metalctl fabric remove ib0",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			return cl.RemoveFabric(c.Context(), args[0])
		},
	}
}
