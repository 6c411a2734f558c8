package inspect

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// etherType is ARPHRD_ETHER, what /sys/class/net/X/type says of Ethernet (linux/if_arp.h).
const etherType = 1

// readNICs reads every Ethernet interface with hardware behind it, and who is at the other end of its wire.
func (r *reading) readNICs(ctx context.Context) {
	if r.opts.NICs != nil {
		r.inv.NICs = slices.Clone(r.opts.NICs)
		return
	}
	names, err := r.fs.List("sys/class/net")
	if err != nil {
		r.missing("nic", err)
		return
	}
	var wired []string
	for _, name := range names {
		// Links in the air and on the bench (lo, bonds, bridges, veth) have no device.
		if r.fs.NumberOr(0, "sys/class/net", name, "type") == etherType && r.fs.Exists("sys/class/net", name, "device") {
			wired = append(wired, name)
		}
	}
	var heard map[string]fleet.Neighbor
	var restore func()
	if r.opts.LLDPWait > 0 && r.fs.Live() {
		restore = r.raise(ctx, wired)
		var errs map[string]error
		heard, errs = Listen(ctx, wired, r.opts.LLDPWait)
		for name, err := range errs {
			r.missing("nic/"+name+" lldp", err)
		}
	}
	for _, name := range wired {
		n := r.nic(name)
		switch neighbor, ok := heard[name]; {
		case ok:
			n.LLDP = &neighbor
		case r.opts.LLDPWait == 0:
			r.missingf("nic/"+name+" lldp", "not listened for")
		case !r.fs.Live():
			r.missingf("nic/"+name+" lldp", "a recording cannot be listened to")
		case !n.Carrier:
			r.missingf("nic/"+name+" lldp", "no carrier")
		default:
			r.missingf("nic/"+name+" lldp", "nothing heard within %s", r.opts.LLDPWait)
		}
		r.inv.NICs = append(r.inv.NICs, n)
	}
	if restore != nil {
		restore()
	}
}

func (r *reading) nic(name string) fleet.NIC {
	dir := "sys/class/net/" + name
	device := r.fs.Device(dir, "device")
	n := fleet.NIC{Name: name, PCIAddress: sysfs.PCIAddress(device), Driver: r.fs.Base(dir, "device/driver"), NUMANode: -1}
	// A member of a bond shows the bond's address; its own is kept beside.
	n.MAC = fleet.MAC(strings.ToLower(first(r.fs.Try(dir, "bonding_slave/perm_hwaddr"), r.fs.Try(dir, "address"))))
	if _, err := net.ParseMAC(string(n.MAC)); err != nil {
		r.missingf("nic/"+name+" mac", "%q is not an address", n.MAC)
		n.MAC = ""
	}
	if n.PCIAddress != "" {
		n.NUMANode = int(r.fs.NumberOr(-1, "sys/bus/pci/devices", n.PCIAddress, "numa_node"))
	}
	// Reading carrier of an interface that is down is an error by design (net-sysfs.c): it has none that anybody could use.
	n.Carrier = r.fs.NumberOr(0, dir, "carrier") == 1
	if speed := r.fs.NumberOr(-1, dir, "speed"); n.Carrier && speed > 0 {
		n.SpeedMbps = int(speed)
	}
	mtu, err := r.fs.Number(dir, "mtu")
	if err != nil {
		r.missing(fmt.Sprintf("nic/%s mtu", name), err)
	}
	n.MTU = int(mtu)
	if r.fs.Live() {
		n.Addresses = r.addresses(name)
	}
	return n
}

func (r *reading) addresses(name string) []string {
	ifi, err := net.InterfaceByName(name)
	if err == nil {
		var addrs []net.Addr
		if addrs, err = ifi.Addrs(); err == nil {
			var out []string
			for _, a := range addrs {
				out = append(out, a.String())
			}
			return out
		}
	}
	r.missing("nic/"+name+" addresses", err)
	return nil
}
