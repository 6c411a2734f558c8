package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images"
)

// Content produces a disk's contents: images.Decode with a source and an image bound to it.
type Content func(ctx context.Context, yield func(images.Extent) error) (images.Result, error)

// Progress is how far a long job has come.
type Progress struct {
	// Stage is write, verify, erase or sample.
	Stage string `json:"stage"`
	// DoneBytes of TotalBytes; a total of 0 is not known.
	DoneBytes  int64 `json:"done_bytes"`
	TotalBytes int64 `json:"total_bytes"`
}

// Options of WriteImage and ReadBack.
type Options struct {
	// Image is what is written: its sizes are checked before the first byte changes.
	Image images.Image
	// Progress, where not nil, is called at most four times a second and at the end, never concurrently.
	Progress func(Progress)
	// Writers is how many writes are under way at once; 0: 4, measured best with blocks of 4 MiB.
	Writers int
	// Now is the clock for Progress; nil: time.Now.
	Now func() time.Time
}

// WriteResult says what was written.
type WriteResult struct {
	images.Result
	// DataBytes were written, ZeroBytes of Result were zeroed.
	DataBytes int64 `json:"data_bytes"`
	// ContentSHA256 is what the first DiskBytes of the disk must read as; empty: only Pieces can tell.
	ContentSHA256 string `json:"content_sha256,omitempty"`
	// Pieces are the digests of what was written, by offset, where no digest of the contents was known beforehand.
	Pieces []Piece `json:"-"`
}

// Piece is the digest of one written extent.
type Piece struct {
	Off, Len int64
	SHA256   [sha256.Size]byte
}

// headBytes are kept back until the image's digest is verified, and the disk begins with zeros until then: whatever happens in between,
// no unverified image and no half one can be booted.
const headBytes = images.BlockBytes

// WriteImage writes content to dev. Areas that are zero in the image are zero on the disk; beyond the image's end the neighbourhood and
// the disk's last 4 MiB (backup partition tables, RAID superblocks) are zeroed. After an error the disk has no partition table.
func WriteImage(ctx context.Context, dev Device, content Content, o Options) (WriteResult, error) {
	res, err := writeImage(ctx, dev, content, o)
	if err != nil {
		return res, fmt.Errorf("write image to %s: %w", dev, err)
	}
	return res, nil
}

func writeImage(ctx context.Context, dev Device, content Content, o Options) (res WriteResult, err error) {
	h, err := open(dev, os.O_RDWR)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if o.Image.VirtualSizeBytes > h.size {
		return res, tooSmall(dev, o.Image, o.Image.VirtualSizeBytes, h.size)
	}
	if err := h.zeroEnds(ctx); err != nil {
		return res, err
	}
	w := newWriter(ctx, h, o)
	res.Result, err = content(ctx, w.put)
	if werr := w.wait(); werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	res.DataBytes, res.Pieces = w.data, w.pieces
	if err != nil {
		return res, err
	}
	if res.DiskBytes < headBytes {
		w.head = w.head[:res.DiskBytes]
	}
	if err := h.zeroBeyond(ctx, res.DiskBytes); err != nil {
		return res, err
	}
	if err := h.flush(); err != nil {
		return res, err
	}
	// From here on the image is known to be the right one, and all of it but the head is durable.
	if _, err := h.WriteAt(w.head, 0); err != nil {
		return res, err
	}
	res.ContentSHA256 = o.Image.ContentSHA256()
	w.progress.end()
	return res, h.flush()
}

func tooSmall(dev Device, img images.Image, need, have int64) error {
	return fleet.Errorf(fleet.Conflict, "MC-DISK-SMALL", "image %q makes a disk of %d bytes, %s has %d", img.Name, need, dev, have).
		WithHint("choose another root disk by hints: metalctl node set NODE --root-disk serial=SERIAL")
}

// zeroEnds takes away what could boot or be assembled before anything new is there.
func (h *handle) zeroEnds(ctx context.Context) error {
	if h.size <= 2*headBytes {
		return h.zero(ctx, 0, h.size, nil)
	}
	if err := h.zero(ctx, 0, headBytes, nil); err != nil {
		return err
	}
	if err := h.zero(ctx, h.size-headBytes, headBytes, nil); err != nil {
		return err
	}
	return h.flush()
}

