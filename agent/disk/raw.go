package disk

import (
	"context"
	"errors"
	"os"
)

// Raw is a whole disk, open for this process alone; reads and writes go past the page cache. Whoever opens one has seen that the disk may be overwritten.
type Raw struct{ h *handle }

// OpenRaw opens a disk. One that is in use is refused (MC-DISK-BUSY), as is one that has another size than dev says (MC-DISK-CHANGED).
func OpenRaw(dev Device) (*Raw, error) {
	h, err := open(dev, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return &Raw{h}, nil
}

// Size is in bytes.
func (r *Raw) Size() int64 { return r.h.size }

// ReadAt reads all of p, or fails.
func (r *Raw) ReadAt(p []byte, off int64) (int, error) { return r.h.ReadAt(p, off) }

// WriteAt writes all of p, or fails.
func (r *Raw) WriteAt(p []byte, off int64) (int, error) { return r.h.WriteAt(p, off) }

// Flush makes what was written durable.
func (r *Raw) Flush() error { return r.h.flush() }

// Zero makes n bytes from off read as zeros, by the quickest way of which the kernel promises that, and durable.
func (r *Raw) Zero(ctx context.Context, off, n int64) error {
	return errors.Join(r.h.zero(ctx, off, n, nil), r.h.flush())
}

// Close lets go of the disk.
func (r *Raw) Close() error { return r.h.close() }
