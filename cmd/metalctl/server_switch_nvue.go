//go:build !ramdisk

package main

import (
	"net/url"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/provision/ethernet/nvue"
)

// driverNVUE speaks NVIDIA's REST API, as Cumulus Linux has it.
const driverNVUE = "nvue"

func checkNVUE(at string, c switchConfig) error {
	if u, err := url.Parse(c.Address); err != nil || u.Scheme != "https" || u.Host == "" {
		return usageError("%s.address %q is no https URL such as https://10.0.0.2:8765", at, c.Address)
	}
	if c.User == "" || c.PasswordFile == "" {
		return usageError("%s: driver %s needs user and password_file", at, driverNVUE)
	}
	if c.TLS == nil {
		return usageError("%s: driver %s needs tls, with pin or ca_file", at, driverNVUE)
	}
	if c.HostKey != "" || c.Platform != "" {
		return usageError("%s: driver %s takes neither host_key nor platform", at, driverNVUE)
	}
	return nil
}

func driveNVUE(a switchAccess, s fleet.Switch, now func() time.Time) (switchboard.Driver, error) {
	return nvue.New(nvue.Options{Switch: s, Bridge: a.Bridge, Now: now,
		Access: nvue.Access{Address: a.Address, User: a.User, Password: a.password, Pin: a.TLS.Pin, CAPEM: a.caPEM}})
}