func (h *handle) zeroBeyond(ctx context.Context, end int64) error {
	if err := h.zero(ctx, end, min(headBytes, h.size-end), nil); err != nil {
		return err
	}
	tail := max(end, h.size-headBytes)
	return h.zero(ctx, tail, h.size-tail, nil)
}

// writer spreads extents over a few concurrent writes.
type writer struct {
	h        *handle
	img      images.Image
	head     []byte
	digests  bool
	work     chan images.Extent
	wg       sync.WaitGroup
	cancel   context.CancelCauseFunc
	ctx      context.Context // good until wait returns
	progress *meter

	mu     sync.Mutex // guards what follows
	data   int64
	pieces []Piece
}

func newWriter(ctx context.Context, h *handle, o Options) *writer {
	n := o.Writers
	if n <= 0 {
		n = 4
	}
	makeRoom(n)
	w := &writer{h: h, img: o.Image, head: AlignedBytes(headBytes), digests: o.Image.ContentSHA256() == "",
		work: make(chan images.Extent), progress: newMeter("write", o.Image.VirtualSizeBytes, o)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	for range n {
		w.wg.Go(func() {
			for e := range w.work {
				if err := fleet.Catch(func() error { defer e.Release(); return w.do(e) }); err != nil {
					w.cancel(err)
				}
			}
		})
	}
	return w
}

// put takes one extent from the decoder.
func (w *writer) put(e images.Extent) error {
	if e.Off < 0 || e.Len < 0 || e.Off+e.Len > w.h.size {
		e.Release()
		return tooSmall(w.h.dev, w.img, e.Off+e.Len, w.h.size)
	}
	select {
	case w.work <- e:
		return nil
	case <-w.ctx.Done():
		e.Release()
		return context.Cause(w.ctx)
	}
}

func (w *writer) wait() error {
	close(w.work)
	w.wg.Wait()
	err := context.Cause(w.ctx)
	w.cancel(nil)
	return err
}

func (w *writer) do(e images.Extent) error {
	if w.ctx.Err() != nil {
		return nil // somebody failed before; only drain
	}
	all := e
	if w.digests && e.Data != nil {
		w.note(Piece{Off: e.Off, Len: e.Len, SHA256: sha256.Sum256(e.Data)})
	}
	if e.Off < headBytes {
		n := min(e.Len, headBytes-e.Off)
		if e.Data != nil {
			copy(w.head[e.Off:], e.Data[:n])
			e.Data = e.Data[n:]
		}
		e.Off, e.Len = e.Off+n, e.Len-n
	}
	var err error
	switch {
	case e.Len == 0:
	case all.Data == nil:
		err = w.h.zero(w.ctx, e.Off, e.Len, nil)
	default:
		err = w.write(e)
	}
	if err == nil {
		w.progress.add(all.Len)
	}
	return err
}

func (w *writer) note(p Piece) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pieces = append(w.pieces, p)
}

func (w *writer) write(e images.Extent) error {
	data := e.Data
	if rest := e.Len % w.h.align; rest != 0 && e.Off+e.Len+w.h.align-rest <= w.h.size && e.Off%w.h.align == 0 {
		// The image's last sector on a disk with larger ones.
		data = AlignedBytes(int(e.Len + w.h.align - rest))
		copy(data, e.Data)
	}
	if _, err := w.h.WriteAt(data, e.Off); err != nil {
		if errors.Is(err, unix.EIO) {
			return fleet.Errorf(fleet.Broken, "MC-DISK-IO", "%w", err).WithHint("metalctl node show NODE; the drive may have to be replaced")
		}
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data += e.Len
	return nil
}

// meter turns many small steps into few reports.
type meter struct {
	stage  string
	total  int64
	report func(Progress)
	now    func() time.Time

	mu   sync.Mutex // guards what follows, and that report is not called concurrently
	done int64
	last time.Time
}

func newMeter(stage string, total int64, o Options) *meter {
	m := &meter{stage: stage, total: total, report: o.Progress, now: o.Now}
	if m.now == nil {
		m.now = time.Now
	}
	return m
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	if now := m.now(); m.report != nil && now.Sub(m.last) >= 250*time.Millisecond {
		m.last = now
		m.report(Progress{m.stage, m.done, m.total})
	}
}

func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.report != nil {
		m.report(Progress{m.stage, m.done, max(m.done, m.total)})
	}
}

func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
