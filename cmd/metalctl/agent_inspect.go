package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/rdma"
)

type agentInspectOptions struct {
	fixture, fault string
	lldpWait       time.Duration
}

// agentInspect is in the ramdisk's build, too: there it prints the machine that has booted.
func agentInspect(p *program) *cobra.Command {
	var o agentInspectOptions
	c := &cobra.Command{
		Use: "inspect", Short: "Print what this machine is made of; no server needed", Args: exactly(),
		Long: `Inspect prints the inventory that an inspection would send. With --fixture the same code reads another machine: a folder in the layout of
docs/inventory.md, recorded or made up, or the name of a profile (metalctl sim profile lists them). --fault breaks a copy of it first: with a fault that is built in (metalctl sim profile --faults lists
them) or a fault file.`,
		Example: "  metalctl agent inspect -o json\n  metalctl agent inspect --fixture hgx-h200 --fault nvlink-down",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.fault != "" && o.fixture == "" {
				return usageError("agent inspect: --fault needs --fixture: faults are for machines that are not there")
			}
			root, done, err := openFixture(o.fixture, o.fault)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			inv, err := inspect.Read(c.Context(), inspect.Options{Root: root, LLDPWait: o.lldpWait, GPUs: readGPUs, HCAs: rdma.Read})
			if err != nil {
				return err
			}
			if p.flags.output == "" {
				p.flags.output = "json"
			}
			return printInventory(p, inv)
		},
	}
	f := c.Flags()
	f.DurationVar(&o.lldpWait, "lldp-wait", 0, "how long to listen for LLDP neighbours (switches speak every 30 s)")
	f.StringVar(&o.fixture, "fixture", "", "folder of a machine to read instead of this one, or the name of a profile")
	f.StringVar(&o.fault, "fault", "", "a fault's name, or a fault file (YAML), to apply to a copy of the fixture")
	completeFixture(c)
	return c
}
