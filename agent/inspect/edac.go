package inspect

import "strings"

// readEDAC joins the kernel's error counts to the modules, by the label that the driver gives a module and the locator that SMBIOS gives it. Drivers that
// know only channels (CPU_SrcID#0_MC#0_Chan#0_DIMM#0) name no slot: their errors are told as missing, never put on a module by guess.
func (r *reading) readEDAC() {
	const dir = "sys/devices/system/edac/mc"
	controllers, err := r.fs.List(dir)
	if err != nil {
		r.missing("memory errors", err)
		return
	}
	seen, joined := 0, 0
	for _, mc := range controllers {
		if !strings.HasPrefix(mc, "mc") {
			continue
		}
		names, err := r.fs.List(dir, mc)
		if err != nil {
			r.missing("memory errors "+mc, err)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, "dimm") && !strings.HasPrefix(name, "rank") {
				continue
			}
			seen++
			label := r.fs.Try(dir, mc, name, "dimm_label")
			corrected, err1 := r.fs.Number(dir, mc, name, "dimm_ce_count")
			uncorrected, err2 := r.fs.Number(dir, mc, name, "dimm_ue_count")
			if err1 != nil || err2 != nil {
				r.missingf("memory errors "+mc+"/"+name, "%v, %v", err1, err2)
				continue
			}
			if i := r.module(label); i >= 0 {
				joined++
				d := &r.inv.Memory.DIMMs[i]
				d.Corrected, d.Uncorrected = add(d.Corrected, corrected), add(d.Uncorrected, uncorrected)
			} else if corrected > 0 || uncorrected > 0 {
				r.missingf("memory errors "+mc+"/"+name, "%d corrected and %d uncorrected errors are of a module that the kernel calls %q, and SMBIOS none", corrected, uncorrected, label)
			}
		}
	}
	if seen > 0 && joined == 0 {
		r.missingf("memory errors", "none of the kernel's %d labels names a module of SMBIOS", seen)
	}
}

// module finds the module that a label names: its whole locator, or the last word of it, as firmware joins bank and slot in many ways.
func (r *reading) module(label string) int {
	found := -1
	for i, d := range r.inv.Memory.DIMMs {
		words := strings.Fields(d.Locator)
		if label == "" || len(words) == 0 {
			continue
		}
		if label == d.Locator {
			return i
		}
		if label == words[len(words)-1] {
			if found >= 0 {
				return -1 // two banks have a slot of that name
			}
			found = i
		}
	}
	return found
}

func add(p *int64, n int64) *int64 {
	if p != nil {
		n += *p
	}
	return &n
}
