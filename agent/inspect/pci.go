package inspect

import (
	"context"
	"path"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// readPCI reads every function with its place in the tree, the link it has and could have, what it enforces and the errors it counted.
func (r *reading) readPCI(context.Context) {
	const dir = "sys/bus/pci/devices"
	names, err := r.fs.List(dir)
	if err != nil {
		r.missing("pci", err)
		return
	}
	for _, name := range names {
		p := fleet.PCI{Address: name}
		for _, f := range []struct {
			to   *string
			file string
		}{{&p.Vendor, "vendor"}, {&p.Device, "device"}, {&p.Class, "class"}} {
			text, err := r.fs.Text(dir, name, f.file)
			if err != nil {
				r.missing("pci/"+name+" "+f.file, err)
			}
			*f.to = strings.TrimPrefix(text, "0x")
		}
		p.Driver = r.fs.Base(dir, name, "driver")
		p.NUMANode = int(r.fs.NumberOr(-1, dir, name, "numa_node"))
		if device := r.fs.Device(dir, name); device != "" {
			if parent := path.Base(path.Dir(device)); sysfs.IsPCIAddress(parent) {
				p.Parent = parent
			}
		}
		p.Speed, p.MaxSpeed = r.linkSpeed(dir, name, "current_link_speed"), r.linkSpeed(dir, name, "max_link_speed")
		p.Width, p.MaxWidth = r.linkWidth(dir, name, "current_link_width"), r.linkWidth(dir, name, "max_link_width")
		r.readBoard(dir, name, &p)
		r.readACS(dir, name, &p)
		r.readAER(dir, name, &p)
		r.inv.PCI = append(r.inv.PCI, p)
	}
	if len(names) == 0 {
		r.missingf("pci", "the kernel shows no PCI bus (/%s)", dir)
	}
	r.findSwitches()
}

// linkSpeed is "32.0 GT/s PCIe" as the kernel prints it, or "" where a function has no link of its own.
func (r *reading) linkSpeed(parts ...string) string {
	s := r.fs.Try(parts...)
	if strings.HasPrefix(s, "Unknown") {
		return ""
	}
	return s
}

func (r *reading) linkWidth(parts ...string) int {
	n, err := strconv.Atoi(r.fs.Try(parts...))
	if err != nil || n < 0 || n > 64 { // the kernel prints 255 for unknown
		return 0
	}
	return n
}
