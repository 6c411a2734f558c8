package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"unicode/utf16"

	"github.com/metalctl/metalctl/fleet"
)

// GUID is a partition's or a disk's identity in the byte order of the disk (UEFI 2.10, appendix A).
type GUID [16]byte

func (g GUID) String() string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g[:]), binary.LittleEndian.Uint16(g[4:]),
		binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

// ParseGUID reads the usual text form.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || len(s) != 36 {
		return g, fmt.Errorf("%q is not a GUID", s)
	}
	copy(g[:], b)
	g[0], g[1], g[2], g[3] = b[3], b[2], b[1], b[0]
	g[4], g[5], g[6], g[7] = b[5], b[4], b[7], b[6]
	return g, nil
}

// MarshalText and UnmarshalText make JSON use the text form.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText reads the text form.
func (g *GUID) UnmarshalText(b []byte) (err error) {
	*g, err = ParseGUID(string(b))
	return err
}

// Types of partitions.
var (
	TypeESP   = mustGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	TypeLinux = mustGUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
)

func mustGUID(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err)
	}
	return g
}

// Partition is one entry of a GPT.
type Partition struct {
	// Number counts from 1, as the kernel does.
	Number int    `json:"number"`
	Name   string `json:"name,omitempty"`
	Type   GUID   `json:"type"`
	GUID   GUID   `json:"guid"`
	// StartLBA and SizeLBA count sectors; StartBytes and SizeBytes are the same in bytes.
	StartLBA   int64  `json:"start_lba"`
	SizeLBA    int64  `json:"size_lba"`
	StartBytes int64  `json:"start_bytes"`
	SizeBytes  int64  `json:"size_bytes"`
	Attributes uint64 `json:"attributes,omitempty"`
}

const (
	gptHeaderBytes = 92
	gptEntryBytes  = 128
	maxGPTEntries  = 4096
	mbrTypeGPT     = 0xee
)

// table is a GPT in memory.
type table struct {
	sector               int64
	disk                 GUID
	current, other       int64 // LBA of this header and of the other one
	firstUsable, last    int64
	entriesAt            int64
	entryCount, entrySze int
	entries              []byte
}

var errNoGPT = errors.New("no GUID partition table")

// parseHeader checks one header sector (UEFI 2.10, 5.3.2) that was read from lba of a disk of sectors sectors.
func parseHeader(b []byte, lba, sector, sectors int64) (*table, uint32, error) {
	le := binary.LittleEndian
	if len(b) < gptHeaderBytes || string(b[:8]) != "EFI PART" {
		return nil, 0, errNoGPT
	}
	size := int64(le.Uint32(b[12:]))
	if size < gptHeaderBytes || size > int64(len(b)) {
		return nil, 0, fmt.Errorf("sector %d: a GPT header of %d bytes", lba, size)
	}
	head := bytes.Clone(b[:size])
	clear(head[16:20])
	if got, want := crc32.ChecksumIEEE(head), le.Uint32(b[16:]); got != want {
		return nil, 0, fmt.Errorf("sector %d: the GPT header's checksum is %08x, it says %08x", lba, got, want)
	}
	t := &table{sector: sector, disk: GUID(b[56:72]), current: int64(le.Uint64(b[24:])), other: int64(le.Uint64(b[32:])),
		firstUsable: int64(le.Uint64(b[40:])), last: int64(le.Uint64(b[48:])), entriesAt: int64(le.Uint64(b[72:])),
		entryCount: int(le.Uint32(b[80:])), entrySze: int(le.Uint32(b[84:]))}
	switch {
	case t.current != lba:
		return nil, 0, fmt.Errorf("sector %d: the GPT header says it is at %d", lba, t.current)
	case t.entrySze < gptEntryBytes || t.entrySze > 4096 || t.entrySze%8 != 0:
		return nil, 0, fmt.Errorf("sector %d: GPT entries of %d bytes", lba, t.entrySze)
	case t.entryCount < 1 || t.entryCount > maxGPTEntries:
		return nil, 0, fmt.Errorf("sector %d: %d GPT entries", lba, t.entryCount)
	case t.entriesAt < 2 || t.entriesAt > sectors-t.entrySectors():
		return nil, 0, fmt.Errorf("sector %d: GPT entries at sector %d of %d", lba, t.entriesAt, sectors)
	case t.firstUsable < 2 || t.firstUsable > t.last:
		return nil, 0, fmt.Errorf("sector %d: usable sectors %d to %d", lba, t.firstUsable, t.last)
	}
	return t, le.Uint32(b[88:]), nil
}

