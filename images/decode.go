package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/metalctl/metalctl/fleet"
	"github.com/ulikunitz/xz"
)

// maxWindow is the most memory that a compressed file may ask of the decoder; `zstd --long=27` needs 128 MiB.
const maxWindow = 256 << 20

// Result says what a decoder saw.
type Result struct {
	// SHA256 is the file's digest as computed; always the declared one where there is no error.
	SHA256 string `json:"sha256"`
	// FileBytes is how many bytes were read, DiskBytes how long the disk's contents are, ZeroBytes how many of those came as zero extents.
	FileBytes int64 `json:"file_bytes"`
	DiskBytes int64 `json:"disk_bytes"`
	ZeroBytes int64 `json:"zero_bytes"`
}

// Decode reads the image once from src and calls yield with all of the disk's contents: every byte in exactly one extent, for raw formats in
// order, for qcow2 in any order; yield is not called concurrently and must see to it that Release is called on what it got, error or not.
//
// The digest is only known at the end: until Decode has returned nil, nothing that yield got may be trusted, so a writer keeps what makes a
// disk bootable back until then. Errors are *fleet.Error with MC-IMAGE-TRUNCATED, MC-IMAGE-DIGEST, MC-IMAGE-DAMAGED or MC-IMAGE-FORMAT, or what src and yield
// returned.
func Decode(ctx context.Context, src Source, img Image, yield func(Extent) error) (Result, error) {
	if err := img.Validate(); err != nil {
		return Result{}, err
	}
	if size := src.Size(); size >= 0 && img.SizeBytes > 0 && size < img.SizeBytes {
		return Result{}, fmt.Errorf("image %q: %w", img.Name, truncated(img, "the source has %d of %d bytes", size, img.SizeBytes))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &decoder{img: img, yield: yield}
	var err error
	switch img.Format {
	case Raw:
		err = d.raw(ctx, src)
	case QCOW2:
		err = d.qcow2(ctx, src)
	default:
		err = d.compressed(ctx, src)
	}
	if err == nil && img.VirtualSizeBytes > 0 && d.DiskBytes != img.VirtualSizeBytes {
		err = truncated(img, "its contents end after %d of %d bytes", d.DiskBytes, img.VirtualSizeBytes)
	}
	if p := new(fleet.Panic); errors.As(err, &p) && fleet.CodeOf(err) == "" {
		err = fleet.Errorf(fleet.Broken, "MC-IMAGE-DAMAGED", "a defect of metalctl that this %s file shows: %w", img.Format, err).
			WithHint("metalctl image verify %s; if the file is as published, please report the defect", img.Name)
	}
	if err != nil {
		return d.Result, fmt.Errorf("image %q: %w", img.Name, err)
	}
	d.SHA256 = img.SHA256
	return d.Result, nil
}

type decoder struct {
	Result
	img   Image
	yield func(Extent) error
}

func (d *decoder) put(b *block) error {
	off := d.DiskBytes
	if off == 0 {
		if err := d.checkHead(b.data[:b.n]); err != nil {
			b.release()
			return err
		}
	}
	if limit := d.img.VirtualSizeBytes; limit > 0 && off+int64(b.n) > limit {
		b.release()
		return fleet.Errorf(fleet.Broken, "MC-IMAGE-DAMAGED", "its contents are longer than the %d bytes on record", limit).
			WithHint("metalctl image verify %s", d.img.Name)
	}
	d.DiskBytes += int64(b.n)
	zero, err := yieldBlock(b, off, d.yield)
	d.ZeroBytes += zero
	return err
}

// checkHead refuses to write as raw what is itself a container: `.qcow2.xz`, or a file compressed twice.
func (d *decoder) checkHead(head []byte) error {
	format, err := Sniff(head[:min(len(head), SniffLen)])
	if err == nil && format != Raw {
		return fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "its contents are %s, not a raw disk", format).
			WithHint("unpack it once and add the result: metalctl image add NAME --file FILE")
	}
	return nil // contents of a kind not known to Sniff were accepted when the image was added, or are the operator's own
}

func (d *decoder) raw(ctx context.Context, src Source) error {
	f, err := newFeed(ctx, src, d.img, BlockBytes)
	if err != nil {
		return err
	}
	defer f.stop()
	for {
		b, err := f.next()
		d.FileBytes = d.DiskBytes
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := d.put(b); err != nil {
			return err
		}
	}
}

