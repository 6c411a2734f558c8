package burn

import (
	"context"
	"time"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/fleet"
)

// thisDrive is a disk of this machine.
type thisDrive struct {
	*disk.Raw
	opened time.Time
}

// Clock is the machine's.
func (d thisDrive) Clock() time.Duration { return time.Since(d.opened) }

// ThisDrive opens a disk of this machine, or a file that stands for one. It is looked at again before: what has another serial or size now, or is in use, is refused.
func ThisDrive(_ context.Context, d fleet.Disk) (Drive, error) {
	dev, err := disk.Stat("/", d.Path)
	if err != nil {
		return nil, err
	}
	if dev.Transport != "file" && dev.Serial != d.Serial {
		return nil, fleet.Errorf(fleet.Conflict, "MC-DISK-CHANGED", "%s has the serial %q now, it had %q: not touched", d.Path, dev.Serial, d.Serial).WithHint("metalctl node inspect NODE")
	}
	dev.Serial, dev.SizeBytes = d.Serial, d.SizeBytes
	raw, err := disk.OpenRaw(dev)
	if err != nil {
		return nil, err
	}
	return thisDrive{raw, time.Now()}, nil
}
