//go:build ramdisk

package main

import (
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

func newRecorder(string) (*sysfs.Recorder, error) {
	return nil, usageError("agent inspect: the ramdisk's build records nothing; use the program that holds the server")
}

func record(string, *sysfs.Recorder, *fleet.Inventory) error { return nil }
