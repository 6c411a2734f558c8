package disk

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/images"
)

// TestBench prints how fast images are written and read back beside dd and qemu-img, in one run on this machine: METALCTL_BENCH=1 go test -run TestBench
// -v ./agent/disk. METALCTL_BENCH_FORMATS picks some (raw,raw.zst,raw.gz,raw.xz,qcow2), METALCTL_BENCH_DIR is where image and target lie (a folder, for targets as files), METALCTL_BENCH_DISK a block device to be OVERWRITTEN as
// target, METALCTL_BENCH_MIB the image's size and METALCTL_BENCH_RUNS how often each is run, one after the other in turn; medians count.
func TestBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") != "1" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
	b := newBench(t)
	raw := b.rawImage()
	dd := func(name string, args ...string) step {
		return step{name, func() error { return b.tool("dd", append([]string{"bs=4M", "status=none"}, args...)...) }}
	}
	if b.wants("raw") {
		medians := b.compare("raw, sha256 beside it", []step{
			b.write(raw),
			dd("dd oflag=direct, no digest", "if="+raw, "of="+b.target, "oflag=direct", "conv=notrunc,fsync"),
			b.qemuImg("raw", raw),
			b.decodeOnly(raw),
		})
		b.boundBy(medians[0], medians[3], "hashing")
		b.compare("read back, sha256 beside it", []step{b.readBack(raw), dd("dd iflag=direct, no digest", "if="+b.target, "of=/dev/null", "iflag=direct", "count="+strconv.FormatInt(b.bytes>>22, 10))})
	}
	for _, c := range []struct{ format, tool, unpack string }{{"raw.zst", "zstd", "zstd -dc"}, {"raw.gz", "gzip", "gzip -dc"}, {"raw.xz", "xz", "xz -dc"}} {
		if !b.wants(c.format) {
			continue
		}
		packed := raw + strings.TrimPrefix(c.format, "raw")
		level := "-1"
		if c.format == "raw.zst" {
			level = "-3"
		}
		if err := b.tool("sh", "-c", fmt.Sprintf("%s %s -T0 -c %s > %s || %s %s -c %s > %s", c.tool, level, raw, packed, c.tool, level, raw, packed)); err != nil {
			t.Fatal(err)
		}
		medians := b.compare(c.format, []step{
			b.write(packed),
			{c.unpack + " | dd oflag=direct", func() error {
				return b.tool("sh", "-c", fmt.Sprintf("%s %s | dd bs=4M iflag=fullblock status=none of=%s oflag=direct conv=notrunc,fsync", c.unpack, packed, b.target))
			}},
			b.decodeOnly(packed),
		})
		b.boundBy(medians[0], medians[2], "decoding and hashing")
		if err := os.Remove(packed); err != nil {
			t.Fatal(err)
		}
	}
	if !b.wants("qcow2") {
		return
	}
	for _, c := range []struct {
		name    string
		options []string
	}{{"qcow2", nil}, {"qcow2, deflate", []string{"-c"}}, {"qcow2, zstd", []string{"-c", "-o", "compression_type=zstd"}}} {
		packed := raw + ".qcow2"
		if err := b.tool("qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, c.options...), raw, packed)...); err != nil {
			t.Fatal(err)
		}
		medians := b.compare(c.name, []step{b.write(packed), b.qemuImg("qcow2", packed), b.decodeOnly(packed)})
		b.boundBy(medians[0], medians[2], "decoding and hashing")
	}
}

func (b *bench) wants(format string) bool {
	list := os.Getenv("METALCTL_BENCH_FORMATS")
	return list == "" || slices.Contains(strings.Split(list, ","), format)
}

type step struct {
	name string
	run  func() error
}

type bench struct {
	t           *testing.T
	dir, target string
	dev         Device
	bytes       int64
	runs        int
}

func newBench(t *testing.T) *bench {
	number := func(key string, def int) int {
		if n, err := strconv.Atoi(os.Getenv(key)); err == nil && n > 0 {
			return n
		}
		return def
	}
	b := &bench{t: t, dir: os.Getenv("METALCTL_BENCH_DIR"), bytes: int64(number("METALCTL_BENCH_MIB", 1024)) << 20, runs: number("METALCTL_BENCH_RUNS", 5)}
	if b.dir == "" {
		b.dir = t.TempDir()
	}
	if b.target = os.Getenv("METALCTL_BENCH_DISK"); b.target == "" {
		b.target = filepath.Join(b.dir, "target")
		f, err := os.Create(b.target)
		if err != nil {
			t.Fatal(err)
		}
		// Twice the image: with the ends that are zeroed, and written once, so that nobody pays for the first allocation.
		if err := f.Truncate(b.bytes + 64<<20); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { os.Remove(b.target) })
		if err := b.tool("dd", "if=/dev/zero", "of="+b.target, "bs=4M", "count="+strconv.FormatInt((b.bytes+64<<20)>>22, 10), "conv=notrunc,fsync", "oflag=direct", "status=none"); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if b.dev, err = Stat("/", b.target); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) tool(name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		b.t.Skipf("%s is not here", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
	}
	return nil
}