func (d *decoder) compressed(ctx context.Context, src Source) error {
	f, err := newFeed(ctx, src, d.img, 512<<10)
	if err != nil {
		return err
	}
	defer f.stop()
	counted := &counter{r: f}
	var r io.Reader
	var done func()
	err = fleet.Catch(func() (err error) { r, done, err = decompress(d.img.Format, counted); return err })
	if err != nil {
		return d.damaged(counted, err)
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	a := newAhead(ctx, r, newPool(8, BlockBytes))
	// The decoder reads f in its goroutine, so that must have ended before done and f.stop may run.
	defer func() {
		cancel()
		f.cancel()
		for b := range a.blocks {
			b.release()
		}
	}()
	for b := range a.blocks {
		if err := d.put(b); err != nil {
			return err
		}
	}
	d.FileBytes = counted.n.Load()
	if a.err != nil {
		return d.damaged(counted, a.err)
	}
	return f.verdict()
}

// damaged says where a decoder gave up. What the source or the digest said comes first: a decoder only sees the consequence.
func (d *decoder) damaged(at *counter, err error) error {
	if cause := at.err.Load(); cause != nil && *cause != io.EOF {
		return *cause
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return truncated(d.img, "the %s stream stops in the middle, after %d bytes", d.img.Format, at.n.Load())
	}
	return fleet.Errorf(fleet.Broken, "MC-IMAGE-DAMAGED", "before byte %d of the %s file: %w", at.n.Load(), d.img.Format, err).
		WithHint("metalctl image verify %s, then fetch or upload the file again", d.img.Name)
}

// ahead is what a decoder has unpacked while the block before is being written.
type ahead struct {
	blocks chan *block
	err    error // set before blocks is closed
}

func newAhead(ctx context.Context, r io.Reader, p *pool) *ahead {
	a := &ahead{blocks: make(chan *block, 2)}
	go func() {
		defer close(a.blocks)
		a.err = fleet.Catch(func() error { return fill(ctx, r, p, a.blocks) })
	}()
	return a
}

func fill(ctx context.Context, r io.Reader, p *pool, out chan<- *block) error {
	for {
		b, err := p.get(ctx)
		if err != nil {
			return err
		}
		b.n, err = readFull(r, b.data)
		if b.n > 0 {
			select {
			case out <- b:
			case <-ctx.Done():
				b.release()
				return context.Cause(ctx)
			}
		} else {
			b.release()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readFull is io.ReadFull that keeps the reader's own error: a decoder's ErrUnexpectedEOF must not look like a plain end.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// decompress returns a reader of the raw contents and a function that frees the decoder.
func decompress(format Format, r io.Reader) (io.Reader, func(), error) {
	switch format {
	case RawZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case RawGzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 256<<10))
		return z, func() {}, err
	case RawXZ:
		b := bufio.NewReaderSize(r, 256<<10)
		if err := checkXZ(b); err != nil {
			return nil, nil, err
		}
		z, err := xz.NewReader(b)
		return z, func() {}, err
	}
	panic("images: decompress called with format " + string(format))
}

// counter counts what a decoder took and remembers why its input ended; decoders read in goroutines of their own.
type counter struct {
	r   io.Reader
	n   atomic.Int64
	err atomic.Pointer[error]
}

// Read may run on a goroutine of the decoder, where nobody else catches a panic.
func (c *counter) Read(p []byte) (n int, err error) {
	err = fleet.Catch(func() (err error) { n, err = c.r.Read(p); return err })
	c.n.Add(int64(n))
	if err != nil {
		c.err.Store(&err)
	}
	return n, err
}

// checkXZ looks at the first block's dictionary, which the decoder would allocate unasked (xz file format 1.2, 3.1 and 5.3.1): `xz -9` needs 64 MiB,
// the format allows 4 GiB. Later blocks of a file are made with the same settings.
func checkXZ(b *bufio.Reader) error {
	head, err := b.Peek(12 + 64)
	if len(head) < 12+8 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	block := head[12:]
	if block[0] == 0 { // no block: an empty file
		return nil
	}
	at := 2
	for _, size := range []byte{0x40, 0x80} { // compressed and uncompressed size, as variable-length numbers
		if block[1]&size == 0 {
			continue
		}
		for at < len(block) && block[at]&0x80 != 0 {
			at++
		}
		at++
	}
	if block[1]&3 != 0 || at+2 >= len(block) || block[at] != 0x21 || block[at+1] != 1 {
		return errors.New("xz: a filter before LZMA2 is not supported")
	}
	bits := block[at+2]
	if bits > 40 || lzma2Dictionary(bits) > maxWindow {
		return fmt.Errorf("xz: the decoder would need more than %d MiB of memory", maxWindow>>20)
	}
	return nil
}

// lzma2Dictionary is the size in bytes that a property byte stands for.
func lzma2Dictionary(bits byte) int64 { return int64(2|bits&1) << (bits/2 + 11) }
