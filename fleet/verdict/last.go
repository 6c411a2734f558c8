package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Last says what has changed since an earlier inventory of the same machine: parts that were swapped or moved, cables, firmware. A part that is another
// blocks, as nobody has said what it is and no burn-in has seen it.
func Last(inv, last fleet.Inventory) []fleet.Difference {
	j := newJudge(&inv, fleet.Class{})
	was := nameParts(&last)
	j.swappedGPUs(&last, was)
	j.swappedParts(&last)
	j.movedCables(&last)
	j.changedFirmware(&last, was)
	for i := range j.out {
		j.out[i].Against = fleet.AgainstLast
	}
	return sorted(j.out)
}

func (j *judge) swappedGPUs(last *fleet.Inventory, was *names) {
	before := map[string]fleet.GPU{}
	home := map[string]string{} // by serial
	for i, g := range last.GPUs {
		before[was.gpu[i]] = g
		if g.Serial != "" {
			home[g.Serial] = was.gpu[i]
		}
	}
	here := map[string]bool{}
	for i, g := range j.inv.GPUs {
		name := j.names.gpu[i]
		here[name] = true
		old, ok := before[name]
		switch {
		case !ok:
			j.warn(finding{code: "MC-PART-ADDED", component: name, want: "absent", got: orUnknown(g.Serial), do: "none"}, "%s was not there", j.part(i))
		case g.Serial == "" || old.Serial == "" || g.Serial == old.Serial:
			if g.UUID != "" && old.UUID != "" && g.UUID != old.UUID && (g.Serial == "" || old.Serial == "") {
				j.block(finding{code: "MC-PART-SWAPPED", component: name, want: old.UUID, got: g.UUID, do: "none"}, "%s is another one: its UUID was %s and is %s", j.part(i), old.UUID, g.UUID)
			}
		case home[g.Serial] != "":
			j.block(finding{code: "MC-PART-MOVED", component: name, want: old.Serial, got: g.Serial, do: "none"}, "%s was at %s, and %s was here", j.part(i), home[g.Serial], old.Serial)
		default:
			j.block(finding{code: "MC-PART-SWAPPED", component: name, want: old.Serial, got: g.Serial, do: "none"}, "%s is another one: its serial was %s and is %s", j.part(i), old.Serial, g.Serial)
		}
	}
	for i, g := range last.GPUs {
		if !here[was.gpu[i]] {
			j.warn(finding{code: "MC-PART-GONE", component: was.gpu[i], want: orUnknown(g.Serial), got: "absent", do: "reseat"}, "%s (serial %s) is gone", strings.Replace(was.gpu[i], "gpu/", "GPU ", 1), orUnknown(g.Serial))
		}
	}
}

// seat is a part in a place.
type seat struct{ component, serial, what string }

func (j *judge) swappedParts(last *fleet.Inventory) {
	j.seats(dimmSeats(last), dimmSeats(j.inv), j.block)
	j.seats(hcaSeats(last), hcaSeats(j.inv), j.block)
	j.seats(diskSeats(last), diskSeats(j.inv), j.warn) // which disks may be there is what accept agrees to
}

func dimmSeats(inv *fleet.Inventory) (out []seat) {
	for _, d := range inv.Memory.DIMMs {
		if d.SizeBytes > 0 {
			out = append(out, seat{"dimm/" + d.Locator, d.Serial, "module"})
		}
	}
	return out
}

// HCAs have their node GUID for a serial: it is burned into the card.
func hcaSeats(inv *fleet.Inventory) (out []seat) {
	for _, h := range inv.HCAs {
		id := string(h.NodeGUID)
		if id == "" {
			id = h.Serial
		}
		out = append(out, seat{"pci/" + h.PCIAddress, id, "HCA " + h.Name})
	}
	return out
}

// Drives are in place by their PCI address; names may change from boot to boot.
func diskSeats(inv *fleet.Inventory) (out []seat) {
	for _, d := range inv.Disks {
		if !d.BootMedium && !d.Removable && d.PCIAddress != "" && d.Transport == "nvme" {
			out = append(out, seat{"pci/" + d.PCIAddress, d.Serial, "drive " + d.Name})
		}
	}
	return out
}

func (j *judge) seats(before, now []seat, swapped func(finding, string, ...any) bool) {
	old, home := map[string]seat{}, map[string]string{}
	for _, s := range before {
		old[s.component] = s
		if s.serial != "" {
			home[s.serial] = s.component
		}
	}
	here := map[string]bool{}
	for _, s := range now {
		here[s.component] = true
		o, ok := old[s.component]
		f := finding{component: s.component, want: o.serial, got: s.serial, do: "none"}
		switch from := home[s.serial]; {
		case ok && (o.serial == s.serial || s.serial == "" || o.serial == ""):
		case from != "" && s.serial != "":
			f.code = "MC-PART-MOVED"
			j.warn(f, "the %s with serial %s at %s was at %s", s.what, s.serial, s.component, from)
		case ok:
			f.code = "MC-PART-SWAPPED"
			swapped(f, "the %s at %s is another one: its serial was %s and is %s", s.what, s.component, o.serial, s.serial)
		default:
			f.code, f.want = "MC-PART-ADDED", "absent"
			j.warn(f, "the %s at %s (serial %s) was not there", s.what, s.component, orUnknown(s.serial))
		}
	}
	moved := map[string]bool{}
	for _, s := range now {
		moved[s.serial] = true
	}
	for _, s := range before {
		if !here[s.component] && !moved[s.serial] {
			j.warn(finding{code: "MC-PART-GONE", component: s.component, want: orUnknown(s.serial), got: "absent", do: "reseat"}, "the %s at %s (serial %s) is gone", s.what, s.component, orUnknown(s.serial))
		}
	}
}

