package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
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
	go f.run(ctx, r, p, sha256.New())
	return f, nil
}

// run reads to the end, and nothing of the feed runs any more once blocks is closed. A panic, of the source for instance, is how the feed failed.
func (f *feed) run(ctx context.Context, r io.ReadCloser, p *pool, h hash.Hash) {
	defer close(f.blocks)
	toHash, hashed := make(chan *block, feedBlocks), make(chan error, 1)
	go func() { hashed <- f.hash(toHash, h) }()
	err := fleet.Catch(func() error { return f.read(ctx, r, p, toHash) })
	close(toHash)
	hashErr := <-hashed
	closeErr := fleet.Catch(r.Close)
	f.failed = fleet.Catch(func() error {
		if hashErr != nil {
			return hashErr
		}
		return f.judge(err, hex.EncodeToString(h.Sum(nil)), closeErr)
	})
}

// hash hashes what read sends until the channel is closed. After a panic it stops the reading and only gives blocks back.
func (f *feed) hash(blocks <-chan *block, h hash.Hash) (failed error) {
	for b := range blocks {
		err := fleet.Catch(func() error {
			defer b.release()
			if failed == nil {
				h.Write(b.data[:b.n])
			}
			return nil
		})
		if err != nil && failed == nil {
			failed = err
			f.cancel()
		}
	}
	return failed
}

// judge says how the file was: io.EOF for one that is whole and right.
func (f *feed) judge(readErr error, digest string, closeErr error) error {
	switch err := readErr; {
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
