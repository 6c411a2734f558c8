package disk

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images"
)

// imageBytes is not a multiple of a block, and holds data, short and long zeros.
const imageBytes = 37<<20 + 512*3

// testContents makes a disk with a GPT and two partitions; the first is an ESP.
func testContents(t testing.TB) []byte {
	t.Helper()
	b := make([]byte, imageBytes)
	random := rand.NewChaCha8([32]byte{1})
	for _, span := range [][2]int{{3<<20 + 512, 6 << 20}, {12<<20 + 4096, 12<<20 + 70000}, {20 << 20, 22<<20 + 512}, {34 << 20, 35 << 20}} {
		fill(b[span[0]:span[1]], random)
	}
	// Compressible, too.
	for i := 30 << 20; i < 32<<20; i++ {
		b[i] = byte(i >> 12)
	}
	sectors := int64(len(b) / 512)
	tb := &table{sector: 512, disk: GUID{9}, firstUsable: 34, entriesAt: 2, entryCount: 128, entrySze: 128, entries: make([]byte, 128*128)}
	putEntry(tb.entry(0), Partition{Name: "root", Type: TypeLinux, GUID: GUID{1}, StartLBA: 20 << 11, SizeLBA: 12 << 11})
	putEntry(tb.entry(14), Partition{Name: "esp", Type: TypeESP, GUID: GUID{2}, StartLBA: 2048, SizeLBA: 18 << 11})
	tb.last = sectors - 1 - 32 - 1
	copy(b[512:], tb.header(1, sectors-1, 2))
	copy(b[1024:], tb.entries)
	copy(b[(sectors-33)*512:], tb.entries)
	copy(b[(sectors-1)*512:], tb.header(sectors-1, 1, sectors-33))
	copy(b[446:], []byte{0, 0, 2, 0, mbrTypeGPT, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	binary.LittleEndian.PutUint32(b[458:], uint32(sectors-1))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// fill writes what no two sectors share, and what the pure Go decoder of xz, under the race detector, unpacks in seconds: random bytes of a few KiB again
// and again, with a random word in each sector.
func fill(b []byte, random *rand.ChaCha8) {
	var page [8 << 10]byte
	_, _ = random.Read(page[:])
	for off := 0; off < len(b); off += len(page) {
		copy(b[off:], page[:])
	}
	for off := 0; off+8 <= len(b); off += 512 {
		_, _ = random.Read(b[off : off+8])
	}
}

// testImage writes the contents as a file of the format and returns its path.
func testImage(t testing.TB, contents []byte, format images.Format, qemuOptions ...string) string {
	t.Helper()
	dir := t.TempDir()
	raw := filepath.Join(dir, "debian.raw")
	if err := os.WriteFile(raw, contents, 0o600); err != nil {
		t.Fatal(err)
	}
	if format == images.Raw {
		return raw
	}
	if format == images.QCOW2 {
		tool, err := exec.LookPath("qemu-img")
		if err != nil {
			t.Skip("qemu-img (package qemu-utils) is not here to make a qcow2 file")
		}
		path := filepath.Join(dir, "debian.qcow2")
		if out, err := exec.Command(tool, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, qemuOptions...), raw, path)...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v\n%s", err, out)
		}
		return path
	}
	path := filepath.Join(dir, "debian."+string(format))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The pure Go encoder, under the race detector, takes a minute; the decoder under test is the product's either way.
	if tool, err := exec.LookPath("xz"); err == nil && format == images.RawXZ {
		xz := exec.Command(tool, "-1", "-c", raw)
		xz.Stdout = f
		if err := xz.Run(); err != nil {
			t.Fatalf("xz: %v", err)
		}
		return path
	}
	var w io.WriteCloser
	switch format {
	case images.RawZstd:
		w, err = zstd.NewWriter(f)
	case images.RawGzip:
		w = gzip.NewWriter(f)
	case images.RawXZ:
		w, err = xz.NewWriter(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(contents); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// dirtyDisk is a file of size bytes full of old data.
func dirtyDisk(t testing.TB, size int) Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte("old tenant data "), size/16), 0o600); err != nil {
		t.Fatal(err)
	}
	dev, err := Stat("/", path)
	if err != nil {
		t.Fatal(err)
	}
	dev.Serial = "SER1"
	return dev
}

// loopDisk is the same behind a loop device, where this machine may make one.
func loopDisk(t testing.TB, size, sector int) Device {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("hardware: only root makes loop devices")
	}
	file := dirtyDisk(t, size)
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), file.Path).CombinedOutput()
	if _, missing := os.Stat("/dev/loop-control"); err != nil && missing != nil {
		t.Skipf("hardware: this machine has no loop devices: %v %s", err, out)
	}
	if err != nil {
		t.Fatalf("losetup: %v %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", path).CombinedOutput(); err != nil {
			t.Errorf("losetup -d: %v %s", err, out)
		}
	})
	dev, err := Stat("/", path)
	if err != nil {
		t.Fatal(err)
	}
	dev.Serial = "LOOP1"
	return dev
}

