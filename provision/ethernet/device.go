// Package ethernet decides what is written on an Ethernet switch and when that is proven; what speaks to the switch is handed in.
package ethernet

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
)

// Device is a switch that can be asked to change several ports as one.
type Device interface {
	// Read reads the ports that are named in the switch's record.
	Read(ctx context.Context) (Reading, error)
	// Write changes ports as one, under a name. Right before that, where nobody else can change them any more or where it would be seen, it reads once more and
	// gives that to may: with an error of may nothing is written. A write that was interrupted is begun again by another one of the same name, also by
	// another process. What may later be taken back is kept apart until Settle; with Keep it is settled at once.
	Write(ctx context.Context, w Write, may func(Reading) error) error
	// Settle keeps what was written under a name for good, also over a restart of the switch. Where nothing is under that name it does nothing.
	Settle(ctx context.Context, name string) error
	// Undo takes back what was written under a name. It reports whether there was anything.
	Undo(ctx context.Context, w Write) (bool, error)
}

// Write is a change of ports.
type Write struct {
	// Name is made of hexadecimal digits.
	Name    string
	Changes []fleet.WireChange
	// Keep leaves nothing to be taken back.
	Keep bool
}

// Reading is what a switch shows.
type Reading struct {
	// Ports are in any order.
	Ports []fleet.PortView
	// Open is the name of what was written and neither settled nor taken back, OpenUnknown where the switch does not tell the name.
	Open string
}

// OpenUnknown is a change that somebody wrote and nobody settled.
const OpenUnknown = "?"
