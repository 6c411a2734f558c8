//go:build !ramdisk

package main

import (
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/provision/ethernet/netconf"
)

// driverNetconf speaks NETCONF with the models of OpenConfig.
const driverNetconf = "netconf"

func checkNetconf(at string, c switchConfig) error {
	if c.Platform != "" {
		return usageError("%s: driver %s takes no platform", at, driverNetconf)
	}
	return checkSSH(at, c)
}

func driveNetconf(a switchAccess, s fleet.Switch, now func() time.Time) (switchboard.Driver, error) {
	return netconf.New(netconf.Options{Switch: s, Host: sshHost(a), Now: now})
}
