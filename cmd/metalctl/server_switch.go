//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
)

// switchDriver is one way to speak to an Ethernet switch.
type switchDriver struct {
	name string
	// check says what of the configuration is missing, or is not this driver's. at is the switch's place in the configuration.
	check func(at string, c switchConfig) error
	// drive makes the driver of a switch; it reads and writes nothing. One that keeps a connection is an io.Closer, too.
	drive func(a switchAccess, s fleet.Switch, now func() time.Time) (switchboard.Driver, error)
}

// switchDrivers are all that there are, in order of their names: this is the support matrix of Ethernet switches.
func switchDrivers() []switchDriver {
	return []switchDriver{
		{driverCLI, checkCLI, driveCLI},
		{driverNetconf, checkNetconf, driveNetconf},
		{driverNVUE, checkNVUE, driveNVUE},
		{driverOVS, checkOVS, driveOVS},
		{driverSimulated, checkSimulated, driveSimulated},
	}
}

// switchConfig says how this machine reaches one Ethernet switch. Which of the keys its driver takes that driver checks.
type switchConfig struct {
	// Driver is the name of one of switchDrivers.
	Driver string `yaml:"driver"`
	// Address is where the device's interface is, in the driver's form.
	Address string `yaml:"address,omitempty"`
	User    string `yaml:"user,omitempty"`
	// PasswordFile holds the password alone.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLS says how the device's certificate is trusted. There is no way without.
	TLS *switchTLS `yaml:"tls,omitempty"`
	// HostKey is the SSH host key of the device, as a line of known_hosts has it: type and base64.
	HostKey string `yaml:"host_key,omitempty"`
	// OpenFlow is where the bridge of an Open vSwitch listens, where that is not beside the database's socket.
	OpenFlow string `yaml:"openflow,omitempty"`
	// Bridge is the bridge that a driver serves where a device has several.
	Bridge string `yaml:"bridge,omitempty"`
	// Platform is the device's operating system, where a driver speaks to several.
	Platform string `yaml:"platform,omitempty"`
}

// switchTLS has exactly one of pin and ca_file.
type switchTLS struct {
	// Pin is sha256/ and the base64 SHA-256 of the certificate's public key.
	Pin string `yaml:"pin,omitempty"`
	// CAFile holds the certificate of the authority.
	CAFile string `yaml:"ca_file,omitempty"`
	// CertFile and KeyFile are the server's own certificate and key, for a device that asks for one.
	CertFile string `yaml:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file,omitempty"`
}

func (t *switchTLS) check(at string) error {
	switch {
	case t == nil:
	case (t.Pin == "") == (t.CAFile == ""):
		return usageError("%s needs exactly one of pin and ca_file", at)
	case t.Pin != "" && !fleet.ValidKeyPin(t.Pin):
		return usageError("%s.pin %q is not sha256/ and a hash in base64", at, t.Pin)
	case (t.CertFile == "") != (t.KeyFile == ""):
		return usageError("%s needs both of cert_file and key_file, or none", at)
	default:
		for key, file := range map[string]string{"ca_file": t.CAFile, "cert_file": t.CertFile, "key_file": t.KeyFile} {
			if file != "" && !filepath.IsAbs(file) {
				return usageError("%s.%s %q is no absolute path", at, key, file)
			}
		}
	}
	return nil
}

// switchAccess is a switch's configuration with what its files hold.
type switchAccess struct {
	switchConfig
	password fleet.Secret
	caPEM    []byte
	// certPEM and keyPEM are what the device is shown.
	certPEM, keyPEM []byte
}

func (c switchConfig) check(name string) error {
	at := "switches." + name
	if !fleet.ValidName(name) {
		return usageError("switches: %q is no name of a switch", name)
	}
	var names []string
	for _, d := range switchDrivers() {
		names = append(names, d.name)
	}
	i := slices.Index(names, c.Driver)
	if i < 0 {
		return usageError("%s.driver %q: there are %s", at, c.Driver, strings.Join(names, ", "))
	}
	if err := c.TLS.check(at + ".tls"); err != nil {
		return err
	}
	if c.PasswordFile != "" && !filepath.IsAbs(c.PasswordFile) {
		return usageError("%s.password_file %q is no absolute path", at, c.PasswordFile)
	}
	return switchDrivers()[i].check(at, c)
}

// access reads what the configuration names.
func (c switchConfig) access() (switchAccess, error) {
	a := switchAccess{switchConfig: c}
	if c.PasswordFile != "" {
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return a, fmt.Errorf("read the switch's password: %w", err)
		}
		a.password = fleet.NewSecret(strings.TrimRight(string(b), "\r\n"))
	}
	if c.TLS == nil {
		return a, nil
	}
	for _, f := range []struct {
		file string
		into *[]byte
	}{{c.TLS.CAFile, &a.caPEM}, {c.TLS.CertFile, &a.certPEM}, {c.TLS.KeyFile, &a.keyPEM}} {
		if f.file == "" {
			continue
		}
		b, err := os.ReadFile(f.file)
		if err != nil {
			return a, fmt.Errorf("read a certificate or key for the switch: %w", err)
		}
		*f.into = b
	}
	return a, nil
}

// switchPanel binds drivers to switches.
type switchPanel struct {
	configs map[string]switchConfig
	now     func() time.Time

	mu    sync.Mutex // guards bound
	bound map[string]switchboard.Driver
}

// driveSwitch makes the driver of a switch. The one that it had before is closed: it belongs to an older record.
func (d *switchPanel) driveSwitch(s fleet.Switch) (switchboard.Driver, error) {
	c, ok := d.configs[s.Name]
	if !ok {
		return nil, fleet.Errorf(fleet.Refused, "MC-NET-NO-DRIVER", "this server has no driver for the switch %s", s.Name).
			WithHint("add it to the server's configuration, under switches.%s", s.Name)
	}
	a, err := c.access()
	if err != nil {
		return nil, err
	}
	all := switchDrivers()
	i := slices.IndexFunc(all, func(x switchDriver) bool { return x.name == c.Driver })
	driver, err := all[i].drive(a, s, d.now)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err = hangUp(d.bound[s.Name])
	d.bound[s.Name] = driver
	return driver, err
}

// close ends all connections.
func (d *switchPanel) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, driver := range d.bound {
		errs = append(errs, hangUp(driver))
	}
	clear(d.bound)
	return errors.Join(errs...)
}

func hangUp(d switchboard.Driver) error {
	if c, keeps := d.(io.Closer); keeps {
		return c.Close()
	}
	return nil
}
