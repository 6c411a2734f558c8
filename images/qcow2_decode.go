package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/metalctl/metalctl/fleet"
)

// qcow2 reads the tables by ranges, then the whole file once from its beginning: the same pass feeds the digest and, through the inverse of
// the tables, the disk. The tables are seen again in that pass and must be the same, so the digest covers what was acted on.
func (d *decoder) qcow2(ctx context.Context, src Source) error {
	size := src.Size()
	if size < 0 {
		size = d.img.SizeBytes
	}
	if size <= 0 {
		return fleet.Errorf(fleet.Invalid, "MC-IMAGE-INVALID", "a qcow2 file is streamed only where its length is known, and the origin does not tell it").
			WithHint("record the length: size_bytes of the image")
	}
	m, err := readQCOW2(ctx, size, src.ReadRange)
	if err != nil {
		return err
	}
	if v := d.img.VirtualSizeBytes; v > 0 && v != m.qcow2Header.size {
		return fleet.Errorf(fleet.Broken, "MC-IMAGE-DIGEST", "a disk of %d bytes, but %d on record", m.qcow2Header.size, v).
			WithHint("metalctl image verify %s", d.img.Name)
	}
	d.DiskBytes = m.qcow2Header.size
	if err := m.holes(func(off, n int64) error {
		d.ZeroBytes += n
		return d.yield(Extent{Off: off, Len: n})
	}); err != nil {
		return err
	}
	f, err := newFeed(ctx, src, d.img, BlockBytes)
	if err != nil {
		return err
	}
	defer f.stop()
	if err := d.placeClusters(ctx, m, &window{f: f, size: size}); err != nil {
		return err
	}
	if err := f.verdict(); err != nil {
		return err
	}
	d.FileBytes = f.total
	return nil
}

// job is a piece of the disk on its way: its block is ready when done is closed.
type job struct {
	off  int64
	b    *block
	err  error
	done chan struct{}
}

func (d *decoder) placeClusters(ctx context.Context, m *qcow2Map, w *window) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := max(1, runtime.GOMAXPROCS(0))
	queue, work := make(chan *job, workers), make(chan func(*unpacker) bool, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			u := &unpacker{}
			for fn := range work {
				if !fn(u) {
					u = &unpacker{} // in what state a panic left the decoders nobody knows
				}
			}
			_ = fleet.Catch(func() error { u.close(); return nil }) // every cluster was unpacked, or its error told
		})
	}
	var walkErr error
	wg.Go(func() {
		defer close(queue)
		defer close(work)
		walkErr = fleet.Catch(func() error {
			p := newPool(workers+6, int(min(BlockBytes, (m.qcow2Header.size+m.cluster()-1)/m.cluster()*m.cluster())))
			return walk(ctx, m, w, p, queue, work)
		})
	})
	defer func() {
		cancel()
		w.f.cancel()
		for j := range queue {
			<-j.done
			j.b.release()
		}
		wg.Wait()
	}()
	for j := range queue {
		<-j.done
		if j.err != nil {
			j.b.release()
			return j.err
		}
		zero, err := yieldBlock(j.b, j.off, d.yield)
		d.ZeroBytes += zero
		if err != nil {
			return err
		}
	}
	return walkErr
}

// walk goes through the file once and makes a job of every run, unpacking neighbours together.
func walk(ctx context.Context, m *qcow2Map, w *window, p *pool, queue chan<- *job, work chan<- func(*unpacker) bool) error {
	for i := 0; i < len(m.runs); {
		r := m.runs[i]
		if r.kind == runTable {
			b, err := w.at(r.host, r.n)
			if err == nil {
				err = r.checkTable(b)
			}
			if err != nil {
				return err
			}
			i++
			continue
		}
		b, err := p.get(ctx)
		if err != nil {
			return err
		}
		j := &job{off: r.guest, b: b, done: make(chan struct{})}
		if r.kind == runData {
			data, err := w.at(r.host, r.n)
			if err != nil {
				b.release()
				return err
			}
			b.n = copy(b.data, data)
			close(j.done)
			i++
		} else {
			next := m.neighbours(i, len(b.data))
			last := m.runs[next-1]
			packed, err := w.at(r.host, last.host+last.n-r.host)
			if err != nil {
				b.release()
				return err
			}
			packed = append([]byte(nil), packed...)
			runs := m.runs[i:next]
			b.n = int(last.guest + m.guestBytes(last.guest) - r.guest)
			fn := func(u *unpacker) bool {
				defer close(j.done)
				j.err = fleet.Catch(func() error { return u.unpack(m, runs, packed, b.data[:b.n]) })
				return !errors.As(j.err, new(*fleet.Panic))
			}
			select {
			case work <- fn:
			case <-ctx.Done():
				b.release()
				return context.Cause(ctx)
			}
			i = next
		}
		select {
		case queue <- j:
		case <-ctx.Done():
			<-j.done
			b.release()
			return context.Cause(ctx)
		}
	}
	return nil
}

