package disk

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// minRootBytes is the least that an operating system is put on without a hint.
const minRootBytes = 4 << 30

// Of turns an inventory's disk into a Device. What is mounted is not in an inventory; opening for writing looks at it again.
func Of(d fleet.Disk) Device {
	place := ""
	switch {
	case d.Slot != "":
		place = "slot " + d.Slot
	case d.PCIAddress != "":
		place = "PCI " + d.PCIAddress
	}
	return Device{Place: place, Path: d.Path, Serial: d.Serial, Model: d.Model, WWN: d.WWN, Transport: d.Transport, SizeBytes: d.SizeBytes, LogicalBlock: max(d.BlockBytes, 512),
		Rotational: d.Rotational, ReadOnly: d.ReadOnly, Removable: d.Removable, BootMedium: d.BootMedium}
}

// RootDisk chooses the disk that an image is written to, always the same one for the same disks: of those that fit all hints the smallest, then the one
// with the lowest serial. The reason says why in one sentence. Removable, read-only, used and boot media are never chosen. Where none fits, or where
// several fit a hint that should name one (serial, wwn, name), the error is MC-DISK-ROOT and says for each disk why.
func RootDisk(hints fleet.RootDiskHints, present []Device) (chosen Device, reason string, err error) {
	if hints == (fleet.RootDiskHints{}) {
		hints.MinSizeBytes = minRootBytes
	}
	var fit []Device
	var why []fleet.FieldError
	for _, d := range present {
		if no := unfit(hints, d); no != "" {
			why = append(why, fleet.FieldError{Field: d.String(), Message: no})
			continue
		}
		fit = append(fit, d)
	}
	if len(fit) == 0 {
		e := fleet.Errorf(fleet.Conflict, "MC-DISK-ROOT", "none of %d disks can be the root disk", len(present))
		e.Fields = why
		return chosen, "", e.WithHint("change the hints: metalctl node set NODE --root-disk serial=SERIAL")
	}
	slices.SortStableFunc(fit, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.SizeBytes, b.SizeBytes), cmp.Compare(a.Serial, b.Serial), cmp.Compare(a.Path, b.Path))
	})
	if len(fit) > 1 && hints.Serial+hints.WWN+hints.Name != "" {
		e := fleet.Errorf(fleet.Conflict, "MC-DISK-ROOT", "%d disks fit hints that should name one", len(fit))
		for _, d := range fit {
			e.Fields = append(e.Fields, fleet.FieldError{Field: d.String(), Message: "fits"})
		}
		return chosen, "", e.WithHint("give the hint that tells them apart: metalctl node set NODE --root-disk serial=SERIAL")
	}
	chosen = fit[0]
	switch {
	case len(fit) == 1:
		reason = "the only one that fits"
	case fit[1].SizeBytes > chosen.SizeBytes:
		reason = fmt.Sprintf("the smallest of %d that fit", len(fit))
	default:
		same := 0
		for _, d := range fit {
			if d.SizeBytes == chosen.SizeBytes {
				same++
			}
		}
		reason = fmt.Sprintf("the lowest serial of %d that fit and have the same size; a serial as hint would make it explicit", same)
	}
	return chosen, reason, nil
}

// unfit says why d cannot be the root disk; "" where it can.
func unfit(h fleet.RootDiskHints, d Device) string {
	differs := func(hint, have string) bool {
		return hint != "" && !strings.EqualFold(strings.TrimSpace(hint), strings.TrimSpace(have))
	}
	switch {
	case d.BootMedium:
		return "the agent was booted from it"
	case d.ReadOnly:
		return "read only"
	case d.Removable && h.Serial == "":
		return "removable"
	case d.Mounted != "":
		return "in use as " + d.Mounted
	case differs(h.Serial, d.Serial):
		return fmt.Sprintf("serial %s is not %s", d.Serial, h.Serial)
	case differs(h.WWN, d.WWN):
		return fmt.Sprintf("wwn %s is not %s", d.WWN, h.WWN)
	case differs(h.Transport, d.Transport):
		return fmt.Sprintf("transport %s is not %s", d.Transport, h.Transport)
	case h.Name != "" && h.Name != d.Path && h.Name != path.Base(d.Path):
		return fmt.Sprintf("name %s is not %s", d.Path, h.Name)
	case h.Model != "" && !strings.Contains(strings.ToLower(d.Model), strings.ToLower(strings.TrimSpace(h.Model))):
		return fmt.Sprintf("model %q does not contain %q", d.Model, h.Model)
	case d.SizeBytes < h.MinSizeBytes:
		return fmt.Sprintf("%d bytes, at least %d are wanted", d.SizeBytes, h.MinSizeBytes)
	case h.MaxSizeBytes > 0 && d.SizeBytes > h.MaxSizeBytes:
		return fmt.Sprintf("%d bytes, at most %d are wanted", d.SizeBytes, h.MaxSizeBytes)
	}
	return ""
}
