package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// gpuHealth judges what each GPU says of itself. Of several signs of one damage the one that tells what to do is reported.
func (j *judge) gpuHealth() {
	braked := j.braked()
	for i := range j.inv.GPUs {
		g := &j.inv.GPUs[i]
		if g.Index < 0 || j.explained(j.names.gpu[i]) {
			continue
		}
		j.gpuMemory(i, g)
		j.gpuSettings(i, g)
		j.gpuResidue(i, g)
		if !braked {
			j.gpuClocks(i, g)
		}
		j.gpuLimits(i, g)
		j.gpuExpect(i, g)
	}
	j.peers()
}

// maxRemapped is how many rows can be remapped before the GPU is to be replaced (DCGM 4.6 and Azure's health checks: 512).
const maxRemapped = 512

// gpuMemory: one damage of HBM shows as an error, a pending remap and an XID; what is to be done follows from the last of the chain.
func (j *judge) gpuMemory(i int, g *fleet.GPU) {
	name := j.names.gpu[i]
	at := func(code, want, got, do string) finding {
		return finding{code: code, component: name, want: want, got: got, do: do}
	}
	r, e := g.RemappedRows, g.ECC
	if g.InfoROMValid != nil && !*g.InfoROMValid {
		j.block(at("MC-GPU-INFOROM", "valid", "invalid", "replace"), "%s: the InfoROM's checksum does not fit, so that nothing it counts or is configured with can be believed", j.part(i))
	}
	most, source := float64(maxRemapped), "DCGM"
	if l := j.class.Expect.Limit("gpu-remapped-rows"); l != nil {
		most, source = l.Value, l.Source
	}
	switch {
	case e != nil && deref(e.SRAMThreshold):
		j.block(at("MC-GPU-SRAM", "below the driver's threshold", "above it", "replace"), "%s: the errors of its SRAM passed the driver's own threshold", j.part(i))
	case r != nil && r.Failure:
		j.block(at("MC-GPU-REMAP-FAILED", "none", "failed", "replace"), "%s: a damaged row of HBM could not be replaced by a spare one", j.part(i))
	case r != nil && r.Pending:
		j.block(at("MC-GPU-REMAP-PENDING", "none", "pending", "reset"), "%s: a damaged row of HBM waits for a reset to be replaced by a spare one", j.part(i))
	case r != nil && float64(r.Uncorrectable) > most:
		j.block(at("MC-GPU-LIMIT", fmt.Sprintf("at most %g", most), fmt.Sprint(r.Uncorrectable), "replace"), "%s: %d rows of HBM were replaced after errors, more than %g (%s)", j.part(i), r.Uncorrectable, most, source)
	case e != nil && e.Volatile.Uncorrected+e.Volatile.SRAMUncorrected+e.Volatile.DRAMUncorrected > 0:
		n := max(e.Volatile.Uncorrected, e.Volatile.SRAMUncorrected+e.Volatile.DRAMUncorrected)
		where := "memory"
		if e.Volatile.SRAMUncorrected > 0 && e.Volatile.DRAMUncorrected == 0 {
			where = "SRAM"
		}
		j.block(at("MC-GPU-ECC", "0", fmt.Sprint(n), "reset"), "%s: %s of its %s could not be corrected since the driver was loaded", j.part(i), count(int(n), "error"), where)
	case e != nil && e.Aggregate.SRAMUncorrected > 0:
		j.warn(at("MC-GPU-ECC", "0", fmt.Sprint(e.Aggregate.SRAMUncorrected), "retest"), "%s: %s of its SRAM could not be corrected over its life", j.part(i), count(int(e.Aggregate.SRAMUncorrected), "error"))
	case r != nil && r.Banks["none"] > 0:
		j.warn(at("MC-GPU-REMAP-SPENT", "spare rows in each bank", fmt.Sprintf("%d banks without", r.Banks["none"]), "retest"), "%s: %s of HBM without spare rows: the next error there ends it", j.part(i), count(int(r.Banks["none"]), "bank"))
	}
}

