package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/metalctl/metalctl/fleet"
)

// feed reads a file once, in order, in blocks; beside that it hashes every byte and at the end compares length and digest with what was
// declared. Only next's io.EOF says that all of the file came and that it is the right file.
type feed struct {
	img    Image
	blocks chan *block
	failed error // set before blocks is closed; io.EOF: whole and right
	total  int64
	last   *block
	rest   []byte // of last, for Read
	cancel context.CancelFunc
}

// feedBlocks is how many blocks are read, hashed and used at the same time. Only the pool makes the reader wait, so that the hash has work while
// the disk stalls and the disk while the hash does.
const feedBlocks = 8

// newFeed starts reading src. stop must be called; it waits until nothing of the feed runs any more.
func newFeed(ctx context.Context, src Source, img Image, blockBytes int) (*feed, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, err := src.Stream(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	f := &feed{img: img, blocks: make(chan *block, feedBlocks), cancel: cancel}
	p := newPool(feedBlocks, blockBytes)
	go func() {
		f.failed = f.run(ctx, r, p)
		close(f.blocks)
	}()
	return f, nil
}

func (f *feed) run(ctx context.Context, r io.ReadCloser, p *pool) error {
	toHash, sum := make(chan *block, feedBlocks), make(chan string, 1)
	go func() {
		h := sha256.New()
		for b := range toHash {
			h.Write(b.data[:b.n])
			b.release()
		}
		sum <- hex.EncodeToString(h.Sum(nil))
	}()
	err := f.read(ctx, r, p, toHash)
	close(toHash)
	digest := <-sum
	closeErr := r.Close()
	switch {
	case err != nil:
		return err
	case f.img.SizeBytes > 0 && f.total < f.img.SizeBytes:
		return truncated(f.img, "it ends after %d of %d bytes", f.total, f.img.SizeBytes)
	case digest != f.img.SHA256:
		return fleet.Errorf(fleet.Broken, "MC-IMAGE-DIGEST", "the file's sha256 is %s, expected %s", digest, f.img.SHA256).
			WithHint("metalctl image verify %s compares origin and record; if the origin published a new file, add it under a new name", f.img.Name)
	case closeErr != nil:
		return closeErr
	}
	return io.EOF
}

func (f *feed) read(ctx context.Context, r io.Reader, p *pool, toHash chan<- *block) error {
	for {
		b, err := p.get(ctx)
		if err != nil {
			return err
		}
		b.n, err = readFull(r, b.data)
		f.total += int64(b.n)
		if f.img.SizeBytes > 0 && f.total > f.img.SizeBytes {
			b.release()
			return fleet.Errorf(fleet.Broken, "MC-IMAGE-DIGEST", "the file is longer than the %d bytes on record", f.img.SizeBytes).
				WithHint("metalctl image verify %s", f.img.Name)
		}
		if b.n > 0 {
			b.hold()
			toHash <- b
			select {
			case f.blocks <- b:
			case <-ctx.Done():
				b.release()
				return context.Cause(ctx)
			}
		} else {
			b.release()
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// next returns the next block, held for the caller; io.EOF after a whole and right file.
func (f *feed) next() (*block, error) {
	b, ok := <-f.blocks
	if !ok {
		return nil, f.failed
	}
	return b, nil
}

// Read makes the feed an io.Reader for a decoder.
func (f *feed) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.last != nil {
			f.last.release()
			f.last = nil
		}
		b, err := f.next()
		if err != nil {
			return 0, err
		}
		f.last, f.rest = b, b.data[:b.n]
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// verdict reads what is left and returns nil for a whole and right file.
func (f *feed) verdict() error {
	for {
		b, err := f.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		b.release()
	}
}

func (f *feed) stop() {
	f.cancel()
	for b := range f.blocks {
		b.release()
	}
}

func truncated(img Image, format string, args ...any) error {
	e := fleet.Errorf(fleet.Broken, "MC-IMAGE-TRUNCATED", "the file is cut short: "+format, args...)
	return e.WithHint("metalctl image verify %s, then fetch or upload the file again", img.Name)
}
