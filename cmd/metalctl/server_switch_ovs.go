//go:build !ramdisk

package main

import (
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/provision/ethernet/ovs"
)

// driverOVS is Open vSwitch, by OVSDB and OpenFlow.
const driverOVS = "ovs"

func driveOVS(a switchAccess, s fleet.Switch, now func() time.Time) (switchboard.Driver, error) {
	access := ovs.Access{Database: a.Address, OpenFlow: a.OpenFlow, CAPEM: a.caPEM, CertPEM: a.certPEM, KeyPEM: a.keyPEM}
	if a.TLS != nil {
		access.Pin = a.TLS.Pin
	}
	database, openflow, err := access.Dialers(a.Bridge)
	if err != nil {
		return nil, err
	}
	return ovs.New(ovs.Options{Switch: s, Bridge: a.Bridge, Database: database, OpenFlow: openflow, Now: now})
}

func checkOVS(at string, c switchConfig) error {
	switch {
	case c.Bridge == "":
		return usageError("%s.bridge is missing: which of the switch's bridges", at)
	case c.User != "" || c.PasswordFile != "" || c.HostKey != "" || c.Platform != "":
		return usageError("%s: the driver ovs has no user, password_file, host_key and platform; it knows the switch by tls", at)
	case c.TLS == nil && (strings.HasPrefix(c.Address, "ssl:") || strings.HasPrefix(c.OpenFlow, "ssl:")):
		return usageError("%s.tls is missing: how the switch is known", at)
	}
	if err := (ovs.Access{Database: c.Address, OpenFlow: c.OpenFlow}).Check(c.Bridge); err != nil {
		return usageError("%s: %v", at, err)
	}
	return nil
}
