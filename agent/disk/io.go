package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/images"
)

// AlignedBytes returns memory for direct I/O.
func AlignedBytes(size int) []byte { return images.AlignedBytes(size) }

// makeRoom lets as many goroutines compute as there are cores while calls more are in the kernel. A direct read or write keeps one of Go's processors until
// the runtime's monitor takes it away, up to 10 ms later; on a machine with few cores the hash would wait for that. It never lowers the number.
func makeRoom(calls int) {
	if want := runtime.NumCPU() + calls; runtime.NumCPU() <= 2*calls && runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
}

func isAligned(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%512 == 0 }

func (h *handle) down(off int64) int64 { return off / h.align * h.align }
func (h *handle) up(off int64) int64   { return min((off+h.align-1)/h.align*h.align, h.size) }

// ReadAt reads all of p at any offset, or fails.
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > h.size {
		return 0, fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, h.dev, io.EOF)
	}
	from, to := h.down(off), h.up(off+int64(len(p)))
	buf := p
	if from != off || to-from != int64(len(p)) || !isAligned(p) {
		buf = AlignedBytes(int(to - from))
	}
	if n, err := h.f.ReadAt(buf, from); err != nil {
		return 0, fmt.Errorf("read %d bytes at %d of %s (got %d): %w", len(buf), from, h.dev, n, err)
	}
	if &buf[0] != &p[0] {
		copy(p, buf[off-from:])
	}
	return len(p), nil
}

// WriteAt writes all of p at any offset; where that is not the disk's alignment it keeps what is beside it.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > h.size {
		return 0, fmt.Errorf("write %d bytes at %d of %s: %w", len(p), off, h.dev, unix.ENOSPC)
	}
	if len(p) == 0 {
		return 0, nil
	}
	from, to := h.down(off), h.up(off+int64(len(p)))
	buf := p
	if from != off || to-from != int64(len(p)) {
		h.edge.Lock()
		defer h.edge.Unlock()
		buf = AlignedBytes(int(to - from))
		if _, err := h.ReadAt(buf, from); err != nil {
			return 0, err
		}
		copy(buf[off-from:], p)
	} else if !isAligned(p) {
		buf = AlignedBytes(len(p))
		copy(buf, p)
	}
	if n, err := h.f.WriteAt(buf, from); err != nil {
		return 0, fmt.Errorf("write %d bytes at %d of %s (did %d): %w", len(buf), from, h.dev, n, err)
	}
	return len(p), nil
}

// zeroStep is the most that one call zeroes, so that an abort and the progress need not wait long.
const zeroStep = 1 << 30

// zero makes n bytes from off read as zeros, by the quickest way of which the kernel promises that.
func (h *handle) zero(ctx context.Context, off, n int64, done func(int64)) error {
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(zeroStep, end-off)
		if err := h.zeroOnce(off, k); err != nil {
			return err
		}
		off += k
		if done != nil {
			done(k)
		}
	}
	return nil
}

func (h *handle) zeroOnce(off, n int64) error {
	from, to := off, off+n
	if h.block {
		from, to = (off+h.align-1)/h.align*h.align, h.down(off+n)
	}
	if to > from {
		if err := h.zeroFast(from, to-from); err != nil {
			return fmt.Errorf("zero %d bytes at %d of %s: %w", to-from, from, h.dev, err)
		}
	} else {
		from, to = off+n, off+n
	}
	for _, edge := range [][2]int64{{off, from}, {to, off + n}} {
		if edge[1] > edge[0] {
			if _, err := h.WriteAt(make([]byte, edge[1]-edge[0]), edge[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// zeroFast never uses a plain discard: what reads back after that is up to the drive. FALLOC_FL_PUNCH_HOLE on a block device is
// blkdev_issue_zeroout with BLKDEV_ZERO_NOFALLBACK (block/fops.c): it unmaps only where the drive promises zeros. BLKZEROOUT
// writes zeros where the drive has no command for it.
func (h *handle) zeroFast(off, n int64) error {
	err := unix.Fallocate(int(h.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err == nil || !unsupported(err) {
		return err
	}
	if h.block {
		if err = blkzeroout(h.f.Fd(), off, n); err == nil || !unsupported(err) {
			return err
		}
	}
	return h.overwrite(off, n)
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL)
}

func blkzeroout(fd uintptr, off, n int64) error {
	span := [2]uint64{uint64(off), uint64(n)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return errno
	}
	return nil
}

// overwrite writes zeros.
func (h *handle) overwrite(off, n int64) error {
	buf := AlignedBytes(int(min(n, 4<<20)))
	for end := off + n; off < end; off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), end-off)]
		if _, err := h.WriteAt(buf, off); err != nil {
			return err
		}
	}
	return nil
}
