package rdma

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/Mellanox/rdmamap"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// live is what netlink tells of this machine.
type live struct {
	info      map[string]map[string]string // by PCI address
	resources map[string]map[string]int64  // by device
}

// askKernel asks devlink and RDMA netlink. Kernels without one of them answer that the family is not known; that is said once. The library gives each
// request a deadline of a minute.
func askKernel(r *reading) live {
	l := live{info: map[string]map[string]string{}, resources: map[string]map[string]int64{}}
	names, err := r.List(class)
	if err != nil {
		r.missing("hca", err)
	}
	for _, name := range names {
		address := r.Base(class, name, "device")
		info, err := netlink.DevlinkGetDeviceInfoByNameAsMap("pci", address)
		if err != nil {
			if !errors.Is(err, unix.ENODEV) {
				r.missing("hca devlink", fmt.Errorf("ask devlink: %w", err))
			}
			continue
		}
		if dev, err := netlink.DevLinkGetDeviceByName("pci", address); err == nil && dev.Attrs.Eswitch.Mode != "" {
			info["eswitch.mode"] = dev.Attrs.Eswitch.Mode
		}
		l.info[address] = info
		r.Keep(devlinkDir+"/"+address, lines(info))
	}
	list, err := netlink.RdmaResourceList()
	if err != nil {
		r.missing("hca resources", fmt.Errorf("ask for open resources: %w", err))
	}
	for _, device := range list {
		counts := map[string]int64{}
		for k, n := range device.RdmaResourceSummaryEntries {
			counts[k] = int64(n)
		}
		l.resources[device.Name] = counts
		r.Keep(resourceDir+"/"+device.Name, lines(counts))
	}
	return l
}

// lines are a recording's: a name and a value each.
func lines[V any](values map[string]V) []byte {
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&b, "%s %v\n", k, values[k])
	}
	return b.Bytes()
}

// crossCheck asks Mellanox's own map of devices and interfaces, which reads the same machine in its own way: where it disagrees, the inventory says so.
func (r *reading) crossCheck(list []fleet.HCA) {
	for _, h := range list {
		if h.PCIAddress == "" {
			continue
		}
		if of := rdmamap.GetRdmaDevicesForPcidev(h.PCIAddress); !slices.Contains(of, h.Name) {
			r.missingf("hca/"+h.Name, "rdmamap finds %v at %s", of, h.PCIAddress)
		}
		for _, p := range h.Ports {
			for _, name := range p.Interfaces {
				// It matches by GUID or by GID, which an interface that is down has not got.
				if of, err := rdmamap.GetRdmaDeviceForNetdevice(name); err == nil && of != h.Name {
					r.missingf("hca/"+h.Name, "rdmamap says that %s belongs to %s", name, of)
				}
			}
		}
	}
}