func (j *judge) gpuSettings(i int, g *fleet.GPU) {
	name := j.names.gpu[i]
	if e := g.ECC; e != nil {
		switch m := e.Mode; {
		case m.Now == "off" && m.Next != "on":
			j.block(finding{code: "MC-GPU-ECC-MODE", component: name, want: "on", got: "off", do: "configure"}, "%s: ECC is off, so that errors of its memory go unseen", j.part(i))
		case m.Now != m.Next && m.Next != "" && m.Now != "":
			j.block(finding{code: "MC-GPU-ECC-MODE", component: name, want: "on", got: m.Now + ", " + m.Next + " after a reset", do: "reset"}, "%s: ECC is %s and will be %s after the next reset", j.part(i), m.Now, m.Next)
		}
	}
	if m := g.MIG; m != nil && (m.Now == "on" || m.Next == "on") {
		got, words := "on", "MIG is on: it was left so, and the GPU shows itself in parts"
		if m.Now != "on" {
			got, words = "on after a reset", "MIG will be on after the next reset"
		} else if m.Next == "off" {
			got, words = "off after a reset", "MIG is on until the next reset"
		}
		j.block(finding{code: "MC-GPU-MIG", component: name, want: "off", got: got, do: "configure"}, "%s: %s", j.part(i), words)
	}
	if want, got := j.class.Expect.GPUs.Confidential, g.Confidential; want != "" && got != want {
		if got == "" {
			j.unread(name, "confidential computing", "gpu", "nvml")
		} else {
			j.block(finding{code: "MC-GPU-CONFIDENTIAL", component: name, against: fleet.AgainstClass, want: want, got: got, do: "configure"}, "%s: confidential computing is %s, class %s wants %s", j.part(i), got, j.class.Name, want)
		}
	}
	if m := g.ComputeMode; m != "" && m != "default" {
		j.warn(finding{code: "MC-GPU-COMPUTE-MODE", component: name, want: "default", got: m, do: "configure"}, "%s: the compute mode is %s, which somebody set", j.part(i), m)
	}
}

// leftMemory is more than a driver keeps for itself while nobody uses the GPU: NVML counts its reserve separately.
const leftMemory = 1 << 30

func (j *judge) gpuResidue(i int, g *fleet.GPU) {
	name := j.names.gpu[i]
	most := float64(leftMemory)
	if l := j.class.Expect.Limit("gpu-memory-used"); l != nil {
		most = l.Value * (1 << 20)
	}
	var who []string
	for _, p := range g.Processes {
		who = append(who, strings.TrimSpace(fmt.Sprintf("%d %s", p.PID, p.Name)))
	}
	used := float64(deref(g.MemoryUsedBytes))
	switch {
	case len(who) > 0:
		j.block(finding{code: "MC-GPU-RESIDUE", component: name, want: "no process", got: count(len(who), "process"), do: "reboot"}, "%s is used by %s: %s", j.part(i), count(len(who), "process"), strings.Join(firsts(who, 3), ", "))
	case used > most:
		j.block(finding{code: "MC-GPU-RESIDUE", component: name, want: fmt.Sprintf("at most %.0f MiB", most/(1<<20)), got: fmt.Sprintf("%.0f MiB", used/(1<<20)), do: "reset"},
			"%s: %.0f MiB of its memory are taken, and no process says that they are its", j.part(i), used/(1<<20))
	}
}

func firsts(xs []string, n int) []string {
	if len(xs) > n {
		return append(slices.Clone(xs[:n]), "...")
	}
	return xs
}

// braked: all GPUs braked at once are the power supply's or the board's affair, not theirs.
func (j *judge) braked() bool {
	n, of := 0, 0
	for i, g := range j.inv.GPUs {
		if g.Index < 0 || j.explained(j.names.gpu[i]) {
			continue
		}
		of++
		if slices.ContainsFunc(g.ClockReasons, func(r string) bool { return strings.HasPrefix(r, "hw-power-brake") }) {
			n++
		}
	}
	if n < 2 || n < of {
		return false
	}
	return j.block(finding{code: "MC-GPU-SLOWDOWN", component: "system/power", want: "no power brake", got: fmt.Sprintf("%d of %d GPUs", n, of), do: "reseat"},
		"all %d GPUs are slowed down by the power brake signal: look at the power supplies, not at the GPUs", n)
}

