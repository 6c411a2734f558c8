package images

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// disk is a small raw disk with a partition table and some contents.
func disk(n int) []byte {
	b := make([]byte, n)
	copy(b[512:], "EFI PART")
	b[510], b[511] = 0x55, 0xaa
	for i := n / 2; i < n/2+200<<10 && i < n; i++ {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s (package qemu-utils) is not here", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// qcow2 makes a file from a raw disk with qemu-img.
func qcow2(t *testing.T, raw []byte, options ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "x.qcow2")
	tool(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...), write(t, "x.raw", raw), out)...)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatCannotBeWrittenIsRefusedWithItsPlace(t *testing.T) {
	raw := disk(4 << 20)
	q := qcow2(t, raw)
	backed := filepath.Join(t.TempDir(), "over.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", write(t, "base.raw", raw), backed)
	over, err := os.ReadFile(backed)
	if err != nil {
		t.Fatal(err)
	}
	patched := func(at int, b ...byte) []byte {
		c := bytes.Clone(q)
		copy(c[at:], b)
		return c
	}
	for _, c := range []struct {
		name, file string
		bytes      []byte
		code, says string
	}{
		{"qcow2 named raw", "a.raw", q, "MC-IMAGE-FORMAT", "a.raw: the name says raw, the contents are qcow2"},
		{"raw named qcow2", "a.qcow2", raw, "MC-IMAGE-FORMAT", "the name says qcow2, the contents are raw"},
		{"raw named zst", "a.raw.zst", raw, "MC-IMAGE-FORMAT", "the name says raw.zst"},
		{"a web page", "a.raw", []byte("\n<!DOCTYPE html><title>login</title>"), "MC-IMAGE-FORMAT", "web page"},
		{"a file system without a partition table", "a.raw", make([]byte, 1<<20), "MC-IMAGE-FORMAT", "byte 510: no partition table"},
		{"a VMDK", "a.vmdk", append([]byte("KDMV"), make([]byte, 600)...), "MC-IMAGE-FORMAT", "VMDK"},
		{"an empty file", "a.raw", nil, "MC-IMAGE-FORMAT", "no partition table"},
		{"a backing file", "a.qcow2", over, "MC-IMAGE-BACKING", "base.raw"},
		{"an external data file", "a.qcow2", patched(72, 0, 0, 0, 0, 0, 0, 0, 4), "MC-IMAGE-BACKING", "external data file"},
		{"encrypted", "a.qcow2", patched(32, 0, 0, 0, 2), "MC-IMAGE-ENCRYPTED", "byte 32"},
		{"marked corrupt", "a.qcow2", patched(72, 0, 0, 0, 0, 0, 0, 0, 2), "MC-IMAGE-DAMAGED", "marked corrupt"},
		{"an unknown feature", "a.qcow2", patched(72, 1), "MC-IMAGE-FORMAT", "unknown features"},
		{"version 9", "a.qcow2", patched(4, 0, 0, 0, 9), "MC-IMAGE-FORMAT", "version 9"},
		{"an absurd size", "a.qcow2", patched(24, 0x7f), "MC-IMAGE-DAMAGED", "byte 24"},
		{"a table outside of the file", "a.qcow2", patched(40, 0, 0, 1), "MC-IMAGE-TRUNCATED", "byte 40"},
		{"cut short inside the header", "a.qcow2", q[:60], "MC-IMAGE-TRUNCATED", "header"},
		{"cut short inside the tables", "a.qcow2", q[:200<<10], "MC-IMAGE-TRUNCATED", "level-2 table"},
		{"cut short inside the data", "a.qcow2", q[:len(q)-70000], "MC-IMAGE-TRUNCATED", "cluster"},
		{"raw with half a sector", "a.raw", disk(1<<20 + 100), "MC-IMAGE-TRUNCATED", "sectors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Describe(t.Context(), write(t, c.file, c.bytes))
			if fleet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v (%s), want %s with %q", err, fleet.CodeOf(err), c.code, c.says)
			}
		})
	}
}

