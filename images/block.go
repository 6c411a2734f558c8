package images

import (
	"bytes"
	"context"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BlockBytes is the largest extent of data, and what one write to a disk is meant to be: measured best with four writers.
const BlockBytes = 4 << 20

// Align is the alignment in memory of an extent's data, enough for direct I/O on every disk.
const Align = 4096

// Extent is a piece of a disk's contents.
type Extent struct {
	// Off is where it belongs on the disk, in bytes; Len its length.
	Off, Len int64
	// Data is nil where all bytes are zero, else Len bytes that start at a multiple of Align in memory. It is valid until Release.
	Data  []byte
	block *block
}

// Release gives the memory back to the decoder. Whoever takes an extent calls it exactly once, from any goroutine.
func (e Extent) Release() {
	if e.block != nil {
		e.block.release()
	}
}

// block is reusable aligned memory that goes back to its pool when nobody holds it.
type block struct {
	data []byte
	n    int // bytes filled
	pool *pool
	refs atomic.Int32
}

func (b *block) hold() { b.refs.Add(1) }

func (b *block) release() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		b.pool.free <- b
	case n < 0:
		panic("images: extent released twice")
	}
}

// pool holds a fixed number of blocks, so that a slow writer slows the reader instead of filling the memory.
type pool struct {
	free chan *block
	size int
}

func newPool(blocks, size int) *pool {
	p := &pool{free: make(chan *block, blocks), size: size}
	for range blocks {
		p.free <- &block{pool: p}
	}
	return p
}

// get waits for a free block and returns it held once.
func (p *pool) get(ctx context.Context) (*block, error) {
	select {
	case b := <-p.free:
		if b.data == nil { // a small image never needs all of them
			b.data = AlignedBytes(p.size)
		}
		b.n = 0
		b.refs.Store(1)
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// hugePage is the size in which large blocks are aligned and asked for: direct I/O then pins two pages for a write instead of a thousand.
const hugePage = 2 << 20

// AlignedBytes returns memory for direct I/O: aligned to Align, and large blocks to huge pages.
func AlignedBytes(size int) []byte {
	align := Align
	if size >= hugePage {
		align = hugePage
	}
	b := make([]byte, size+align)
	skip := 0
	if rest := int(uintptr(unsafe.Pointer(&b[0])) % uintptr(align)); rest != 0 {
		skip = align - rest
	}
	b = b[skip : skip+size : skip+size]
	if align == hugePage {
		_ = unix.Madvise(b[:size/hugePage*hugePage], unix.MADV_HUGEPAGE) // only a wish: without it the same bytes take a little longer
	}
	return b
}

const (
	// zeroGrain is the unit in which a block is searched for zeros.
	zeroGrain = 64 << 10
	// zeroRun is the shortest run of zeros inside a block that is worth a call of its own.
	zeroRun = 512 << 10
)

var zeros [zeroGrain]byte

// isZero reports whether all of b is zero.
func isZero(b []byte) bool {
	for len(b) > zeroGrain {
		if !bytes.Equal(b[:zeroGrain], zeros[:]) {
			return false
		}
		b = b[zeroGrain:]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// yieldBlock hands b's n bytes, which belong at off, to yield as runs of data and of zeros, and gives up its own hold on b.
func yieldBlock(b *block, off int64, yield func(Extent) error) (zeroBytes int64, err error) {
	defer b.release()
	data := b.data[:b.n]
	emit := func(from, to int, zero bool) error {
		if from == to {
			return nil
		}
		e := Extent{Off: off + int64(from), Len: int64(to - from)}
		if zero {
			zeroBytes += e.Len
		} else {
			b.hold()
			e.Data, e.block = data[from:to:to], b
		}
		return yield(e)
	}
	start := 0 // of the pending data
	for i := 0; i < len(data); {
		end := i
		for end < len(data) && isZero(data[end:min(end+zeroGrain, len(data))]) {
			end = min(end+zeroGrain, len(data))
		}
		if end-i >= zeroRun || (end > i && i == 0 && end == len(data)) {
			if err := emit(start, i, false); err != nil {
				return zeroBytes, err
			}
			if err := emit(i, end, true); err != nil {
				return zeroBytes, err
			}
			start = end
		}
		i = max(end, i+zeroGrain)
	}
	return zeroBytes, emit(start, len(data), false)
}