func (j *judge) gpuClocks(i int, g *fleet.GPU) {
	name := j.names.gpu[i]
	var hard []string
	for _, r := range g.ClockReasons {
		if strings.HasPrefix(r, "hw-") {
			hard = append(hard, r)
		}
	}
	slices.Sort(hard)
	t := g.Temperatures
	if t == nil {
		t = &fleet.Temperatures{}
	}
	least, source := 1.0, ""
	if l := j.class.Expect.Limit("gpu-temperature-margin"); l != nil {
		least, source = l.Value, ", by "+l.Source
	}
	hot := t.Margin != nil && float64(*t.Margin) < least || t.GPU != nil && t.Slowdown != nil && *t.GPU >= *t.Slowdown || t.Memory != nil && t.MemoryMax != nil && *t.Memory >= *t.MemoryMax
	warmth := temperatureWords(t)
	switch {
	case len(hard) > 0 && (hot || slices.ContainsFunc(hard, func(r string) bool { return strings.HasPrefix(r, "hw-thermal") })):
		j.block(finding{code: "MC-GPU-SLOWDOWN", component: name, want: "no slowdown", got: strings.Join(hard, ", "), do: "reseat"}, "%s is slowed down by its hardware because it is too hot (%s)%s", j.part(i), strings.Join(hard, ", "), warmth)
	case len(hard) > 0:
		j.block(finding{code: "MC-GPU-SLOWDOWN", component: name, want: "no slowdown", got: strings.Join(hard, ", "), do: "cold-cycle"}, "%s is slowed down by its hardware (%s)%s", j.part(i), strings.Join(hard, ", "), warmth)
	case hot:
		j.block(finding{code: "MC-GPU-HOT", component: name, want: fmt.Sprintf("%g C below slowing down", least), got: strings.TrimPrefix(warmth, ": "), do: "reseat"}, "%s is too hot while nobody uses it%s%s", j.part(i), warmth, source)
	case slices.ContainsFunc(g.ClockReasons, func(r string) bool { return strings.HasPrefix(r, "sw-thermal") }):
		j.warn(finding{code: "MC-GPU-SLOWDOWN", component: name, want: "no slowdown", got: "sw-thermal", do: "retest"}, "%s is slowed down by its driver because of heat%s", j.part(i), warmth)
	}
}