func TestAnImageInAnImageIsRefused(t *testing.T) {
	path := write(t, "x.qcow2", qcow2(t, disk(1<<20)))
	tool(t, "xz", "-k", path)
	_, err := Describe(t.Context(), path+".xz")
	if fleet.CodeOf(err) != "MC-IMAGE-FORMAT" || !strings.Contains(err.Error(), "contents are qcow2") {
		t.Errorf("got %v", err)
	}
}

func TestXZAsItsOwnToolMakesIt(t *testing.T) {
	raw := disk(3 << 20)
	for _, options := range [][]string{{"-1"}, {"-9e"}, {"--block-size=1MiB"}, {"-T2", "--block-size=512KiB"}} {
		path := write(t, "x.raw", raw)
		tool(t, "xz", append(options, "-k", path)...)
		img, err := Describe(t.Context(), path+".xz")
		if err != nil || img.VirtualSizeBytes != int64(len(raw)) {
			t.Errorf("%v: %+v %v", options, img, err)
		}
	}
	path := write(t, "x.raw", raw)
	tool(t, "xz", "--lzma2=dict=512MiB", "-k", path)
	if _, err := Describe(t.Context(), path+".xz"); fleet.CodeOf(err) != "MC-IMAGE-DAMAGED" || !strings.Contains(err.Error(), "memory") {
		t.Errorf("a dictionary of 512 MiB: %v", err)
	}
}

func TestZstdAsItsOwnToolMakesIt(t *testing.T) {
	raw := disk(3 << 20)
	for _, options := range [][]string{{"-1"}, {"-19"}, {"--long=27"}, {"-T2", "-B500K"}} {
		path := write(t, "x.raw", raw)
		tool(t, "zstd", append(options, "-q", "-k", path)...)
		img, err := Describe(t.Context(), path+".zst")
		if err != nil || img.VirtualSizeBytes != int64(len(raw)) {
			t.Errorf("%v: %+v %v", options, img, err)
		}
	}
}

func TestDescribeSaysAllThereIsToKnow(t *testing.T) {
	raw := disk(4 << 20)
	_, rawSum := testDataSum(raw)
	q := qcow2(t, raw, "-c")
	_, sum := testDataSum(q)
	got, err := Describe(t.Context(), write(t, "debian-12.qcow2", q))
	if err != nil {
		t.Fatal(err)
	}
	want := Image{Name: "debian-12", Format: QCOW2, SHA256: sum, SizeBytes: int64(len(q)), VirtualSizeBytes: 4 << 20, DiskSHA256: rawSum}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
}