// neighbours returns the end of the longest series of packed clusters from i that follow each other both in the file and on the disk.
func (m *qcow2Map) neighbours(i, room int) int {
	first, next := m.runs[i], i+1
	for next < len(m.runs) {
		prev, r := m.runs[next-1], m.runs[next]
		if r.kind != runPacked || r.guest != prev.guest+m.cluster() || r.host > prev.host+prev.n+m.cluster() ||
			int(r.guest+m.cluster()-first.guest) > room || r.host+r.n-first.host > maxWindowSpan {
			break
		}
		next++
	}
	return next
}

// maxWindowSpan is the most file bytes that one step of the walk may look at.
const maxWindowSpan = 8 << 20

// window gives the pass's bytes at rising offsets.
type window struct {
	f      *feed
	size   int64
	memory []byte // buf is the end of it
	buf    []byte
	off    int64 // of buf[0] in the file
}

// at returns n bytes from off, good until the next call. off never falls.
func (w *window) at(off, n int64) ([]byte, error) {
	if skip := off - w.off; skip > 0 {
		k := min(skip, int64(len(w.buf)))
		w.buf = w.buf[k:]
		w.off += k
	}
	for w.off+int64(len(w.buf)) < off+n {
		b, err := w.f.next()
		if err == io.EOF {
			err = truncated(w.f.img, "it ends at byte %d, where %d was expected", w.off+int64(len(w.buf)), off+n)
		}
		if err != nil {
			return nil, err
		}
		data := b.data[:b.n]
		if len(w.buf) == 0 {
			k := min(off-w.off, int64(len(data)))
			w.off, data = w.off+k, data[k:]
		}
		// What was passed over is dropped only where room is needed, not at every step.
		if len(w.buf)+len(data) > cap(w.buf) {
			w.memory = append(append(w.memory[:0], w.buf...), data...)
			w.buf = w.memory
		} else {
			w.buf = append(w.buf, data...)
		}
		b.release()
	}
	from := off - w.off
	return w.buf[from : from+n], nil
}

// unpacker decompresses clusters; one per worker.
type unpacker struct {
	zstd    *zstd.Decoder
	deflate io.ReadCloser
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}

// unpack decompresses runs, whose file bytes begin with packed, into out.
func (u *unpacker) unpack(m *qcow2Map, runs []run, packed, out []byte) error {
	for _, r := range runs {
		from := r.host - runs[0].host
		n := m.guestBytes(r.guest)
		to := r.guest - runs[0].guest
		if err := u.cluster(m.zstd, packed[from:from+r.n], out[to:to+n]); err != nil {
			return fleet.Errorf(fleet.Broken, "MC-IMAGE-DAMAGED", "qcow2: the compressed cluster at byte %d: %w", r.host, err).
				WithHint("qemu-img check FILE, then fetch or upload the file again")
		}
	}
	return nil
}

func (u *unpacker) cluster(isZstd bool, packed, out []byte) error {
	in := bytes.NewReader(packed)
	var r io.Reader
	if isZstd {
		if u.zstd == nil {
			z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
			if err != nil {
				return err
			}
			u.zstd = z
		}
		if err := u.zstd.Reset(in); err != nil {
			return err
		}
		r = u.zstd
	} else {
		if u.deflate == nil {
			u.deflate = flate.NewReader(in)
		} else if err := u.deflate.(flate.Resetter).Reset(in, nil); err != nil {
			return err
		}
		r = u.deflate
	}
	if n, err := io.ReadFull(r, out); err != nil {
		return fmt.Errorf("%d of %d bytes: %w", n, len(out), err)
	}
	return nil
}