// movedCables compares what switches say of themselves by LLDP on each network card, and the cable's own serial on each HCA port.
func (j *judge) movedCables(last *fleet.Inventory) {
	was := map[fleet.MAC]*fleet.Neighbor{}
	for _, n := range last.NICs {
		was[n.MAC] = n.LLDP
	}
	for _, n := range j.inv.NICs {
		old, now := was[n.MAC], n.LLDP
		if old == nil || now == nil || old.ChassisID == now.ChassisID && old.PortID == now.PortID {
			continue
		}
		from, to := endOf(old), endOf(now)
		j.warn(finding{code: "MC-CABLE-MOVED", component: "nic/" + n.Name, want: from, got: to, do: "cable"}, "the cable of %s (%s) led to %s and leads to %s", n.Name, n.MAC, from, to)
	}
	type port struct {
		guid fleet.GUID
		n    int
	}
	cable := map[port]fleet.HCAPort{}
	for _, h := range last.HCAs {
		for _, p := range h.Ports {
			cable[port{h.NodeGUID, p.Port}] = p
		}
	}
	for _, h := range j.inv.HCAs {
		for _, p := range h.Ports {
			old, ok := cable[port{h.NodeGUID, p.Port}]
			name := fmt.Sprintf("hca/%s/port/%d", h.Name, p.Port)
			if ok && old.Module != nil && p.Module != nil && old.Module.Serial != p.Module.Serial {
				j.warn(finding{code: "MC-CABLE-MOVED", component: name, want: orUnknown(old.Module.Serial), got: orUnknown(p.Module.Serial), do: "cable"},
					"another module or cable is in %s port %d: its serial was %s and is %s", h.Name, p.Port, orUnknown(old.Module.Serial), orUnknown(p.Module.Serial))
			}
			if n := p.Counters["link_downed"] - old.Counters["link_downed"]; ok && n > 0 && last.System.Kernel == j.inv.System.Kernel && p.Counters["link_downed"] > 1 {
				j.warn(finding{code: "MC-HCA-ERRORS", component: name, want: "no loss of link", got: times(int(n)), do: "retest"}, "%s port %d lost its link %s", h.Name, p.Port, times(int(n)))
			}
		}
	}
}

func endOf(n *fleet.Neighbor) string {
	name := n.SystemName
	if name == "" {
		name = n.ChassisID
	}
	return name + " " + n.PortID
}

func (j *judge) changedFirmware(last *fleet.Inventory, was *names) {
	type version struct{ component, what, value string }
	versions := func(inv *fleet.Inventory, n *names) (out []version) {
		add := func(c, what, v string) {
			if v != "" {
				out = append(out, version{c, what, v})
			}
		}
		add("system/bios", "the BIOS", inv.System.BIOS)
		add("bmc", "the BMC's firmware", deref(inv.BMC).Firmware)
		add("driver", "the GPU driver", deref(inv.GPUDriver).Version)
		for i, g := range inv.GPUs {
			add(n.gpu[i], "the VBIOS", g.VBIOS)
			add(n.gpu[i], "the InfoROM image", g.InfoROM["image"])
			add(n.gpu[i], "the GSP firmware", g.GSP)
		}
		for _, h := range inv.HCAs {
			add("hca/"+h.Name, "the firmware", h.Firmware)
			add("hca/"+h.Name, "the PSID", h.PSID)
			add("hca/"+h.Name, "the mode", h.Mode)
		}
		for _, d := range inv.Disks {
			if d.Serial != "" {
				add("disk/"+d.Serial, "the firmware", d.Firmware)
			}
		}
		for _, c := range inv.CPUs {
			add(fmt.Sprintf("cpu/%d", c.Socket), "the microcode", c.Microcode)
		}
		return out
	}
	old := map[[2]string]string{}
	for _, v := range versions(last, was) {
		old[[2]string{v.component, v.what}] = v.value
	}
	// What all parts of a kind went through together is one change.
	changes := map[[3]string][]string{}
	var order [][3]string
	total := map[[2]string]int{}
	for _, v := range versions(j.inv, j.names) {
		kind, _, _ := strings.Cut(v.component, "/")
		total[[2]string{kind, v.what}]++
		o, ok := old[[2]string{v.component, v.what}]
		if !ok || o == v.value {
			continue
		}
		k := [3]string{v.what, o, v.value}
		if changes[k] == nil {
			order = append(order, k)
		}
		changes[k] = append(changes[k], v.component)
	}
	for _, k := range order {
		cs := changes[k]
		kind, _, _ := strings.Cut(cs[0], "/")
		who := func(c string) string { return c + ": " }
		if len(cs) > 1 && len(cs) == total[[2]string{kind, k[0]}] && !slices.ContainsFunc(cs, func(c string) bool { return !strings.HasPrefix(c, kind+"/") }) {
			n := len(cs)
			cs, who = []string{kind + "s"}, func(string) string { return fmt.Sprintf("all %d %ss: ", n, kind) }
		}
		for _, c := range cs {
			if j.said(c, "MC-PART-SWAPPED", "MC-PART-MOVED") != nil {
				continue // another part has its own firmware
			}
			j.warn(finding{code: "MC-FIRMWARE-CHANGED", component: c, want: k[1], got: k[2], do: "none"}, "%s%s was %s and is %s", who(c), k[0], k[1], k[2])
		}
	}
}
