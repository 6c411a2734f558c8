package disk

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// ConfigDriveBytes is the size of the config drive's partition, always at the disk's end so that a redeployment finds the same place.
const ConfigDriveBytes = 64 << 20

// configDriveNames are what a config drive's file system, and the partition that it is in, is called: by OpenStack's form, and by cloud-init's NoCloud, which
// reads it as cidata, too.
var configDriveNames = []string{"config-2", "CIDATA"}

func isConfigDriveName(name string) bool {
	return slices.ContainsFunc(configDriveNames, func(n string) bool { return strings.EqualFold(n, name) })
}

// AddConfigDrive puts content (a file system image of at most ConfigDriveBytes, labelled name) into a partition of the same name at the end of a disk with a
// GPT. The partition of an earlier config drive, of whatever form, is used again; the rest of the partition is zeroed.
func AddConfigDrive(ctx context.Context, dev Device, name string, content []byte) (p Partition, err error) {
	if !isConfigDriveName(name) {
		return p, fleet.Errorf(fleet.Invalid, "MC-CONFIGDRIVE-INVALID", "no reader looks for a config drive called %q", name)
	}
	if len(content) == 0 || len(content) > ConfigDriveBytes {
		return p, fleet.Errorf(fleet.Invalid, "MC-CONFIGDRIVE-SIZE", "a config drive of %d bytes; it may have 1 to %d", len(content), ConfigDriveBytes)
	}
	h, err := open(dev, os.O_RDWR)
	if err != nil {
		return p, fmt.Errorf("add config drive: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if p, err = addConfigDrive(ctx, h, name, content); err != nil {
		return p, fmt.Errorf("add config drive to %s: %w", dev, err)
	}
	return p, nil
}

func addConfigDrive(ctx context.Context, h *handle, name string, content []byte) (Partition, error) {
	t, parts, err := h.table()
	if err != nil {
		return Partition{}, err
	}
	p, found, err := t.configDrive(parts, name, h.size)
	if err != nil {
		return p, err
	}
	// Contents first: a table entry never points at what is not there yet.
	if _, err := h.WriteAt(content, p.StartBytes); err != nil {
		return p, err
	}
	if err := h.zero(ctx, p.StartBytes+int64(len(content)), p.SizeBytes-int64(len(content)), nil); err != nil {
		return p, err
	}
	if err := h.flush(); err != nil {
		return p, err
	}
	if !found || p.Name != name {
		p.Name = name
		putEntry(t.entry(p.Number-1), p)
		if err := t.write(h); err != nil {
			return p, err
		}
	}
	back := make([]byte, len(content))
	if _, err := h.ReadAt(back, p.StartBytes); err != nil {
		return p, err
	}
	if string(back) != string(content) {
		return p, mismatch(h.dev, fmt.Errorf("the config drive at byte %d reads back different", p.StartBytes))
	}
	return p, nil
}

// configDrive finds the partition, or says where and as which entry it has to be made.
func (t *table) configDrive(parts []Partition, name string, size int64) (p Partition, found bool, err error) {
	for _, p := range parts {
		if isConfigDriveName(p.Name) && p.SizeBytes >= ConfigDriveBytes {
			return p, true, nil
		}
	}
	number := 0
	for i := range t.entryCount {
		if GUID(t.entry(i)[:16]) == (GUID{}) {
			number = i + 1
			break
		}
	}
	if number == 0 {
		return p, false, fleet.Errorf(fleet.Conflict, "MC-DISK-NO-ROOM", "all %d entries of the partition table are used", t.entryCount)
	}
	start, err := t.lastGap(parts, size, ConfigDriveBytes/t.sector)
	if err != nil {
		return p, false, err
	}
	p = Partition{Number: number, Name: name, Type: TypeLinux, StartLBA: start, SizeLBA: ConfigDriveBytes / t.sector,
		StartBytes: start * t.sector, SizeBytes: ConfigDriveBytes}
	_, _ = rand.Read(p.GUID[:])       // never fails (crypto/rand)
	p.GUID[7] = p.GUID[7]&0x0f | 0x40 // version 4
	p.GUID[8] = p.GUID[8]&0x3f | 0x80 // variant of RFC 9562
	return p, false, nil
}

// lastGap finds the highest place for n sectors, at a multiple of 1 MiB.
func (t *table) lastGap(parts []Partition, size, n int64) (int64, error) {
	mib := max(1, (1<<20)/t.sector)
	limit := size/t.sector - 1 - t.entrySectors() // first sector of the backup
	sorted := slices.Clone(parts)
	slices.SortFunc(sorted, func(a, b Partition) int { return cmp.Compare(b.StartLBA, a.StartLBA) })
	for _, p := range append(sorted, Partition{StartLBA: 0, SizeLBA: t.firstUsable}) {
		if start := (limit - n) / mib * mib; start >= max(p.StartLBA+p.SizeLBA, t.firstUsable) {
			return start, nil
		}
		limit = min(limit, p.StartLBA)
	}
	return 0, fleet.Errorf(fleet.Conflict, "MC-DISK-NO-ROOM", "no %d MiB are free beside the image's partitions", n*t.sector>>20).
		WithHint("choose a larger root disk by hints: metalctl node set NODE --root-disk min_size_bytes=N")
}