func temperatureWords(t *fleet.Temperatures) string {
	var out []string
	for _, v := range []struct {
		name string
		c    *int
	}{{"GPU", t.GPU}, {"HBM", t.Memory}, {"margin", t.Margin}} {
		if v.c != nil {
			out = append(out, fmt.Sprintf("%s %d C", v.name, *v.c))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ": " + strings.Join(out, ", ")
}

func (j *judge) gpuLimits(i int, g *fleet.GPU) {
	name := j.names.gpu[i]
	if p := g.Power; p != nil && p.Default > 0 && p.Limit > 0 && p.Limit < p.Default {
		j.block(finding{code: "MC-GPU-POWER-LIMIT", component: name, want: watts(p.Default), got: watts(p.Limit), do: "configure"}, "%s may draw %s only, by default %s: somebody has set a limit", j.part(i), watts(p.Limit), watts(p.Default))
	}
	bound := func(check string, got float64, known bool, what string) {
		l := j.class.Expect.Limit(check)
		if l == nil {
			return
		}
		if !known {
			j.unread(name, what, "gpu", "nvml")
			return
		}
		word, bad := "most", got > l.Value
		for _, c := range fleet.LimitChecks {
			if c.Name == check && c.Least {
				word, bad = "least", got < l.Value
			}
		}
		if bad {
			j.block(finding{code: "MC-GPU-LIMIT", component: name, against: fleet.AgainstClass, want: fmt.Sprintf("at %s %g %s", word, l.Value, l.Unit), got: fmt.Sprintf("%g %s", got, l.Unit), do: "retest"},
				"%s: %s is %g %s, class %s wants at %s %g (%s)", j.part(i), what, got, l.Unit, j.class.Name, word, l.Value, l.Source)
		}
	}
	power, clocks, link, e := deref(g.Power), deref(g.Clocks), deref(g.PCIe), deref(g.ECC)
	if j.said(name, "MC-GPU-POWER-LIMIT") == nil {
		bound("gpu-power-limit", float64(power.Limit)/1000, g.Power != nil, "the power limit")
	}
	bound("gpu-max-sm-clock", float64(clocks.MaxSM), g.Clocks != nil, "the highest SM clock")
	bound("gpu-pcie-replays", float64(link.Replays), g.PCIe != nil, "the number of PCIe replays")
	bound("gpu-corrected-errors", float64(e.Volatile.Corrected), g.ECC != nil, "the number of corrected errors")
}

func watts(mw int64) string { return fmt.Sprintf("%g W", float64(mw)/1000) }

// gpuExpect compares what a GPU is with what the class says.
func (j *judge) gpuExpect(i int, g *fleet.GPU) {
	name, e, class := j.names.gpu[i], j.class.Expect.GPUs, j.class.Name
	f := finding{component: name, against: fleet.AgainstClass, do: "replace"}
	switch {
	case e.PCIDevice != "" && g.PCIDevice != "" && !strings.EqualFold(e.PCIDevice, g.PCIDevice):
		f.code, f.want, f.got = "MC-GPU-MODEL", e.PCIDevice, g.PCIDevice
		j.block(f, "%s is another device (%s, %s), class %s wants %s", j.part(i), g.PCIDevice, g.Model, class, e.PCIDevice)
		return
	case e.Model != "" && g.Model == "":
		j.unread(name, "the model", "gpu", "nvml")
	case e.Model != "" && !strings.EqualFold(e.Model, g.Model):
		f.code, f.want, f.got = "MC-GPU-MODEL", e.Model, g.Model
		j.block(f, "%s is an %s, class %s wants an %s", j.part(i), g.Model, class, e.Model)
		return
	}
	if want := e.MemoryBytes; want > 0 && g.MemoryBytes < want {
		if g.MemoryBytes == 0 {
			j.unread(name, "the memory", "gpu", "nvml")
			return
		}
		f.code, f.want, f.got = "MC-GPU-MEMORY", fmt.Sprint(want), fmt.Sprint(g.MemoryBytes)
		j.block(f, "%s has %d MiB of memory, class %s wants %d MiB", j.part(i), g.MemoryBytes>>20, class, want>>20)
	}
}

// peers judges whether GPUs reach each other's memory. Links and fabric explain more than a matrix does, and stand for it where they were reported.
func (j *judge) peers() {
	if j.noFabric || j.said("fabric") != nil {
		return
	}
	index := map[string]int{}
	for i, g := range j.inv.GPUs {
		index[fmt.Sprint(g.Index)] = i
	}
	bad := map[int][]int{}
	why := ""
	for i, g := range j.inv.GPUs {
		if j.explained(j.names.gpu[i]) {
			continue
		}
		for peer, state := range g.P2P {
			k, ok := index[peer]
			if state == "ok" || !ok || j.explained(j.names.gpu[k]) {
				continue
			}
			bad[i] = append(bad[i], k)
			why = max(why, state)
		}
	}
	// A GPU that none of the others reaches is the one; those others are only its witnesses.
	for i := range j.inv.GPUs {
		if n := len(bad[i]); n > 1 {
			for _, k := range bad[i] {
				bad[k] = slices.DeleteFunc(bad[k], func(x int) bool { return x == i })
			}
		}
	}
	for i := range j.inv.GPUs {
		if len(bad[i]) == 0 || j.linksDown(i) {
			continue
		}
		var names []string
		for _, k := range bad[i] {
			names = append(names, strings.TrimPrefix(j.names.gpu[k], "gpu/"))
			bad[k] = slices.DeleteFunc(bad[k], func(x int) bool { return x == i })
		}
		slices.SortFunc(names, fleet.CompareNatural)
		j.block(finding{code: "MC-GPU-PEER", component: j.names.gpu[i] + "/peer", want: "ok", got: why, do: "reset"}, "%s and GPU %s cannot reach each other's memory: %s", j.part(i), list(names), why)
	}
}

func (j *judge) linksDown(i int) bool {
	for _, l := range j.inv.GPUs[i].NVLinks {
		if l.State == fleet.LinkDown {
			return true
		}
	}
	return false
}

// recovery obeys what the driver asks for. Where a cause was found it is part of that one's words, else it is a difference of its own.
func (j *judge) recovery() {
	for i := range j.inv.GPUs {
		name := j.names.gpu[i]
		asks := cmp.Or(j.inv.GPUs[i].Recovery, j.announced(name))
		if asks == "" || asks == "none" || j.explained(name) {
			continue
		}
		do := "reset"
		if asks == "reboot" {
			do = "reboot"
		}
		if d := j.said(name); d != nil {
			d.Words += "; the driver asks for: " + asks
			if d.Do == "retest" || d.Do == "reset" || d.Do == "none" {
				d.Do = do
			}
			continue
		}
		j.block(finding{code: "MC-GPU-RECOVERY", component: name, want: "none", got: asks, do: do}, "%s: the driver asks for %s before it is used again", j.part(i), asks)
	}
}

// announced is what the driver said in the kernel's log that it asks for, where nobody could ask the GPU: the last line of XID 154, such as "GPU recovery
// action changed from 0x0 (None) to 0x1 (GPU Reset Required)". The numbers are those of NVML's field 230.
func (j *judge) announced(component string) string {
	said := ""
	for _, k := range j.inv.KernelFindings {
		if k.Kind != "xid" || k.Code != 154 || j.place(k.Component) != component {
			continue
		}
		_, to, ok := strings.Cut(k.Line, " to 0x")
		if n, err := strconv.Atoi(to[:min(1, len(to))]); ok && err == nil && n < len(recoveries) {
			said = recoveries[n]
		}
	}
	return said
}

var recoveries = []string{"none", "reset", "reboot", "drain-p2p", "drain-and-reset", "recover-imex"}
