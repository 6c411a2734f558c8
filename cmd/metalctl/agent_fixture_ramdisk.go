//go:build ramdisk

package main

import (
	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/agent/burn"
	"github.com/metalctl/metalctl/fleet"
)

// standIns: the ramdisk's build has no stand-ins for what is not there; its GPUs' libraries lie in the folder.
func standIns(string, *burn.Machine) error { return nil }

// readClass: classes are read where the server is.
func (o *agentBurnOptions) readClass() (fleet.Class, error) {
	if o.class != "" {
		return fleet.Class{}, usageError("agent burn: the ramdisk's build reads no classes; use the program that holds the server")
	}
	return fleet.Class{}, nil
}

// openFixture takes a folder as it is: profiles and faults are not in the ramdisk's build.
func openFixture(name, fault string) (root string, done func() error, err error) {
	if fault != "" {
		return "", nil, usageError("agent inspect: the ramdisk's build applies no faults; use the program that holds the server")
	}
	return name, func() error { return nil }, nil
}

// completeFixture: the ramdisk's build has no machines but its own.
func completeFixture(*cobra.Command) {}
