package inspect

import (
	"context"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// readSystem reads who the machine is and how it was started.
func (r *reading) readSystem(context.Context) {
	s := &r.inv.System
	s.Kernel = r.fs.Try("proc/sys/kernel/osrelease")
	r.readFirmware(s)
	if o := r.opts.System; o != nil {
		kernel := s.Kernel
		*s = *o
		if s.Kernel == "" {
			s.Kernel = kernel
		}
		return
	}
	for _, f := range []struct {
		name, file string
		to         *string
		table      func(*dmi) string
	}{
		{"vendor", "sys_vendor", &s.Vendor, func(d *dmi) string { return d.SystemInformation.Manufacturer }},
		{"model", "product_name", &s.Model, func(d *dmi) string { return d.SystemInformation.ProductName }},
		{"serial", "product_serial", &s.Serial, func(d *dmi) string { return d.SystemInformation.SerialNumber }},
		{"uuid", "product_uuid", &s.UUID, func(d *dmi) string { return d.SystemInformation.UUID }},
		{"board", "board_name", &s.Board, func(d *dmi) string { return d.BaseboardInformation.Product }},
		{"bios", "bios_version", &s.BIOS, func(d *dmi) string { return d.BIOSInformation.Version }},
		{"bios_date", "bios_date", &s.BIOSDate, func(d *dmi) string { return d.BIOSInformation.ReleaseDate }},
	} {
		// The kernel's own decoding first: it has the quirks of twenty years, the byte order of UUIDs among them.
		text, err := r.fs.Text("sys/class/dmi/id", f.file)
		if placeholder(text) && r.dmi != nil {
			text = f.table(r.dmi)
		}
		if placeholder(text) {
			if err == nil {
				r.missingf("system."+f.name, "the firmware says only %q", text)
			} else {
				r.missing("system."+f.name, err)
			}
			continue
		}
		*f.to = text
	}
	s.UUID = strings.ToLower(s.UUID)
}

// placeholder reports whether a DMI text is what boards say that nobody configured.
func placeholder(s string) bool {
	switch strings.ToLower(strings.Trim(s, " .")) {
	case "", "to be filled by o.e.m", "default string", "not specified", "none", "n/a", "unknown", "system serial number", "system product name",
		"system manufacturer", "0123456789", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"03000200-0400-0500-0006-000700080009":
		return true
	}
	return false
}

func (r *reading) readFirmware(s *fleet.System) {
	s.FirmwareMode, s.SecureBoot = "bios", "off"
	if !r.fs.Exists("sys/firmware/efi") {
		return
	}
	s.FirmwareMode, s.SecureBoot = "uefi", "unknown"
	b, err := r.fs.Bytes("sys/firmware/efi/efivars", "SecureBoot-"+fleet.EFIGlobal)
	switch {
	case err != nil:
		r.missing("system.secure_boot", err)
	case len(b) != 5: // four bytes of attributes, then the value
		r.missingf("system.secure_boot", "the EFI variable SecureBoot has %d bytes, not 5", len(b))
	case b[4] == 1:
		s.SecureBoot = "on"
	default:
		s.SecureBoot = "off"
	}
}
