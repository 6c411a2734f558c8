package agent

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images/pack"
)

const (
	// SimulatedDevice is there where the machine is one of QEMU with its configuration device, whose driver must then be loaded.
	SimulatedDevice = "/sys/bus/acpi/devices/QEMU0002:00"
	// SimulatedOffer matches the parts, in the order of their names, of what a simulated rack offers its QEMU machines: files of that device. The kernel's driver
	// binds to nothing that does not answer as QEMU, so no other hardware has them.
	SimulatedOffer = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.metalctl/machine/*/raw"
)

// Bounds of what is offered, in bytes: a part, and all files.
const (
	maxOfferPart = 1 << 20
	maxOffered   = 64 << 20
)

// TakeSimulated unpacks what is offered into a new folder, for inspect.Options.Simulated; "" where nothing is.
func TakeSimulated(offer string) (dir string, err error) {
	parts, err := filepath.Glob(offer)
	if err != nil || len(parts) == 0 {
		return "", err
	}
	slices.Sort(parts)
	var archive bytes.Buffer
	for _, part := range parts {
		f, err := os.Open(part)
		if err == nil {
			_, err = io.Copy(&archive, io.LimitReader(f, maxOfferPart))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return "", offerError(err)
		}
	}
	if dir, err = os.MkdirTemp("", "simulated-"); err != nil {
		return "", offerError(err)
	}
	if err := pack.Extract(&archive, dir, maxOffered); err != nil {
		return "", offerError(errors.Join(err, os.RemoveAll(dir)))
	}
	return dir, nil
}

func offerError(err error) error {
	return fleet.Errorf(fleet.Broken, "MC-AGENT-SIMULATED", "read the simulated GPUs of this machine: %w", err).WithHint("start the rack again: metalctl sim down, metalctl sim up")
}