// entrySectors is the room of the entries, at least the 16 KiB that the standard reserves.
func (t *table) entrySectors() int64 {
	return (max(int64(t.entryCount)*int64(t.entrySze), 16<<10) + t.sector - 1) / t.sector
}

// readTable reads the primary GPT of a disk.
func readTable(r io.ReaderAt, sector, size int64) (*table, error) {
	head := make([]byte, sector)
	if _, err := r.ReadAt(head, sector); err != nil {
		return nil, err
	}
	t, sum, err := parseHeader(head, 1, sector, size/sector)
	if err != nil {
		return nil, err
	}
	t.entries = make([]byte, t.entryCount*t.entrySze)
	if _, err := r.ReadAt(t.entries, t.entriesAt*sector); err != nil {
		return nil, err
	}
	if got := crc32.ChecksumIEEE(t.entries); got != sum {
		return nil, fmt.Errorf("sector %d: the GPT entries' checksum is %08x, the header says %08x", t.entriesAt, got, sum)
	}
	return t, nil
}

func (t *table) entry(i int) []byte { return t.entries[i*t.entrySze : (i+1)*t.entrySze] }

// partitions returns the used entries and refuses those that overlap or lie outside of the disk.
func (t *table) partitions(sectors int64) ([]Partition, error) {
	var out []Partition
	for i := range t.entryCount {
		e := t.entry(i)
		if GUID(e[:16]) == (GUID{}) {
			continue
		}
		le := binary.LittleEndian
		first, last := int64(le.Uint64(e[32:])), int64(le.Uint64(e[40:]))
		if first < 1 || last < first || last >= sectors {
			return nil, fmt.Errorf("partition %d: sectors %d to %d of a disk of %d", i+1, first, last, sectors)
		}
		p := Partition{Number: i + 1, Name: entryName(e[56:128]), Type: GUID(e[:16]), GUID: GUID(e[16:32]), StartLBA: first, SizeLBA: last - first + 1,
			StartBytes: first * t.sector, SizeBytes: (last - first + 1) * t.sector, Attributes: le.Uint64(e[48:])}
		for _, q := range out {
			if p.StartLBA < q.StartLBA+q.SizeLBA && q.StartLBA < p.StartLBA+p.SizeLBA {
				return nil, fmt.Errorf("partitions %d and %d overlap", q.Number, p.Number)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func entryName(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

func putEntry(e []byte, p Partition) {
	clear(e)
	le := binary.LittleEndian
	copy(e, p.Type[:])
	copy(e[16:], p.GUID[:])
	le.PutUint64(e[32:], uint64(p.StartLBA))
	le.PutUint64(e[40:], uint64(p.StartLBA+p.SizeLBA-1))
	le.PutUint64(e[48:], p.Attributes)
	for i, u := range utf16.Encode([]rune(p.Name)) {
		if i < 36 {
			le.PutUint16(e[56+2*i:], u)
		}
	}
}

func (t *table) header(lba, other, entriesAt int64) []byte {
	b := make([]byte, t.sector)
	le := binary.LittleEndian
	copy(b, "EFI PART")
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], gptHeaderBytes)
	le.PutUint64(b[24:], uint64(lba))
	le.PutUint64(b[32:], uint64(other))
	le.PutUint64(b[40:], uint64(t.firstUsable))
	le.PutUint64(b[48:], uint64(t.last))
	copy(b[56:], t.disk[:])
	le.PutUint64(b[72:], uint64(entriesAt))
	le.PutUint32(b[80:], uint32(t.entryCount))
	le.PutUint32(b[84:], uint32(t.entrySze))
	le.PutUint32(b[88:], crc32.ChecksumIEEE(t.entries))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeaderBytes]))
	return b
}

// write puts the backup at the disk's end, then the primary, so that at every moment one of the two is whole.
func (t *table) write(h *handle) error {
	sectors := h.size / t.sector
	backup := sectors - 1
	backupEntries := backup - t.entrySectors()
	t.last = backupEntries - 1
	t.other = backup
	for _, step := range []struct {
		at int64
		b  []byte
	}{
		{backupEntries, t.entries}, {backup, t.header(backup, 1, backupEntries)},
		{t.entriesAt, t.entries}, {1, t.header(1, backup, t.entriesAt)},
	} {
		if _, err := h.WriteAt(step.b, step.at*t.sector); err != nil {
			return err
		}
		if step.at == backup {
			if err := h.flush(); err != nil {
				return err
			}
		}
	}
	return h.flush()
}