func TestAnImageWithoutADigestIsNotWritten(t *testing.T) {
	f, err := OpenFile(write(t, "x", disk(1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, img := range map[string]Image{"no digest": {Format: Raw}, "half a digest": {Format: Raw, SHA256: "abc"}, "no format": {SHA256: strings.Repeat("a", 64)},
		"raw of two sizes": {Format: Raw, SHA256: strings.Repeat("a", 64), SizeBytes: 1, VirtualSizeBytes: 2}} {
		_, err := Decode(t.Context(), f, img, func(Extent) error { t.Error("something was handed out"); return nil })
		if fleet.CodeOf(err) != "MC-IMAGE-INVALID" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// swapped is a source whose tables change between the look ahead and the pass, as a lying origin could arrange it.
type swapped struct {
	*File
	ahead []byte
}

func (s swapped) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	return bytes.Clone(s.ahead[off : off+n]), nil
}

func TestTablesThatChangeAreSeen(t *testing.T) {
	q := qcow2(t, disk(4<<20))
	_, sum := testDataSum(q)
	ahead := bytes.Clone(q)
	l1 := binary.BigEndian.Uint64(q[40:])
	l2 := binary.BigEndian.Uint64(q[l1:]) & offsetMask
	copy(ahead[l2:], make([]byte, 8)) // the first cluster, which holds the partition table, reads as zeros
	f, err := OpenFile(write(t, "x.qcow2", q))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = Decode(t.Context(), swapped{f, ahead}, Image{Name: "x", Format: QCOW2, SHA256: sum}, func(e Extent) error { e.Release(); return nil })
	if fleet.CodeOf(err) != "MC-IMAGE-DIGEST" {
		t.Errorf("got %v, want MC-IMAGE-DIGEST", err)
	}
}

func TestADecoderStopsWhenItIsTold(t *testing.T) {
	path := write(t, "x.raw", disk(64<<20))
	tool(t, "zstd", "-q", "-1", path)
	for _, file := range []string{path, path + ".zst"} {
		img, err := Describe(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := OpenFile(file)
		if err != nil {
			t.Fatal(err)
		}
		stop := fmt.Errorf("stop")
		if _, err := Decode(t.Context(), f, img, func(e Extent) error { e.Release(); return stop }); !strings.Contains(fmt.Sprint(err), "stop") {
			t.Errorf("%s: %v", img.Format, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := Decode(ctx, f, img, func(e Extent) error { cancel(); e.Release(); return nil }); err == nil && img.Format == Raw {
			t.Errorf("%s: no error after an abort", img.Format)
		}
		cancel()
		f.Close()
	}
}

func testDataSum(b []byte) ([]byte, string) {
	h := &contentHash{Hash: newSHA()}
	h.put(b)
	return b, fmt.Sprintf("%x", h.Sum(nil))
}

func FuzzSniff(f *testing.F) {
	f.Add(disk(1024))
	f.Add([]byte("QFI\xfb"))
	f.Add([]byte("P*M\x18"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if format, err := Sniff(b); err == nil && !format.known() {
			t.Errorf("format %q", format)
		}
	})
}

// FuzzQCOW2 reads header and tables; what is accepted must map every byte of the disk once.
func FuzzQCOW2(f *testing.F) {
	small := make([]byte, 8<<10)
	be := binary.BigEndian
	copy(small, "QFI\xfb\x00\x00\x00\x03")
	be.PutUint32(small[20:], 9)
	be.PutUint64(small[24:], 16<<10)
	be.PutUint32(small[36:], 1)
	be.PutUint64(small[40:], 512)
	be.PutUint32(small[100:], 112)
	be.PutUint64(small[512:], 1024)
	be.PutUint64(small[1024:], 2048)
	be.PutUint64(small[1032:], 1<<62|3000)
	be.PutUint64(small[1048:], 1)
	f.Add(small)
	small = bytes.Clone(small)
	be.PutUint32(small[4:], 2)
	f.Add(small)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 32 && be.Uint64(b[24:]) > 1<<20 {
			return // a large disk is legal and only costs time here
		}
		src := memory(b)
		m, err := readQCOW2(t.Context(), int64(len(b)), src.ReadRange)
		if err != nil {
			return
		}
		covered := make([]bool, m.qcow2Header.size)
		take := func(off, n int64) error {
			for i := off; i < off+n; i++ {
				if covered[i] {
					t.Fatalf("byte %d twice", i)
				}
				covered[i] = true
			}
			return nil
		}
		_ = m.holes(take)
		_, sum := testDataSum(b)
		whole := true
		_, err = Decode(t.Context(), src, Image{Name: "x", Format: QCOW2, SHA256: sum}, func(e Extent) error {
			defer e.Release()
			if e.Data != nil {
				_ = take(e.Off, e.Len)
			} else if !covered[e.Off] {
				_ = take(e.Off, e.Len)
			}
			return nil
		})
		for _, c := range covered {
			whole = whole && c
		}
		if err == nil && !whole {
			t.Error("not all of the disk was handed out")
		}
	})
}
