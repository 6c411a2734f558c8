package gpu

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// attribute reads one attribute of a PCI function.
func attribute(files sysfs.Tree, address, name string) (string, error) {
	b, err := files.Bytes("sys/bus/pci/devices", address, name)
	return clean(string(b)), err
}

// readAMD adds what amdgpu shows (Documentation/gpu/amdgpu): identity, memory, and the RAS counters of each block.
func (r *Reading) readAMD(files sysfs.Tree, g *fleet.GPU) {
	what := "gpu/" + g.PCIAddress
	if files.Base("sys/bus/pci/devices", g.PCIAddress, "driver") != "amdgpu" {
		r.missing(what, "no amdgpu driver is bound to it")
		return
	}
	if r.Driver == nil {
		r.Driver = &fleet.GPUDriver{Name: "amdgpu", Version: clean(files.Try("sys/module/amdgpu/version"))}
	}
	text := func(to *string, name, part string) {
		s, err := attribute(files, g.PCIAddress, name)
		if err != nil {
			r.missing(what+" "+part, "amdgpu shows no %s", name)
			return
		}
		*to = s
	}
	number := func(name, part string) *int64 {
		s, err := attribute(files, g.PCIAddress, name)
		n, bad := strconv.ParseInt(s, 10, 64)
		if err != nil || bad != nil || n < 0 {
			r.missing(what+" "+part, "amdgpu shows no number in %s", name)
			return nil
		}
		return &n
	}
	text(&g.UUID, "unique_id", "uuid")
	text(&g.VBIOS, "vbios_version", "vbios")
	if s, err := attribute(files, g.PCIAddress, "serial_number"); err == nil {
		g.Serial = s
	}
	if s, err := attribute(files, g.PCIAddress, "product_name"); err == nil && s != "" {
		g.Model = s
	}
	if s, err := attribute(files, g.PCIAddress, "product_number"); err == nil {
		g.Part = s
	}
	if n := number("mem_info_vram_total", "memory"); n != nil {
		g.MemoryBytes = *n
	}
	g.MemoryUsedBytes = number("mem_info_vram_used", "memory used")
	if s, err := attribute(files, g.PCIAddress, "pcie_replay_count"); err == nil && g.PCIe != nil {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
			g.PCIe.Replays = n
		}
	}
	r.readRAS(files, what, g)
}

// readRAS adds up ras/*_err_count, which hold "ue: N" and "ce: N" since the driver was loaded; umc is the memory, the others are on the chip.
func (r *Reading) readRAS(files sysfs.Tree, what string, g *fleet.GPU) {
	names, err := files.List("sys/bus/pci/devices", g.PCIAddress, "ras")
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, "_err_count") })
	if err != nil || len(names) == 0 {
		r.missing(what+" ecc", "amdgpu counts no errors (ras)")
		return
	}
	ecc := &fleet.ECC{Mode: fleet.Pending{Now: "on", Next: "on"}}
	v := &ecc.Volatile
	for _, name := range names {
		s, err := attribute(files, g.PCIAddress, "ras/"+name)
		if err != nil {
			r.missing(what+" ecc", "amdgpu does not tell %s", name)
			return
		}
		f := strings.Fields(s)
		if len(f) != 4 || f[0] != "ue:" || f[2] != "ce:" {
			r.missing(what+" ecc", "%s holds %q", name, s)
			return
		}
		ue, err1 := strconv.ParseInt(f[1], 10, 64)
		ce, err2 := strconv.ParseInt(f[3], 10, 64)
		if err1 != nil || err2 != nil || ue < 0 || ce < 0 {
			r.missing(what+" ecc", "%s holds %q", name, s)
			return
		}
		v.Corrected += ce
		v.Uncorrected += ue
		if name == "umc_err_count" {
			v.DRAMCorrected, v.DRAMUncorrected = ce, ue
		} else {
			v.SRAMCorrected += ce
			v.SRAMUncorrected += ue
		}
	}
	ecc.Aggregate = ecc.Volatile // amdgpu has one count only
	g.ECC = ecc
}

// clean makes one line of printable text of what a driver said.
func clean(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}
