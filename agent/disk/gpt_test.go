package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// resum makes a changed header valid again.
func resum(head []byte) {
	clear(head[16:20])
	binary.LittleEndian.PutUint32(head[16:], crc32.ChecksumIEEE(head[:92]))
}

// imageOn writes b to the beginning of a clean disk of size bytes.
func imageOn(t *testing.T, b []byte, size int64, sector int) Device {
	t.Helper()
	dev := dirtyDisk(t, int(size))
	if err := os.WriteFile(dev.Path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dev.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	dev.LogicalBlock = sector
	return dev
}

func TestATableThatCannotBeTrustedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b []byte)
		size   int64
		sector int
		code   string
		says   string
	}{
		{"no table", func(b []byte) { clear(b[:2048]) }, 64 << 20, 512, "MC-DISK-NO-GPT", "no GUID partition table"},
		{"a bit of the header flipped", func(b []byte) { b[512+60] ^= 1 }, 64 << 20, 512, "MC-DISK-GPT", "checksum"},
		{"a bit of the entries flipped", func(b []byte) { b[1024+130] ^= 1 }, 64 << 20, 512, "MC-DISK-GPT", "entries' checksum"},
		{"entries outside of the disk", func(b []byte) { b[512+75] = 9; resum(b[512:]) }, 64 << 20, 512, "MC-DISK-GPT", "GPT entries at sector"},
		{"a million entries", func(b []byte) { b[512+82] = 9; resum(b[512:]) }, 64 << 20, 512, "MC-DISK-GPT", "GPT entries"},
		{"an image for larger sectors", func(b []byte) { copy(b[4096:], b[512:604]); clear(b[512:1024]) }, 64 << 20, 512, "MC-DISK-SECTOR", "4096"},
		{"an image for smaller sectors", func([]byte) {}, 64 << 20, 4096, "MC-DISK-SECTOR", "512"},
		{"a partition beyond the disk", func([]byte) {}, 31 << 20, 512, "MC-DISK-GPT", "partition 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := testContents(t)
			c.change(b)
			dev := imageOn(t, b[:min(int64(len(b)), c.size)], c.size, c.sector)
			before := digestOf(readAll(t, dev))
			for name, err := range map[string]error{"fix": FixGPT(t.Context(), dev), "config drive": addDrive(t, dev)} {
				if fleet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: got %v (%s), want %s with %q", name, err, fleet.CodeOf(err), c.code, c.says)
				}
			}
			if digestOf(readAll(t, dev)) != before {
				t.Error("the disk changed")
			}
		})
	}
}

func addDrive(t *testing.T, dev Device) error {
	_, err := AddConfigDrive(t.Context(), dev, "config-2", []byte("x"))
	return err
}

func TestNoRoomForAConfigDriveChangesNothing(t *testing.T) {
	dev := imageOn(t, testContents(t), 90<<20, 512)
	if err := FixGPT(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	before := digestOf(readAll(t, dev))
	if err := addDrive(t, dev); fleet.CodeOf(err) != "MC-DISK-NO-ROOM" {
		t.Errorf("got %v, want MC-DISK-NO-ROOM", err)
	}
	if _, err := AddConfigDrive(t.Context(), dev, "config-2", make([]byte, ConfigDriveBytes+1)); fleet.CodeOf(err) != "MC-CONFIGDRIVE-SIZE" {
		t.Errorf("got %v, want MC-CONFIGDRIVE-SIZE", err)
	}
	if digestOf(readAll(t, dev)) != before {
		t.Error("the disk changed")
	}
}

func TestAnImageForLargeSectorsOnSuchADisk(t *testing.T) {
	const size = 96 << 20
	tb := &table{sector: 4096, disk: GUID{9}, firstUsable: 6, entriesAt: 2, entryCount: 128, entrySze: 128, entries: make([]byte, 128*128)}
	putEntry(tb.entry(0), Partition{Name: "root", Type: TypeLinux, GUID: GUID{1}, StartLBA: 256, SizeLBA: 1024})
	tb.last = 2043
	b := make([]byte, 8<<20)
	copy(b[4096:], tb.header(1, 2047, 2))
	copy(b[8192:], tb.entries)
	copy(b[446:], []byte{0, 0, 2, 0, mbrTypeGPT, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	b[510], b[511] = 0x55, 0xaa
	dev := loopDisk(t, size, 4096)
	f, err := os.OpenFile(dev.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := FixGPT(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	if err := addDrive(t, dev); err != nil {
		t.Fatal(err)
	}
	parts, err := Partitions(dev)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range parts {
		got = append(got, p.Name)
	}
	if diff := cmp.Diff(got, []string{"root", "config-2"}); diff != "" {
		t.Error(diff)
	}
}

func TestGUIDsReadAsTheyAreWritten(t *testing.T) {
	const s = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	g, err := ParseGUID(strings.ToUpper(s))
	if err != nil || g.String() != s || g != TypeESP {
		t.Errorf("%s (%v), want %s", g, err, s)
	}
	if !bytes.Equal(g[:4], []byte{0x28, 0x73, 0x2a, 0xc1}) {
		t.Errorf("on disk % x", g[:4])
	}
}

func FuzzGPT(f *testing.F) {
	b := testContents(f)[:64<<10]
	f.Add(b)
	f.Add(b[:1024])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 604 && string(b[512:520]) == "EFI PART" {
			resum(b[512:]) // else no change of the header is ever looked at
		}
		tb, err := readTable(bytes.NewReader(b), 512, int64(len(b)))
		if err != nil {
			return
		}
		parts, err := tb.partitions(int64(len(b) / 512))
		if err != nil {
			return
		}
		if start, err := tb.lastGap(parts, int64(len(b)), 8); err == nil && covered(parts, start) {
			t.Errorf("sector %d is taken", start)
		}
	})
}

func TestSignaturesAreNamed(t *testing.T) {
	const size = 64 << 20
	for _, s := range signatures {
		head, tail := make([]byte, signatureSpan), make([]byte, signatureSpan)
		if s.off >= 0 {
			copy(head[s.off:], s.bytes)
		} else {
			copy(tail[signatureSpan+s.off:], s.bytes)
		}
		if got := findSignatures(head, tail, size); !strings.Contains(strings.Join(got, ", "), s.name) {
			t.Errorf("%s at %d: found %v", s.name, s.off, got)
		}
	}
	tail := make([]byte, signatureSpan)
	copy(tail[signatureSpan-8192:], "\xfc\x4e\x2b\xa9")
	if got := findSignatures(make([]byte, signatureSpan), tail, size); len(got) != 1 || got[0] != "Linux RAID 1.0" {
		t.Errorf("found %v", got)
	}
	if got := findSignatures(make([]byte, signatureSpan), make([]byte, signatureSpan), size); got != nil {
		t.Errorf("a clean disk has %v", got)
	}
}