// FixGPT moves the backup table of the image that was just written to the disk's real end and makes all of the disk usable. The primary table must
// be whole. A disk without a GPT is MC-DISK-NO-GPT.
func FixGPT(ctx context.Context, dev Device) (err error) {
	h, err := open(dev, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("fix partition table: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := fixGPT(ctx, h); err != nil {
		return fmt.Errorf("fix partition table of %s: %w", dev, err)
	}
	return nil
}

func fixGPT(ctx context.Context, h *handle) error {
	t, parts, err := h.table()
	if err != nil {
		return err
	}
	old, sectors := t.other, h.size/t.sector
	newLast := sectors - 1 - t.entrySectors() - 1
	for _, p := range parts {
		if p.StartLBA+p.SizeLBA-1 > newLast {
			return fleet.Errorf(fleet.Conflict, "MC-DISK-SMALL", "partition %d ends at sector %d, the disk's last usable one is %d", p.Number, p.StartLBA+p.SizeLBA-1, newLast).
				WithHint("choose a larger root disk by hints: metalctl node set NODE --root-disk min_size_bytes=N")
		}
	}
	if err := t.write(h); err != nil {
		return err
	}
	if err := h.protect(sectors); err != nil {
		return err
	}
	// The old backup would be found by tools that scan for one.
	if old > 1 && old < newLast && !covered(parts, old) {
		if err := h.zero(ctx, old*t.sector, t.sector, nil); err != nil {
			return err
		}
	}
	return h.flush()
}

func covered(parts []Partition, lba int64) bool {
	for _, p := range parts {
		if lba >= p.StartLBA && lba < p.StartLBA+p.SizeLBA {
			return true
		}
	}
	return false
}

// protect lets the protective MBR cover the whole disk (UEFI 2.10, 5.2.3).
func (h *handle) protect(sectors int64) error {
	mbr := make([]byte, 512)
	if _, err := h.ReadAt(mbr, 0); err != nil {
		return err
	}
	for i := range 4 {
		if e := mbr[446+16*i : 462+16*i]; e[4] == mbrTypeGPT && binary.LittleEndian.Uint32(e[8:]) == 1 {
			binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 0xffffffff)))
			_, err := h.WriteAt(mbr, 0)
			return err
		}
	}
	return nil // a hybrid MBR stays what the image's maker made it
}

// table reads the GPT and its partitions, turning what an operator can cause into errors for operators.
func (h *handle) table() (*table, []Partition, error) {
	t, err := readTable(h, h.sector(), h.size)
	if errors.Is(err, errNoGPT) {
		return nil, nil, h.noGPT()
	}
	var parts []Partition
	if err == nil {
		parts, err = t.partitions(h.size / t.sector)
	}
	if err != nil {
		return nil, nil, fleet.Errorf(fleet.Broken, "MC-DISK-GPT", "the partition table is damaged: %w", err).WithHint("metalctl image verify IMAGE")
	}
	return t, parts, nil
}

func (h *handle) noGPT() error {
	other := int64(4096)
	if h.sector() == other {
		other = 512
	}
	head := make([]byte, 8)
	if _, err := h.ReadAt(head, other); err == nil && string(head) == "EFI PART" {
		return fleet.Errorf(fleet.Conflict, "MC-DISK-SECTOR", "the image is made for sectors of %d bytes, the disk has %d", other, h.sector()).
			WithHint("use an image made for this sector size, or a root disk with the other one")
	}
	return fleet.Errorf(fleet.Conflict, "MC-DISK-NO-GPT", "there is no GUID partition table, and nothing is placed on disks of another kind").
		WithHint("use an image with a GPT, as UEFI machines boot it")
}

// Partitions returns the GPT's partitions by number.
func Partitions(dev Device) (parts []Partition, err error) {
	h, err := open(dev, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read partitions: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	_, parts, err = h.table()
	if err != nil {
		return nil, fmt.Errorf("read partitions of %s: %w", dev, err)
	}
	return parts, nil
}

// ReadPartition calls fn with the contents of p; the reader is good only inside fn.
func ReadPartition(dev Device, p Partition, fn func(r io.ReaderAt, sizeBytes int64) error) (err error) {
	h, err := open(dev, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("read partition %d: %w", p.Number, err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	return fn(io.NewSectionReader(h, p.StartBytes, p.SizeBytes), p.SizeBytes)
}