func contentOf(t testing.TB, path string, img images.Image) Content {
	t.Helper()
	f, err := images.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return func(ctx context.Context, yield func(images.Extent) error) (images.Result, error) {
		return images.Decode(ctx, f, img, yield)
	}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func readAll(t testing.TB, dev Device) []byte {
	t.Helper()
	b, err := os.ReadFile(dev.Path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnImageOfEachFormatArrivesOnTheDisk(t *testing.T) {
	contents := testContents(t)
	const diskBytes = 112 << 20 // a config drive needs 64 MiB beside the image
	for _, c := range []struct {
		name   string
		format images.Format
		qemu   []string
	}{
		{"raw", images.Raw, nil},
		{"zstd", images.RawZstd, nil},
		{"gzip", images.RawGzip, nil},
		{"xz", images.RawXZ, nil},
		{"qcow2", images.QCOW2, nil},
		{"qcow2 with deflated clusters", images.QCOW2, []string{"-c"}},
		{"qcow2 with zstd clusters", images.QCOW2, []string{"-c", "-o", "compression_type=zstd"}},
		{"qcow2 version 2 with small clusters", images.QCOW2, []string{"-o", "compat=0.10,cluster_size=512"}},
		{"qcow2 with large clusters", images.QCOW2, []string{"-c", "-o", "cluster_size=2M"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && (c.format == images.RawXZ || c.format == images.RawGzip || strings.Contains(c.name, " with ")) {
				t.Skip("the formats that share the way of others")
			}
			path := testImage(t, contents, c.format, c.qemu...)
			img, err := images.Describe(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if img.ContentSHA256() != digestOf(contents) || img.VirtualSizeBytes != imageBytes || img.Format != c.format {
				t.Fatalf("Describe: %+v, want %d bytes with %s", img, imageBytes, digestOf(contents))
			}
			for _, unknown := range []bool{false, true} {
				if testing.Short() && unknown != (c.format == images.QCOW2) {
					continue // one of each kind
				}
				if unknown { // as from an operator who only knows the file's digest
					img.DiskSHA256, img.VirtualSizeBytes = "", 0
				}
				dev := dirtyDisk(t, diskBytes)
				if os.Getuid() == 0 && !testing.Short() && !unknown {
					dev = loopDisk(t, diskBytes, 512)
				}
				deploy(t, dev, path, img, contents)
			}
		})
	}
}

// deploy takes the whole way of an image onto dev and compares every byte.
func deploy(t *testing.T, dev Device, path string, img images.Image, contents []byte) {
	t.Helper()
	var last Progress
	o := Options{Image: img, Progress: func(p Progress) { last = p }}
	res, err := WriteImage(t.Context(), dev, contentOf(t, path, img), o)
	if err != nil {
		t.Fatal(err)
	}
	if last.Stage != "write" || last.DoneBytes != imageBytes {
		t.Errorf("progress ended at %+v, want write of %d", last, imageBytes)
	}
	if res.ZeroBytes < 15<<20 {
		t.Errorf("%d bytes taken for zero, want most of the image's holes", res.ZeroBytes)
	}
	digest, err := ReadBack(t.Context(), dev, res, o)
	if err != nil {
		t.Fatal(err)
	}
	if want := digestOf(contents); digest != want {
		t.Errorf("ReadBack returned %s, want %s", digest, want)
	}
	if err := FixGPT(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	drive := bytes.Repeat([]byte("config"), 1000)
	p, err := AddConfigDrive(t.Context(), dev, "config-2", drive)
	if err != nil {
		t.Fatal(err)
	}
	again, err := AddConfigDrive(t.Context(), dev, "config-2", drive)
	if err != nil || again != p {
		t.Errorf("the second config drive is %+v (%v), want the first one's place %+v", again, err, p)
	}
	disk := readAll(t, dev)
	old := int64(imageBytes/512-1) * 512 // the backup header of the image has moved
	if !bytes.Equal(disk[34*512:old], contents[34*512:old]) {
		t.Error("the disk differs from the image")
	}
	if rest := disk[old : old+4<<20]; !allZero(rest) {
		t.Error("old data beyond the image's end")
	}
	if at := p.StartBytes; !bytes.Equal(disk[at:at+int64(len(drive))], drive) || !allZero(disk[at+int64(len(drive)):at+ConfigDriveBytes]) {
		t.Error("the config drive's partition does not hold the drive and zeros")
	}
	sgdiskAgrees(t, dev.Path, len(disk))
}

// sgdiskAgrees lets a peer check the table.
func sgdiskAgrees(t *testing.T, path string, size int) {
	t.Helper()
	tool, err := exec.LookPath("sgdisk")
	if err != nil {
		t.Log("sgdisk (package gdisk) is not here to check the table")
		return
	}
	out, err := exec.Command(tool, "-v", "-p", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk -v: %v\n%s", err, out)
	}
	for _, want := range []string{"config-2", "esp", "root"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("sgdisk does not see %s:\n%s", want, out)
		}
	}
}

func TestADamagedImageLeavesNothingThatBoots(t *testing.T) {
	contents := testContents(t)
	formats := []images.Format{images.Raw, images.RawZstd, images.RawGzip, images.RawXZ, images.QCOW2}
	if testing.Short() {
		formats = []images.Format{images.RawZstd}
	}
	for _, format := range formats {
		whole := testImage(t, contents, format)
		img, err := images.Describe(t.Context(), whole)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(whole)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(file)
		flipped[len(file)*2/3] ^= 1
		for _, c := range []struct {
			name  string
			bytes []byte
			img   images.Image
			codes string
		}{
			{"cut short", file[:len(file)*2/3], img, "MC-IMAGE-TRUNCATED"},
			{"cut short, length not recorded", file[:len(file)*2/3], images.Image{Name: "x", Format: format, SHA256: img.SHA256}, "MC-IMAGE-TRUNCATED MC-IMAGE-DIGEST"},
			{"one bit flipped", flipped, img, "MC-IMAGE-DIGEST MC-IMAGE-DAMAGED"},
			{"longer", append(bytes.Clone(file), 0, 0, 0, 0), img, "MC-IMAGE-DIGEST MC-IMAGE-DAMAGED"},
		} {
			t.Run(string(format)+" "+c.name, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "image")
				if err := os.WriteFile(path, c.bytes, 0o600); err != nil {
					t.Fatal(err)
				}
				dev := dirtyDisk(t, 64<<20)
				_, err := WriteImage(t.Context(), dev, contentOf(t, path, c.img), Options{Image: c.img})
				if code := fleet.CodeOf(err); err == nil || !strings.Contains(c.codes, code) || code == "" {
					t.Fatalf("got %q: %v; want one of %s", code, err, c.codes)
				}
				t.Log(err)
				disk := readAll(t, dev)
				if !allZero(disk[:headBytes]) || !allZero(disk[len(disk)-headBytes:]) {
					t.Error("the disk's ends are not zero")
				}
			})
		}
	}
}

func TestAnImageLargerThanTheDiskChangesNothing(t *testing.T) {
	path := testImage(t, testContents(t), images.RawZstd)
	img, err := images.Describe(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	dev := dirtyDisk(t, 16<<20)
	before := digestOf(readAll(t, dev))
	_, err = WriteImage(t.Context(), dev, contentOf(t, path, img), Options{Image: img})
	if code := fleet.CodeOf(err); code != "MC-DISK-SMALL" {
		t.Fatalf("got %v, want MC-DISK-SMALL", err)
	}
	if digestOf(readAll(t, dev)) != before {
		t.Error("the disk changed")
	}
}

func TestReadBackSeesOneChangedByte(t *testing.T) {
	contents := testContents(t)
	path := testImage(t, contents, images.RawZstd)
	img, err := images.Describe(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range []bool{true, false} {
		for _, at := range []int64{5 << 20, 36 << 20} { // in data, in zeros
			if !known {
				img.DiskSHA256 = ""
			}
			dev := dirtyDisk(t, 64<<20)
			res, err := WriteImage(t.Context(), dev, contentOf(t, path, img), Options{Image: img})
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(dev.Path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{contents[at] ^ 1}, at); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if _, err := ReadBack(t.Context(), dev, res, Options{}); fleet.CodeOf(err) != "MC-DISK-READBACK" {
				t.Errorf("known %v, byte %d: got %v, want MC-DISK-READBACK", known, at, err)
			}
		}
	}
}

// fixed is a content of one block.
func fixed(text string) Content {
	return func(_ context.Context, yield func(images.Extent) error) (images.Result, error) {
		b := AlignedBytes(4096)
		copy(b, text)
		return images.Result{DiskBytes: 4096}, yield(images.Extent{Len: 4096, Data: b})
	}
}
