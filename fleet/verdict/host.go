package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// disks judges drives by their own account (NVMe log page 02h).
func (j *judge) disks() {
	media := 0.0
	if l := j.class.Expect.Limit("nvme-media-errors"); l != nil {
		media = l.Value
	}
	used := j.class.Expect.Limit("nvme-used")
	for _, d := range j.inv.Disks {
		if d.BootMedium || d.Removable {
			continue
		}
		c := "disk/" + d.Name
		what := fmt.Sprintf("%s (%s, serial %s)", d.Name, orUnknown(d.Model), orUnknown(d.Serial))
		s := d.Smart
		if s == nil {
			if used != nil && d.Transport == "nvme" {
				j.unread(c, "the drive's health", "disks", "smart")
			}
			continue
		}
		f := finding{component: c, do: "replace"}
		switch {
		case len(s.CriticalWarning) > 0:
			f.code, f.want, f.got = "MC-NVME-WARNING", "none", strings.Join(s.CriticalWarning, ", ")
			if slices.Equal(s.CriticalWarning, []string{"temperature"}) {
				f.do = "reseat"
			}
			j.block(f, "%s gives a critical warning: %s", what, f.got)
		case s.SpareThreshold > 0 && s.SparePercent < s.SpareThreshold:
			f.code, f.want, f.got = "MC-NVME-SPARE", fmt.Sprintf("at least %d %%", s.SpareThreshold), fmt.Sprintf("%d %%", s.SparePercent)
			j.block(f, "%s has %d %% of its spare blocks left, its own threshold is %d %%", what, s.SparePercent, s.SpareThreshold)
		case float64(s.MediaErrors) > media:
			f.code, f.want, f.got = "MC-NVME-ERRORS", fmt.Sprintf("at most %g", media), fmt.Sprint(s.MediaErrors)
			j.block(f, "%s could not read or write its medium %s", what, times(int(s.MediaErrors)))
		case used != nil && float64(s.UsedPercent) > used.Value:
			f.code, f.against, f.want, f.got = "MC-NVME-WORN", fleet.AgainstClass, fmt.Sprintf("at most %g %%", used.Value), fmt.Sprintf("%d %%", s.UsedPercent)
			j.block(f, "%s has used %d %% of its life, class %s wants at most %g (%s)", what, s.UsedPercent, j.class.Name, used.Value, used.Source)
		case used == nil && s.UsedPercent >= 100:
			f.code, f.want, f.got = "MC-NVME-WORN", "below 100 %", fmt.Sprintf("%d %%", s.UsedPercent)
			j.block(f, "%s has used %d %% of the life that it was made for", what, s.UsedPercent)
		}
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// memory judges modules by EDAC's counters, and their number and kind by the class.
func (j *judge) memory() {
	limit := j.class.Expect.Limit("dimm-corrected-errors")
	for _, d := range j.inv.Memory.DIMMs {
		f := finding{code: "MC-DIMM-ERRORS", component: "dimm/" + d.Locator, want: "0", do: "replace"}
		what := fmt.Sprintf("module %s (%s, serial %s)", d.Locator, orUnknown(d.Part), orUnknown(d.Serial))
		fixed := deref(d.Corrected)
		switch {
		case deref(d.Uncorrected) > 0:
			f.got = fmt.Sprint(*d.Uncorrected)
			j.block(f, "%s: %s could not be corrected since boot", what, count(int(*d.Uncorrected), "error"))
		case limit != nil && float64(fixed) > limit.Value:
			f.against, f.want, f.got = fleet.AgainstClass, fmt.Sprintf("at most %g", limit.Value), fmt.Sprint(fixed)
			j.block(f, "%s corrected %s since boot, class %s wants at most %g (%s)", what, count(int(fixed), "error"), j.class.Name, limit.Value, limit.Source)
		case fixed > 0:
			f.got, f.do = fmt.Sprint(fixed), "retest"
			j.warn(f, "%s corrected %s since boot", what, count(int(fixed), "error"))
		}
	}
	j.modules()
}

func (j *judge) modules() {
	e, class := j.class.Expect.DIMMs, j.class.Name
	if e == (fleet.ExpectDIMMs{}) {
		return
	}
	var empty []string
	plugged := 0
	for _, d := range j.inv.Memory.DIMMs {
		if d.SizeBytes == 0 {
			empty = append(empty, d.Locator)
			continue
		}
		plugged++
		f := finding{code: "MC-DIMM-KIND", component: "dimm/" + d.Locator, against: fleet.AgainstClass, do: "replace"}
		switch {
		case e.SizeBytes > 0 && d.SizeBytes != e.SizeBytes:
			f.want, f.got = fmt.Sprint(e.SizeBytes), fmt.Sprint(d.SizeBytes)
			j.block(f, "module %s has %d GiB, class %s wants %d GiB", d.Locator, d.SizeBytes>>30, class, e.SizeBytes>>30)
		case e.SpeedMTs > 0 && d.SpeedMTs != 0 && d.SpeedMTs < e.SpeedMTs:
			f.want, f.got = fmt.Sprint(e.SpeedMTs), fmt.Sprint(d.SpeedMTs)
			j.block(f, "module %s runs at %d MT/s, class %s wants %d", d.Locator, d.SpeedMTs, class, e.SpeedMTs)
		}
	}
	if e.Count == 0 || plugged == e.Count {
		return
	}
	f := finding{code: "MC-DIMM-MISSING", component: "dimms", against: fleet.AgainstClass, want: fmt.Sprint(e.Count), got: fmt.Sprint(plugged), do: "reseat"}
	switch {
	case len(j.inv.Memory.DIMMs) == 0:
		j.unread("dimms", "the memory modules", "memory", "dmi")
		return
	case len(empty) > 0 && len(empty) == e.Count-plugged:
		for _, slot := range empty {
			f.component, f.want, f.got = "dimm/"+slot, "a module", "none"
			j.block(f, "no module is seen in slot %s: it is not plugged, or the firmware switched it off", slot)
		}
	default:
		j.block(f, "%d memory modules found, class %s wants %d", plugged, class, e.Count)
	}
	j.cover("memory")
}

// mixed finds what should be alike within one machine: the odd one out of equal parts.
func (j *judge) mixed() {
	gpus := func(get func(fleet.GPU) string) (comp, val []string) {
		for i, g := range j.inv.GPUs {
			if v := get(g); v != "" && !j.explained(j.names.gpu[i]) && g.Index >= 0 {
				comp, val = append(comp, j.names.gpu[i]), append(val, v)
			}
		}
		return comp, val
	}
	class := j.class.Expect
	if class.GPUs.Model == "" && class.GPUs.PCIDevice == "" {
		c, v := gpus(func(g fleet.GPU) string { return g.Model })
		j.odd(c, v, true, "MC-GPU-MODEL", "replace", "model")
	}
	if j.said("gpu", "MC-GPU-MODEL") == nil {
		if class.Firmware.VBIOS == "" {
			c, v := gpus(func(g fleet.GPU) string { return g.VBIOS })
			j.odd(c, v, false, "MC-FIRMWARE-MIXED", "update", "VBIOS")
		}
		if class.Firmware.InfoROM == "" {
			c, v := gpus(func(g fleet.GPU) string { return g.InfoROM["image"] })
			j.odd(c, v, false, "MC-FIRMWARE-MIXED", "update", "InfoROM image")
		}
	}
	psid := map[string][2][]string{}
	for _, h := range j.inv.HCAs {
		if h.PSID != "" && h.Firmware != "" && class.Firmware.HCA[h.PSID] == "" {
			x := psid[h.PSID]
			psid[h.PSID] = [2][]string{append(x[0], "hca/"+h.Name), append(x[1], h.Firmware)}
		}
	}
	for _, k := range sortedKeys(psid) {
		j.odd(psid[k][0], psid[k][1], false, "MC-FIRMWARE-MIXED", "update", "firmware")
	}
	var c, v []string
	for _, p := range j.inv.CPUs {
		if p.Microcode != "" {
			c, v = append(c, fmt.Sprintf("cpu/%d", p.Socket)), append(v, p.Microcode)
		}
	}
	j.odd(c, v, false, "MC-FIRMWARE-MIXED", "update", "microcode")
	if class.DIMMs == (fleet.ExpectDIMMs{}) {
		c, v = nil, nil
		for _, d := range j.inv.Memory.DIMMs {
			if d.SizeBytes > 0 {
				c, v = append(c, "dimm/"+d.Locator), append(v, fmt.Sprintf("%d GiB at %d MT/s", d.SizeBytes>>30, d.SpeedMTs))
			}
		}
		j.odd(c, v, false, "MC-DIMM-KIND", "replace", "size and speed")
	}
}

// odd reports those of equal parts that differ from the most of them; where no value is the most frequent, all of them once.
func (j *judge) odd(components, values []string, blocks bool, code, do, what string) {
	n := map[string]int{}
	for _, v := range values {
		n[v]++
	}
	if len(n) < 2 {
		return
	}
	report := j.warn
	if blocks {
		report = j.block
	}
	most, tie := "", false
	for _, v := range sortedKeys(n) {
		switch {
		case most == "" || n[v] > n[most]:
			most, tie = v, false
		case n[v] == n[most]:
			tie = true
		}
	}
	if tie {
		kind, _, _ := strings.Cut(components[0], "/")
		report(finding{code: code, component: kind + "s", want: "one " + what, got: list(sortedKeys(n)), do: do}, "the %ss differ in their %s: %s", kind, what, list(sortedKeys(n)))
		return
	}
	for i, v := range values {
		if v != most {
			report(finding{code: code, component: components[i], want: most, got: v, do: do}, "%s: %s is %s, that of the other %d is %s", components[i], what, v, n[most], most)
		}
	}
}
