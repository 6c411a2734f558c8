//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// nodeFile is kind Node of a fleet file.
type nodeFile struct {
	Kind string `json:"kind" enum:"Node" required:"true"`
	Name string `json:"name" required:"true"`
	BMC  struct {
		// Address is the https URL of the BMC's Redfish service, without a path.
		Address string `json:"address" required:"true"`
		User    string `json:"user" required:"true"`
		// PasswordFile holds the password; its path is relative to this file.
		PasswordFile string `json:"password_file" required:"true"`
		// TLS says how the BMC's certificate is trusted: exactly one of its keys.
		TLS struct {
			// Pin is sha256/ and the base64 SHA-256 of the certificate's public key.
			Pin string `json:"pin"`
			// CAFile is relative to this file.
			CAFile string `json:"ca_file"`
			// FirstUse pins the key that is seen at enrolment.
			FirstUse bool `json:"first_use"`
		} `json:"tls"`
	} `json:"bmc" required:"true"`
	// Class says what the node must be; metalctl class list shows which there are.
	Class  string            `json:"class"`
	Labels map[string]string `json:"labels"`
	// Expect refuses another machine than the one that was meant.
	Expect struct {
		Serial string `json:"serial"`
		UUID   string `json:"uuid"`
	} `json:"expect"`
	// BootNetwork is how the agent reaches the server; DHCP where it is left out.
	BootNetwork *fleet.BootNetwork `json:"boot_network"`
	// RootDisk chooses the disk that an image is written to; all given keys must match.
	RootDisk struct {
		MinSizeBytes int64  `json:"min_size_bytes"`
		MaxSizeBytes int64  `json:"max_size_bytes"`
		Serial       string `json:"serial"`
		Model        string `json:"model"`
		WWN          string `json:"wwn"`
		Transport    string `json:"transport"`
		Name         string `json:"name"`
	} `json:"root_disk"`
	Ports []struct {
		MAC    fleet.MAC  `json:"mac"`
		GUID   fleet.GUID `json:"guid"`
		Role   string     `json:"role"`
		Switch string     `json:"switch"`
		Port   string     `json:"port"`
		LAG    string     `json:"lag"`
		Fabric string     `json:"fabric"`
		Rail   *int       `json:"rail"`
	} `json:"ports"`
	// AllowReboot lets an inspection restart a machine that is running.
	AllowReboot bool `json:"allow_reboot"`
	// DebugShell lets an agent that panicked open a shell on the serial console.
	DebugShell bool `json:"debug_shell"`
	// Simulated is true of the machines of a simulated rack, whose GPUs may be made up. It stays as it was at enrolment.
	Simulated bool `json:"simulated"`
}

func (n nodeFile) create(dir string, open func(string) ([]byte, error)) (api.NodeCreate, error) {
	c := api.NodeCreate{
		Name: n.Name, Class: n.Class, Labels: n.Labels, Address: n.BMC.Address, User: n.BMC.User,
		Expect: fleet.Expect(n.Expect), BootNetwork: n.BootNetwork, RootDisk: fleet.RootDiskHints(n.RootDisk),
		AllowReboot: n.AllowReboot, DebugShell: n.DebugShell, Simulated: n.Simulated,
		TLS: fleet.BMCTLS{Pin: n.BMC.TLS.Pin, FirstUse: n.BMC.TLS.FirstUse},
	}
	for _, p := range n.Ports {
		c.Ports = append(c.Ports, fleet.Port(p))
	}
	if n.BMC.PasswordFile == "" {
		return c, errors.New("bmc.password_file is missing")
	}
	pw, err := open(beside(dir, n.BMC.PasswordFile))
	if err != nil {
		return c, fmt.Errorf("bmc.password_file: %w", err)
	}
	c.Password = strings.TrimRight(string(pw), "\r\n")
	if n.BMC.TLS.CAFile != "" {
		ca, err := open(beside(dir, n.BMC.TLS.CAFile))
		if err != nil {
			return c, fmt.Errorf("bmc.tls.ca_file: %w", err)
		}
		c.TLS.CAPEM = string(ca)
	}
	return c, nil
}
