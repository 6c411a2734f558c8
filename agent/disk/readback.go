package disk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// ReadBack reads what w says was written, past the page cache, compares it with the digest of the contents, or piece by piece where that was not
// known, and returns the digest. A difference is MC-DISK-READBACK. It must run before anything else changes the disk (FixGPT, AddConfigDrive).
func ReadBack(ctx context.Context, dev Device, w WriteResult, o Options) (digest string, err error) {
	h, err := open(dev, os.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("read back: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	sum := sha256.New()
	check := newPieceCheck(w)
	m := newMeter("verify", w.DiskBytes, o)
	r := readAhead(ctx, h, 0, w.DiskBytes)
	defer r.stop()
	for {
		b, off, err := r.next()
		if err != nil {
			return "", fmt.Errorf("read back: %w", err)
		}
		if b == nil {
			break
		}
		sum.Write(b)
		if err := check.block(b, off); err != nil {
			return "", mismatch(dev, err)
		}
		m.add(int64(len(b)))
		r.done(b)
	}
	digest = hex.EncodeToString(sum.Sum(nil))
	if w.ContentSHA256 != "" && digest != w.ContentSHA256 {
		return "", mismatch(dev, fmt.Errorf("the first %d bytes have the sha256 %s, written was %s", w.DiskBytes, digest, w.ContentSHA256))
	}
	if err := check.end(); err != nil {
		return "", mismatch(dev, err)
	}
	m.end()
	return digest, nil
}

func mismatch(dev Device, err error) error {
	return fleet.Errorf(fleet.Broken, "MC-DISK-READBACK", "%s does not hold what was written to it: %w", dev, err).
		WithHint("metalctl node show NODE; write again once, then have the drive replaced")
}

// pieceCheck compares a pass over the disk with the digests of what was written; what lies between pieces must be zero.
type pieceCheck struct {
	pieces []Piece
	active bool
	hashed int64
	sum    interface {
		Write([]byte) (int, error)
		Sum([]byte) []byte
		Reset()
	}
}

func newPieceCheck(w WriteResult) *pieceCheck {
	c := &pieceCheck{pieces: slices.Clone(w.Pieces), active: w.ContentSHA256 == "", sum: sha256.New()}
	slices.SortFunc(c.pieces, func(a, b Piece) int { return cmp.Compare(a.Off, b.Off) })
	return c
}

func (c *pieceCheck) block(b []byte, off int64) error {
	if !c.active {
		return nil
	}
	for len(b) > 0 {
		n := int64(len(b))
		inside := false
		if len(c.pieces) > 0 {
			p := c.pieces[0]
			if inside = off >= p.Off; inside {
				n = min(n, p.Off+p.Len-off)
			} else {
				n = min(n, p.Off-off)
			}
		}
		if !inside {
			if !allZero(b[:n]) {
				return fmt.Errorf("%d bytes at %d should be zero", n, off)
			}
		} else if err := c.piece(b[:n]); err != nil {
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}

func (c *pieceCheck) piece(b []byte) error {
	p := c.pieces[0]
	_, _ = c.sum.Write(b) // a hash never fails
	if c.hashed += int64(len(b)); c.hashed < p.Len {
		return nil
	}
	got := c.sum.Sum(nil)
	c.sum.Reset()
	c.hashed, c.pieces = 0, c.pieces[1:]
	if [sha256.Size]byte(got) != p.SHA256 {
		return fmt.Errorf("%d bytes at %d have the sha256 %x, written was %x", p.Len, p.Off, got, p.SHA256)
	}
	return nil
}

func (c *pieceCheck) end() error {
	if c.active && len(c.pieces) > 0 {
		return fmt.Errorf("%d pieces lie beyond the end", len(c.pieces))
	}
	return nil
}

// ahead reads a range of a disk in order with a few reads under way. Only its own goroutines and one other use it.
type ahead struct {
	ctx      context.Context
	h        *handle
	off, end int64       // of what is not yet being read
	slots    []*readSlot // under way, in order
}

type readSlot struct {
	b    []byte
	off  int64
	err  error
	done chan struct{}
}

const readBlock = 4 << 20

func readAhead(ctx context.Context, h *handle, off, n int64) *ahead {
	const depth = 4
	makeRoom(depth)
	a := &ahead{ctx: ctx, h: h, off: off, end: off + n}
	for range min(depth, (n+readBlock-1)/readBlock) {
		a.done(AlignedBytes(readBlock))
	}
	return a
}

// next returns the next block, or nil at the end; done gives it back.
func (a *ahead) next() ([]byte, int64, error) {
	if len(a.slots) == 0 {
		return nil, 0, nil
	}
	s := a.slots[0]
	<-s.done
	if s.err == nil {
		s.err = a.ctx.Err()
	}
	a.slots = a.slots[1:]
	return s.b, s.off, s.err
}

// done takes a block's memory and begins to read into it what comes next.
func (a *ahead) done(b []byte) {
	if a.off == a.end || a.ctx.Err() != nil && len(a.slots) > 0 {
		return // next tells the caller
	}
	s := &readSlot{b: b[:min(readBlock, a.end-a.off)], off: a.off, done: make(chan struct{})}
	a.off += int64(len(s.b))
	a.slots = append(a.slots, s)
	go func() {
		defer close(s.done)
		s.err = fleet.Catch(func() error { _, err := a.h.ReadAt(s.b, s.off); return err })
	}()
}

// stop waits for the reads under way: the handle is closed after it.
func (a *ahead) stop() {
	for _, s := range a.slots {
		<-s.done
	}
}
