package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/agent/rdma"
	"github.com/metalctl/metalctl/agent/sysfs"
)

type agentInspectOptions struct {
	fixture, fault, record string
	lldpWait               time.Duration
}

// agentInspect is in the ramdisk's build, too: there it prints the machine that has booted.
func agentInspect(p *program) *cobra.Command {
	var o agentInspectOptions
	c := &cobra.Command{
		Use: "inspect", Short: "Print what this machine is made of; no server needed", Args: exactly(),
		Long: `Inspect prints the inventory that an inspection would send. With --fixture the same code reads another machine: a folder in the layout of
docs/inventory.md, recorded or made up, or the name of a profile (metalctl sim profile lists them). --fault breaks a copy of it first: with a fault that is built in (metalctl sim profile --faults lists
them) or a fault file. --record also makes a folder of what was read, so that the machine can be read again elsewhere; docs/inventory.md says what is left out.`,
		Example: "  metalctl agent inspect -o json\n  metalctl agent inspect --fixture hgx-h200 --fault nvlink-down\n  metalctl agent inspect --record /tmp/node-7 -o name",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.fault != "" && o.fixture == "" {
				return usageError("agent inspect: --fault needs --fixture: faults are for machines that are not there")
			}
			var recorder *sysfs.Recorder
			if o.record != "" {
				if recorder, err = newRecorder(o.record); err != nil {
					return err
				}
			}
			root, done, err := openFixture(o.fixture, o.fault)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			inv, err := inspect.Read(c.Context(), inspect.Options{Root: root, LLDPWait: o.lldpWait, GPUs: readGPUs, HCAs: rdma.Read, SmartLog: agent.SmartLog, Record: recorder})
			if err != nil {
				return err
			}
			if recorder != nil {
				if err := record(o.record, recorder, &inv); err != nil {
					return err
				}
				fmt.Fprintf(p.stderr, "the machine is recorded in %s; read it with: metalctl agent inspect --fixture %s\n", o.record, o.record)
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
	f.StringVar(&o.record, "record", "", "folder to make of what was read, for --fixture; docs/inventory.md says what is in it and what is not")
	completeFixture(c)
	return c
}
