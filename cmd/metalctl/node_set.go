//go:build !ramdisk

package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

type setOptions struct {
	class, bmc, user, passwordFile, allowReboot string
	labels, rootDisk                            map[string]string
}

func nodeSet(p *program) *cobra.Command {
	var o setOptions
	c := &cobra.Command{
		Use: "set NODE", Short: "Change a node's settings: class, labels, root disk, BMC address and credential", Args: exactly("NODE"),
		Example: `  metalctl node set hgx-001 --class hgx-h200 --label rack=r1
  metalctl node set hgx-001 --root-disk transport=nvme,min_size_bytes=400000000000`,
		RunE: func(c *cobra.Command, args []string) error {
			var patch api.NodePatch
			fl := c.Flags()
			if fl.Changed("class") {
				patch.Class = &o.class
			}
			if fl.Changed("label") {
				patch.Labels = &o.labels
			}
			if fl.Changed("bmc") {
				patch.Address = &o.bmc
			}
			if fl.Changed("user") {
				patch.User = &o.user
			}
			if fl.Changed("root-disk") {
				hints, err := rootDiskHints(o.rootDisk)
				if err != nil {
					return err
				}
				patch.RootDisk = &hints
			}
			if fl.Changed("allow-reboot") {
				yes := o.allowReboot == "yes"
				if !yes && o.allowReboot != "no" {
					return usageError("--allow-reboot wants yes or no")
				}
				patch.AllowReboot = &yes
			}
			if fl.Changed("password-file") {
				pw, err := p.readSecretFile(o.passwordFile)
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
			return nodeView.print(p, []api.Node{n}, true)
		},
	}
	f := c.Flags()
	f.StringVar(&o.class, "class", "", "class of the node")
	f.StringToStringVar(&o.labels, "label", nil, "labels, key=value; replaces all labels")
	f.StringToStringVar(&o.rootDisk, "root-disk", nil, "which disk images are written to: serial=, wwn=, model=, name=, transport=, min_size_bytes=, max_size_bytes=; replaces all hints")
	f.StringVar(&o.bmc, "bmc", "", "the BMC's new https URL; recorded when the same machine answers there")
	f.StringVar(&o.user, "user", "", "user at the BMC")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the BMC's new password; using it again is allowed from then on")
	f.StringVar(&o.allowReboot, "allow-reboot", "", "yes or no: inspections may restart the machine while it runs")
	return c
}

// rootDiskHints reads the pairs of --root-disk; none at all means that any accepted disk will do.
func rootDiskHints(pairs map[string]string) (fleet.RootDiskHints, error) {
	var h fleet.RootDiskHints
	texts := map[string]*string{"serial": &h.Serial, "wwn": &h.WWN, "model": &h.Model, "name": &h.Name, "transport": &h.Transport}
	sizes := map[string]*int64{"min_size_bytes": &h.MinSizeBytes, "max_size_bytes": &h.MaxSizeBytes}
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		switch {
		case texts[k] != nil:
			*texts[k] = pairs[k]
		case sizes[k] != nil:
			n, err := strconv.ParseInt(pairs[k], 10, 64)
			if err != nil || n < 0 {
				return h, usageError("--root-disk %s=%s: want a number of bytes", k, pairs[k])
			}
			*sizes[k] = n
		default:
			known := append(slices.Sorted(maps.Keys(texts)), slices.Sorted(maps.Keys(sizes))...)
			return h, usageError("--root-disk: there is no hint %q; want one of %s", k, strings.Join(known, ", "))
		}
	}
	return h, nil
}
