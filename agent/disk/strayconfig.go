package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// StrayConfigDrives names the places of a disk, read-only, where a deployed system would find a config drive: a file system on the whole disk or in a
// partition that is labelled config-2 or CIDATA (how cloud-init looks for them), such as "partition 3 (config-2)".
func StrayConfigDrives(dev Device) (found []string, err error) {
	h, err := open(dev, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("look for config drives: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if found, err = strayConfigDrives(h, h.sector(), h.size); err != nil {
		return nil, fmt.Errorf("look for config drives on %s: %w", dev, err)
	}
	return found, nil
}

// NoStrayConfigDrive is an error (MC-CONFIGDRIVE-STRAY) where one of the disks beside root carries a config drive: the system that is deployed could believe
// that one. The boot medium and media of the BMC do not count, they are gone by then.
func NoStrayConfigDrive(root Device, present []Device) error {
	var fields []fleet.FieldError
	for _, d := range present {
		if d.Path == root.Path || d.BootMedium || d.ReadOnly && d.Removable {
			continue
		}
		found, err := StrayConfigDrives(d)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			fields = append(fields, fleet.FieldError{Field: d.String(), Message: strings.Join(found, ", ")})
		}
	}
	if len(fields) == 0 {
		return nil
	}
	e := fleet.Errorf(fleet.Conflict, "MC-CONFIGDRIVE-STRAY", "%s carries a config drive of somebody else (%s), and the deployed system could believe that one", fields[0].Field, fields[0].Message)
	e.Fields = fields
	return e.WithHint("erase the disk: metalctl node accept NODE, then metalctl node clean NODE; or take it out")
}

// place is a stretch of a disk where a file system may be.
type place struct {
	name      string
	off, size int64
}

func strayConfigDrives(r io.ReaderAt, sector, size int64) ([]string, error) {
	places := []place{{"the whole disk", 0, size}}
	mbr := make([]byte, 512)
	if size < 1<<16 {
		return nil, nil // no room for any of it
	}
	if _, err := r.ReadAt(mbr, 0); err != nil {
		return nil, err
	}
	// What other systems make of a damaged table does not matter here: each entry that lies on the disk is looked at.
	if t, err := readTable(r, sector, size); err == nil {
		for i := range t.entryCount {
			e := t.entry(i)
			first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
			if GUID(e[:16]) != (GUID{}) && first > 0 && first <= last && last < uint64(size/sector) {
				places = append(places, place{fmt.Sprintf("partition %d", i+1), int64(first) * sector, int64(last-first+1) * sector})
			}
		}
	} else if mbr[510] == 0x55 && mbr[511] == 0xaa {
		for i := range 4 {
			e := mbr[446+16*i:]
			off, n := int64(binary.LittleEndian.Uint32(e[8:]))*sector, int64(binary.LittleEndian.Uint32(e[12:]))*sector
			if off > 0 && n > 0 && off < size {
				places = append(places, place{fmt.Sprintf("partition %d", i+1), off, min(n, size-off)})
			}
		}
	}
	var found []string
	for _, p := range places {
		labels, err := volumeLabels(io.NewSectionReader(r, p.off, p.size), p.size)
		if err != nil {
			return nil, err
		}
		for _, l := range labels {
			if l = strings.TrimRight(l, " \x00"); isConfigDriveName(l) {
				found = append(found, fmt.Sprintf("%s (%s)", p.name, l))
				break
			}
		}
	}
	return found, nil
}

// volumeLabels are what a file system of the kinds that config drives are made as says it is called: FAT, ISO 9660, ext2/3/4.
func volumeLabels(r io.ReaderAt, size int64) (labels []string, err error) {
	read := func(off int64, n int) []byte {
		b := make([]byte, n)
		if err != nil || off < 0 || off+int64(n) > size {
			return b // nothing is there
		}
		_, err = r.ReadAt(b, off)
		return b
	}
	iso := read(32768, 72)
	if string(iso[1:6]) == "CD001" {
		labels = append(labels, string(iso[40:72]))
	}
	ext := read(1024, 136)
	if string(ext[56:58]) == "\x53\xef" {
		labels = append(labels, string(ext[120:136]))
	}
	boot := read(0, 512)
	le := binary.LittleEndian
	bps, spc := int64(le.Uint16(boot[11:])), int64(boot[13])
	if string(boot[510:]) != "\x55\xaa" || bps < 512 || bps > 4096 {
		return labels, err
	}
	rootAt, rootBytes := int64(0), int64(0)
	reserved, fats := int64(le.Uint16(boot[14:])), int64(boot[16])
	switch {
	case string(boot[82:87]) == "FAT32":
		labels = append(labels, string(boot[71:82]))
		cluster := max(int64(le.Uint32(boot[44:])), 2)
		rootAt, rootBytes = (reserved+fats*int64(le.Uint32(boot[36:]))+(cluster-2)*spc)*bps, spc*bps
	case string(boot[54:58]) == "FAT1":
		labels = append(labels, string(boot[43:54]))
		rootAt, rootBytes = (reserved+fats*int64(le.Uint16(boot[22:])))*bps, int64(le.Uint16(boot[17:]))*32
	}
	// The label in the root directory is the one that counts for most readers.
	dir := read(rootAt, int(min(rootBytes, 2<<20)))
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		if attr := dir[11]; dir[0] != 0xe5 && attr&0x0f != 0x0f && attr&0x08 != 0 {
			labels = append(labels, string(dir[:11]))
		}
	}
	return labels, err
}
