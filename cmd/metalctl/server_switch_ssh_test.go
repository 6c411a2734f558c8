//go:build !ramdisk

package main

import (
	"strings"
	"testing"
)

func TestSwitchesBySSHAreChecked(t *testing.T) {
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBtbzEfzmbYsDbjqtk2r0hFAFOQfDy8+p1p9nJ4W5VEE"
	good := switchConfig{Driver: driverCLI, Platform: "eos", Address: "10.0.0.2:22", User: "metalctl", PasswordFile: "/etc/password", HostKey: key}
	cases := map[string]struct {
		change func(*switchConfig)
		want   string
	}{
		"cli":                     {func(*switchConfig) {}, ""},
		"netconf":                 {func(c *switchConfig) { c.Driver, c.Platform = driverNetconf, "" }, ""},
		"an unknown platform":     {func(c *switchConfig) { c.Platform = "ios" }, "platform"},
		"netconf with a platform": {func(c *switchConfig) { c.Driver = driverNetconf }, "platform"},
		"no port":                 {func(c *switchConfig) { c.Address = "10.0.0.2" }, "host:port"},
		"no user":                 {func(c *switchConfig) { c.User = "" }, "user"},
		"no password":             {func(c *switchConfig) { c.PasswordFile = "" }, "password_file"},
		"no host key":             {func(c *switchConfig) { c.HostKey = "" }, "host key"},
		"two host keys":           {func(c *switchConfig) { c.HostKey = key + "\n" + key }, "host key"},
		"no key at all":           {func(c *switchConfig) { c.HostKey = "ssh-ed25519 AAAA" }, "host key"},
		"a bridge":                {func(c *switchConfig) { c.Bridge = "br0" }, "bridge"},
		"a certificate":           {func(c *switchConfig) { c.TLS = &switchTLS{CAFile: "/etc/ca.pem"} }, "tls"},
	}
	for what, x := range cases {
		c := good
		x.change(&c)
		err := c.check("leaf-1")
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", what, err, x.want)
		}
	}
}
