//go:build ramdisk

package main

import "github.com/spf13/cobra"

// openFixture takes a folder as it is: profiles and faults are not in the ramdisk's build.
func openFixture(name, fault string) (root string, done func() error, err error) {
	if fault != "" {
		return "", nil, usageError("agent inspect: the ramdisk's build applies no faults; use the program that holds the server")
	}
	return name, func() error { return nil }, nil
}

// completeFixture: the ramdisk's build has no machines but its own.
func completeFixture(*cobra.Command) {}
