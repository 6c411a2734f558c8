package gpu

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// attribute reads one attribute of a PCI function below a root.
func attribute(root, address, name string) (string, error) {
	b, err := sysfs.New(root).Bytes("sys/bus/pci/devices", address, name)
	return clean(string(b)), err
}

// readAMD adds what amdgpu shows (Documentation/gpu/amdgpu): identity, memory, and the RAS counters of each block.
func (r *Reading) readAMD(root string, g *fleet.GPU) {
	what := "gpu/" + g.PCIAddress
	driver, err := os.Readlink(filepath.Join(root, "sys/bus/pci/devices", g.PCIAddress, "driver"))
	if err != nil || filepath.Base(driver) != "amdgpu" {
		r.missing(what, "no amdgpu driver is bound to it")
		return
	}
	if r.Driver == nil {
		version := ""
		if b, err := os.ReadFile(filepath.Join(root, "sys/module/amdgpu/version")); err == nil {
			version = clean(string(b))
		}
		r.Driver = &fleet.GPUDriver{Name: "amdgpu", Version: version}
	}
	text := func(to *string, name, part string) {
		s, err := attribute(root, g.PCIAddress, name)
		if err != nil {
			r.missing(what+" "+part, "amdgpu shows no %s", name)
			return
		}
		*to = s
	}
	number := func(name, part string) *int64 {
		s, err := attribute(root, g.PCIAddress, name)
		n, bad := strconv.ParseInt(s, 10, 64)
		if err != nil || bad != nil || n < 0 {
			r.missing(what+" "+part, "amdgpu shows no number in %s", name)
			return nil
		}
		return &n
	}
	text(&g.UUID, "unique_id", "uuid")
	text(&g.VBIOS, "vbios_version", "vbios")
	if s, err := attribute(root, g.PCIAddress, "serial_number"); err == nil {
		g.Serial = s
	}
	if s, err := attribute(root, g.PCIAddress, "product_name"); err == nil && s != "" {
		g.Model = s
	}
	if s, err := attribute(root, g.PCIAddress, "product_number"); err == nil {
		g.Part = s
	}
	if n := number("mem_info_vram_total", "memory"); n != nil {
		g.MemoryBytes = *n
	}
	g.MemoryUsedBytes = number("mem_info_vram_used", "memory used")
	if s, err := attribute(root, g.PCIAddress, "pcie_replay_count"); err == nil && g.PCIe != nil {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
			g.PCIe.Replays = n
		}
	}
	r.readRAS(root, what, g)
}

// readRAS adds up ras/*_err_count, which hold "ue: N" and "ce: N" since the driver was loaded; umc is the memory, the others are on the chip.
func (r *Reading) readRAS(root, what string, g *fleet.GPU) {
	files, err := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices", g.PCIAddress, "ras", "*_err_count"))
	if err != nil || len(files) == 0 {
		r.missing(what+" ecc", "amdgpu counts no errors (ras)")
		return
	}
	ecc := &fleet.ECC{Mode: fleet.Pending{Now: "on", Next: "on"}}
	v := &ecc.Volatile
	for _, file := range files {
		s, err := attribute(root, g.PCIAddress, "ras/"+filepath.Base(file))
		if err != nil {
			r.missing(what+" ecc", "amdgpu does not tell %s", filepath.Base(file))
			return
		}
		f := strings.Fields(s)
		if len(f) != 4 || f[0] != "ue:" || f[2] != "ce:" {
			r.missing(what+" ecc", "%s holds %q", filepath.Base(file), s)
			return
		}
		ue, err1 := strconv.ParseInt(f[1], 10, 64)
		ce, err2 := strconv.ParseInt(f[3], 10, 64)
		if err1 != nil || err2 != nil || ue < 0 || ce < 0 {
			r.missing(what+" ecc", "%s holds %q", filepath.Base(file), s)
			return
		}
		v.Corrected += ce
		v.Uncorrected += ue
		if filepath.Base(file) == "umc_err_count" {
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
