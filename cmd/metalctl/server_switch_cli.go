//go:build !ramdisk

package main

import (
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/provision/ethernet/cli"
	"github.com/metalctl/metalctl/provision/ethernet/ssh"
)

// driverCLI types commands.
const driverCLI = "cli"

func checkCLI(at string, c switchConfig) error {
	if cli.PlatformOf(c.Platform) == nil {
		var names []string
		for _, p := range cli.Platforms() {
			names = append(names, p.Name)
		}
		return usageError("%s.platform %q: there are %s", at, c.Platform, strings.Join(names, ", "))
	}
	return checkSSH(at, c)
}

// checkSSH is what every driver needs that reaches a switch by SSH.
func checkSSH(at string, c switchConfig) error {
	if err := sshHost(switchAccess{switchConfig: c}).Check(); err != nil {
		return usageError("%s: %v", at, err)
	}
	if c.PasswordFile == "" {
		return usageError("%s: driver %s needs password_file", at, c.Driver)
	}
	if c.TLS != nil || c.Bridge != "" {
		return usageError("%s: driver %s takes neither tls nor bridge", at, c.Driver)
	}
	return nil
}

func sshHost(a switchAccess) ssh.Host {
	return ssh.Host{Address: a.Address, User: a.User, Password: a.password, HostKey: a.HostKey}
}

func driveCLI(a switchAccess, s fleet.Switch, now func() time.Time) (switchboard.Driver, error) {
	return cli.New(cli.Options{Switch: s, Platform: cli.PlatformOf(a.Platform), Host: sshHost(a), Now: now})
}
