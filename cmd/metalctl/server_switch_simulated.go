//go:build !ramdisk

package main

import (
	"path/filepath"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
)

// driverSimulated is a switch that is a JSON file at the address: for laboratories.
const driverSimulated = "simulated"

func checkSimulated(at string, c switchConfig) error {
	if !filepath.IsAbs(c.Address) {
		return usageError("%s.address %q is no absolute path of a simulated switch", at, c.Address)
	}
	if c != (switchConfig{Driver: c.Driver, Address: c.Address}) {
		return usageError("%s: a simulated switch has driver and address, and nothing else", at)
	}
	return nil
}

func driveSimulated(a switchAccess, s fleet.Switch, now func() time.Time) (switchboard.Driver, error) {
	return wires.NewSwitchDriver(wires.SwitchOptions{Switch: s, File: wires.SwitchFile{Path: a.Address}, Now: now})
}
