// Package rdma reads a machine's InfiniBand and RoCE devices: who they are, what their ports see, and what is plugged into them.
package rdma

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

const class = "sys/class/infiniband"

// reading is one look at the devices below a root.
type reading struct {
	sysfs.Tree
	missed []fleet.Missing
	live   live // what the kernel tells by netlink; empty for a recording, which has it as files
}

func (r *reading) missing(what string, err error) {
	m := fleet.Missing{What: what, Why: r.Plain(err)}
	if !slices.Contains(r.missed, m) {
		r.missed = append(r.missed, m)
	}
}

func (r *reading) missingf(what, format string, args ...any) {
	r.missing(what, fmt.Errorf(format, args...))
}

// Read reads every device that files show. Of this machine, netlink and ethtool are asked, too; a recording has their answers as files. Role is set only where
// the device tells it (management, fabric): what is a rail depends on where the GPUs are.
func Read(ctx context.Context, files sysfs.Tree) ([]fleet.HCA, []fleet.Missing) {
	r := &reading{Tree: files}
	names, err := r.List(class)
	if err != nil {
		r.missing("hca", err)
	}
	if len(names) == 0 {
		return nil, r.missed
	}
	if r.Live() {
		r.live = askKernel(r)
	}
	var out []fleet.HCA
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			r.missing("hca/"+name, err)
			break
		}
		out = append(out, r.device(name))
	}
	if r.Live() {
		r.crossCheck(out)
	}
	return out, r.missed
}

func (r *reading) device(name string) fleet.HCA {
	dir := class + "/" + name
	h := fleet.HCA{Name: name, NUMANode: -1, Type: r.Try(dir, "hca_type"), PSID: r.Try(dir, "board_id"), Firmware: r.Try(dir, "fw_ver"), Ports: []fleet.HCAPort{}}
	h.PCIAddress = r.Base(dir, "device")
	if h.PCIAddress == "" {
		h.PCIAddress = ""
		r.missingf("hca/"+name+" pci_address", "it has no device in sysfs")
	}
	pci := dir + "/device"
	if vendor, device := r.Try(pci, "vendor"), r.Try(pci, "device"); vendor != "" && device != "" {
		h.PCIDevice = strings.TrimPrefix(vendor, "0x") + ":" + strings.TrimPrefix(device, "0x")
	}
	h.NUMANode = int(r.NumberOr(-1, pci, "numa_node"))
	h.NodeGUID = r.guid(name, dir, "node_guid")
	h.SystemGUID = r.guid(name, dir, "sys_image_guid")
	h.PCIe = r.link(pci)
	vpd := r.vital(name, pci)
	h.Serial, h.Part = vpd["SN"], vpd["PN"]
	r.fromDevlink(&h)
	h.Role = r.role(h, vpd)
	h.TemperatureC = r.temperature(h)
	h.Resources = r.resources(name)
	ports, err := r.List(dir, "ports")
	if err != nil || len(ports) == 0 {
		r.missingf("hca/"+name+" ports", "it shows none: %v", err)
	}
	for _, p := range ports {
		n, err := strconv.Atoi(p)
		if err != nil {
			continue
		}
		h.Ports = append(h.Ports, r.port(h, n))
	}
	return h
}

// role is what the device itself tells. An NVLink subnet manager's functions say so in their vital product data (fabric manager's guide, "SW_MNG"); their
// counters are another system's, and asking for them makes their firmware complain.
func (r *reading) role(h fleet.HCA, vpd map[string]string) string {
	for _, v := range vpd {
		if strings.Contains(v, "SW_MNG") {
			return fleet.HCAFabric
		}
	}
	if strings.Contains(h.Name, "bond") {
		return fleet.HCAManagement
	}
	names, err := r.List(class, h.Name, "device/net")
	if err != nil {
		return ""
	}
	for _, n := range names {
		if r.Exists(class, h.Name, "device/net", n, "bonding_slave") {
			return fleet.HCAManagement
		}
	}
	return ""
}

// guid turns "a088:c203:00b2:f000" into the form of fleet.GUID.
func (r *reading) guid(name, dir, file string) fleet.GUID {
	text, err := r.Text(dir, file)
	if err != nil {
		r.missing("hca/"+name+" "+file, err)
		return ""
	}
	g := parseGUID(text)
	if g == "" {
		r.missingf("hca/"+name+" "+file, "%q is no GUID", text)
	}
	return g
}

// parseGUID reads four groups of four hex digits; all zero is none.
func parseGUID(text string) fleet.GUID {
	digits := strings.ToLower(strings.ReplaceAll(text, ":", ""))
	if len(digits) != 16 || strings.Trim(digits, "0123456789abcdef") != "" || strings.Trim(digits, "0") == "" {
		return ""
	}
	return fleet.GUID("0x" + digits)
}

// link is the PCIe link of the function.
func (r *reading) link(pci string) *fleet.PCIeLink {
	generation := func(file string) int {
		return slices.Index([]string{"2.5 GT/s PCIe", "5.0 GT/s PCIe", "8.0 GT/s PCIe", "16.0 GT/s PCIe", "32.0 GT/s PCIe", "64.0 GT/s PCIe"}, r.Try(pci, file)) + 1
	}
	width := func(file string) int {
		n := r.NumberOr(0, pci, file)
		if n < 0 || n > 64 {
			return 0 // 255 is the kernel's word for unknown
		}
		return int(n)
	}
	l := &fleet.PCIeLink{Generation: generation("current_link_speed"), Width: width("current_link_width"), MaxGeneration: generation("max_link_speed"), MaxWidth: width("max_link_width")}
	if *l == (fleet.PCIeLink{}) {
		return nil
	}
	return l
}

// temperature is the ASIC's, from its first sensor.
func (r *reading) temperature(h fleet.HCA) *int {
	if h.Role == fleet.HCAFabric {
		return nil
	}
	sensors, err := r.List(class, h.Name, "device/hwmon")
	if err != nil || len(sensors) == 0 {
		return nil
	}
	milli, err := r.Number(class, h.Name, "device/hwmon", sensors[0], "temp1_input")
	if err != nil {
		return nil
	}
	c := int(milli / 1000)
	return &c
}