// rawImage has no zero blocks, so that nothing is won by leaving them out, and packs to about half.
func (b *bench) rawImage() string {
	path := filepath.Join(b.dir, "image.raw")
	f, err := os.Create(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	b.t.Cleanup(func() { os.Remove(path) })
	random := rand.NewChaCha8([32]byte{5})
	block := make([]byte, 4<<20)
	for n := int64(0); n < b.bytes; n += int64(len(block)) {
		_, _ = random.Read(block)
		for i := 0; i < len(block); i += 8192 {
			for k := 0; k < 4096; k += 16 {
				binary.LittleEndian.PutUint64(block[i+k:], uint64(n)+uint64(i))
				binary.LittleEndian.PutUint64(block[i+k+8:], uint64(k))
			}
		}
		if n == 0 {
			block[510], block[511] = 0x55, 0xaa
		}
		if _, err := f.Write(block); err != nil {
			b.t.Fatal(err)
		}
	}
	return path
}

func (b *bench) image(path string) images.Image {
	img, err := images.Describe(b.t.Context(), path)
	if err != nil {
		b.t.Fatal(err)
	}
	return img
}

func (b *bench) write(path string) step {
	img, content := b.bound(path)
	return step{"metalctl", func() error {
		_, err := WriteImage(b.t.Context(), b.dev, content, Options{Image: img})
		return err
	}}
}

func (b *bench) bound(path string) (images.Image, Content) {
	img := b.image(path)
	f, err := images.OpenFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return img, func(ctx context.Context, yield func(images.Extent) error) (images.Result, error) {
		return images.Decode(ctx, f, img, yield)
	}
}

func (b *bench) decodeOnly(path string) step {
	_, content := b.bound(path)
	return step{"metalctl, hash and decode only", func() error {
		_, err := content(b.t.Context(), func(e images.Extent) error { e.Release(); return nil })
		return err
	}}
}

func (b *bench) readBack(path string) step {
	img := b.image(path)
	return step{"metalctl", func() error {
		_, err := ReadBack(b.t.Context(), b.dev, WriteResult{Result: images.Result{DiskBytes: b.bytes}, ContentSHA256: img.SHA256}, Options{})
		return err
	}}
}

func (b *bench) qemuImg(format, path string) step {
	return step{"qemu-img convert", func() error {
		return b.tool("qemu-img", "convert", "-n", "-W", "-t", "none", "-f", format, "-O", "raw", path, b.target)
	}}
}

// taken is what one run cost.
type taken struct{ wall, cpu time.Duration }

// compare runs the steps in turn and prints medians: of the wall time, of the cores' time (user and system, this process and its children), and of the
// relation of the first one's wall time to the others' in the same round.
func (b *bench) compare(title string, steps []step) []taken {
	rounds := make([][]taken, b.runs)
	for i := range rounds {
		for _, s := range steps {
			unix.Sync()
			runtime.GC()
			cpu, start := cpuTime(b.t), time.Now()
			if err := s.run(); err != nil {
				b.t.Fatalf("%s: %v", s.name, err)
			}
			rounds[i] = append(rounds[i], taken{time.Since(start), cpuTime(b.t) - cpu})
		}
	}
	medians := make([]taken, len(steps))
	for i, s := range steps {
		m := taken{median(rounds, func(r []taken) time.Duration { return r[i].wall }), median(rounds, func(r []taken) time.Duration { return r[i].cpu })}
		medians[i] = m
		fmt.Printf("%-28s %-34s %7.2f s %6.0f MB/s  cores %5.2f s", title, s.name, m.wall.Seconds(), float64(b.bytes)/1e6/m.wall.Seconds(), m.cpu.Seconds())
		if i > 0 {
			fmt.Printf("   metalctl runs at %3.0f %% of it", 100*median(rounds, func(r []taken) float64 { return float64(r[i].wall) / float64(r[0].wall) }))
		}
		fmt.Println()
	}
	return medians
}

func median[T cmp.Ordered](rounds [][]taken, of func([]taken) T) T {
	all := make([]T, len(rounds))
	for i, r := range rounds {
		all[i] = of(r)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func cpuTime(t *testing.T) time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// boundBy says what a write waits for: what takes at least four fifths of its time when done alone.
func (b *bench) boundBy(whole, alone taken, what string) {
	by := "the disk"
	if alone.wall*10 >= whole.wall*8 {
		by = what
	}
	fmt.Printf("%-28s bound by %s (%s alone takes %.0f %% of the time)\n", "", by, what, 100*alone.wall.Seconds()/whole.wall.Seconds())
}
