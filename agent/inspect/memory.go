package inspect

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/metalctl/metalctl/fleet"
)

// readMemory reads what the kernel has, and which modules carry it by SMBIOS type 17.
func (r *reading) readMemory(context.Context) {
	m := &r.inv.Memory
	text, err := r.fs.Text("proc/meminfo")
	if err == nil {
		m.TotalBytes, err = kilobytes(text, "MemTotal:")
	}
	if err != nil {
		r.missing("memory.total", err)
	}
	if r.dmi == nil {
		r.missingf("memory.dimms", "there is no SMBIOS table")
		return
	}
	extended := r.dmi.extendedSizes()
	for i, d := range r.dmi.MemoryDevices {
		size, known := dimmBytes(uint16(d.Size), extended[i])
		if known && size == 0 {
			continue // an empty socket
		}
		locator := d.DeviceLocator
		if d.BankLocator != "" && d.BankLocator != locator {
			locator = d.BankLocator + " " + locator
		}
		if !known {
			r.missingf(fmt.Sprintf("memory/%s size", locator), "the firmware does not know it")
		}
		dimm := fleet.DIMM{Locator: locator, SizeBytes: size}
		for _, f := range []struct{ to, from *string }{{&dimm.Serial, &d.SerialNumber}, {&dimm.Part, &d.PartNumber}, {&dimm.Vendor, &d.Manufacturer}} {
			if !placeholder(*f.from) {
				*f.to = *f.from
			}
		}
		dimm.SpeedMTs = int(d.ConfiguredMemorySpeed)
		if dimm.SpeedMTs == 0 || dimm.SpeedMTs == 0xffff {
			dimm.SpeedMTs = int(d.Speed)
		}
		if dimm.SpeedMTs == 0xffff {
			dimm.SpeedMTs = 0
			r.missingf(fmt.Sprintf("memory/%s speed", locator), "it is 65,535 MT/s or more, in a field that is not decoded")
		}
		m.DIMMs = append(m.DIMMs, dimm)
	}
	if len(m.DIMMs) == 0 {
		r.missingf("memory.dimms", "SMBIOS lists no module")
	}
	r.readEDAC()
}

// extendedSizes returns the Extended Size of every type 17 structure, in their order, from its bytes: go-smbios v0.3.4 keeps 16 of the 32 bits, so that
// a module of 64 GiB has none.
func (d *dmi) extendedSizes() []uint32 {
	var out []uint32
	for _, s := range d.Structures {
		if s.Header.Type != 17 {
			continue
		}
		var mb uint32
		// Formatted begins behind the four bytes of the header.
		if len(s.Formatted) >= 0x1c-4+4 {
			mb = binary.LittleEndian.Uint32(s.Formatted[0x1c-4:])
		}
		out = append(out, mb)
	}
	return out
}

// dimmBytes decodes Size and Extended Size (DSP0134 section 7.18): 0 is an empty socket, FFFFh unknown, 7FFFh means the other field, bit 15 kilobytes.
func dimmBytes(size uint16, extendedMB uint32) (bytes int64, known bool) {
	switch {
	case size == 0xffff:
		return 0, false
	case size == 0x7fff:
		mb := int64(extendedMB & 0x7fffffff)
		return mb << 20, mb > 0
	case size&0x8000 != 0:
		return int64(size&0x7fff) << 10, true
	default:
		return int64(size) << 20, true
	}
}
