// Package vmedia boots a node from an ISO by its BMC's virtual media, and from its disk again.
package vmedia

import (
	"context"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Power states and actions, in Redfish's words (DSP0268 ComputerSystem PowerState, Resource ResetType).
const (
	On       = "On"
	Off      = "Off"
	ForceOff = "ForceOff"
	Graceful = "GracefulShutdown"
)

// Boot targets and modes, in Redfish's words (ComputerSystem BootSource, BootSourceOverrideMode).
const (
	TargetNone = "None"
	TargetCD   = "Cd"
	ModeUEFI   = "UEFI"
	ModeKeep   = ""
)

// Power turns a host on and off. SetPower returns when the BMC shows the result, and writes nothing where it shows it already.
type Power interface {
	Power(ctx context.Context) (string, error)
	SetPower(ctx context.Context, action string) error
}

// Media is a host's virtual drive. InsertMedia ejects what is there first; EjectMedia of an empty drive is done at once.
type Media interface {
	InsertMedia(ctx context.Context, url string, caPEM []byte) (Inserted, error)
	EjectMedia(ctx context.Context) error
}

// Boot sets where a host boots from next; TargetNone removes the override. It reads back what it set.
type Boot interface {
	SetBootOnce(ctx context.Context, target, mode string) error
}

// Identity says which machine is behind a BMC; it only reads.
type Identity interface {
	Identity(ctx context.Context) (Machine, error)
}

// Inserted is what an insertion came to.
type Inserted struct {
	// Method says by what: a slot of virtual media, or an HTTP boot address.
	Method string
	// Slot is where, as the BMC names it.
	Slot string
	// Target is the boot target that starts the medium.
	Target string
	// Verified: the BMC checks the image server's certificate.
	Verified bool
}

// Machine is who answers.
type Machine struct {
	Vendor, Model, Serial, UUID, Firmware, Power string
}

// Controller is one BMC, by what is asked of it.
type Controller struct {
	Power    Power
	Media    Media
	Boot     Boot
	Identity Identity
}

// Dial returns the BMC of a node. Its connection is the dialler's to keep and to close.
type Dial func(ctx context.Context, id fleet.NodeID) (Controller, error)

// Medium gives a node its boot media.
type Medium interface {
	// Issue begins a new boot generation: token, credential and address are registered durably before it returns, and older ones refused.
	// url is a secret: its path is unguessable. caPEM are the certificates that prove its server, nil for http.
	Issue(ctx context.Context, id fleet.NodeID) (url string, caPEM []byte, generation int64, err error)
	// Expire ends the address of the newest medium; without one it does nothing.
	Expire(ctx context.Context, id fleet.NodeID) error
}

// Driver does the steps of a boot.
type Driver struct {
	Dial   Dial
	Medium Medium
	// Poll is how often a state is read that is waited for; 0 means 2 s.
	Poll time.Duration
	// MaxWait bounds how long a machine may take to go off by itself, or is to stay off, whatever a plan grants; 0 means no bound.
	MaxWait time.Duration
	// Now is the clock of what is recorded; nil means time.Now.
	Now func() time.Time
}

// Funcs binds the steps that this driver does.
func (d *Driver) Funcs() step.Funcs {
	return step.Funcs{
		step.BMCIdentify:   d.identify,
		step.MediaInsert:   d.insert,
		step.BootFromMedia: d.bootFromMedia,
		step.BootFromDisk:  d.bootFromDisk,
		step.MediaEject:    d.eject,
		step.PowerOn:       d.powerOn,
		step.PowerOff:      d.powerOff,
		step.StayOff:       d.stayOff,
	}
}
