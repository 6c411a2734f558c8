//go:build cgo

package gpu

import (
	"errors"
	"fmt"

	"github.com/metalctl/metalctl/agent/gpu/cuda"
)

// Sizes of a GPU's memory that is tested.
const (
	chunkBytes = 1 << 30
	grainBytes = 64 << 10
	// keepFree is the part of the free memory that is not taken: the driver needs some for itself.
	keepFree = 64
)

// chunk is one stretch of a GPU's memory; first is the number of its first word among all.
type chunk struct{ at, words, first uint64 }

// memory writes and checks patterns in all of a GPU's memory.
type memory struct {
	l      *loader
	g      *cuda.Device
	chunks []chunk
	bytes  uint64
	errors complaints
}

// patterns are written in turn. Of all but the own address, seed is XORed with the number of the turn where varies is set.
var patterns = []struct {
	kind   cuda.Pattern
	seed   uint64
	varies bool
}{
	{cuda.OwnAddress, 0, false}, {cuda.Solid, 0, false}, {cuda.Random, 0x5851f42d4c957f2d, true}, {cuda.WalkingBit, 0, true},
	{cuda.Solid, 0x5555555555555555, false}, {cuda.Random, 0x14057b7ef767814f, true}, {cuda.Solid, 0x3333333333333333, false}, {cuda.Solid, 0x0f0f0f0f0f0f0f0f, false},
}

// complaints is where kernels write what they found wrong: a count, and the first 64.
type complaints struct {
	at   uint64
	host []uint64
}

const complaintWords = 4 + 64*4

func (c *complaints) prepare(g *cuda.Device) (err error) {
	if c.at, err = g.Alloc(complaintWords * 8); err != nil {
		return err
	}
	c.host, err = g.AllocHost(complaintWords)
	return err
}

// reset queues that there are none.
func (c *complaints) reset(g *cuda.Device) error {
	clear(c.host)
	return g.Upload(c.at, c.host)
}

// read waits, and tells how many there are and what is known of them.
func (c *complaints) read(g *cuda.Device, during string) (n int64, details []string, err error) {
	if err := errors.Join(g.Download(c.host, c.at), g.Wait()); err != nil {
		return 0, nil, err
	}
	n = int64(c.host[0])
	for i := range min(n, maxDetails) {
		r := c.host[4+4*i:]
		details = append(details, fmt.Sprintf("SM %d, address %#x, expected %#016x, got %#016x, %s (%s)", r[3], r[0], r[1], r[2], bitsOf(r[1]^r[2]), during))
	}
	return n, details, nil
}

func (m *memory) prepare() error {
	if err := m.g.Load(cuda.Memory, "mc_fill", "mc_check", "mc_read", "mc_write"); err != nil {
		return err
	}
	if err := m.errors.prepare(m.g); err != nil {
		return err
	}
	free, total, err := m.g.Memory()
	if err != nil {
		return err
	}
	left := (free - free/keepFree) / grainBytes * grainBytes
	for size := min(uint64(chunkBytes), left); left >= grainBytes && size >= grainBytes; size = min(size, left) {
		at, err := m.g.Alloc(size)
		var e *cuda.Error
		switch {
		case errors.As(err, &e) && e.Cause() == "no-memory": // what is free may be in pieces
			size = size / 2 / grainBytes * grainBytes
			continue
		case err != nil:
			return err
		}
		m.chunks = append(m.chunks, chunk{at, size / 8, m.bytes / 8})
		m.bytes += size
		left -= size
	}
	if len(m.chunks) == 0 {
		return &cuda.Error{Call: "cuMemAlloc_v2", Code: 2, Name: "CUDA_ERROR_OUT_OF_MEMORY", Words: fmt.Sprintf("of %d bytes of its memory only %d are free", total, free)}
	}
	tested := m.l.measure("gpu-memory-tested", m.g, nil)
	tested.Sum, tested.Weight = 100*float64(m.bytes), float64(total)
	m.l.measure("gpu-memory-mismatches", m.g, nil)
	return nil
}

// each launches a kernel over every chunk.
func (m *memory) each(kernel string, args func(chunk) []any) error {
	for _, c := range m.chunks {
		if err := m.g.Launch(kernel, 8*m.g.SMs, args(c)...); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) turn(n int64) error {
	p := patterns[n%int64(len(patterns))]
	seed := p.seed
	if p.varies {
		seed ^= uint64(n)
	}
	check := func(mask uint64, rewrite uint32) error {
		return m.each("mc_check", func(c chunk) []any {
			return []any{c.at, c.words, c.first, uint32(p.kind), seed, mask, m.errors.at, rewrite}
		})
	}
	const inverted = ^uint64(0)
	if err := errors.Join(m.errors.reset(m.g),
		m.each("mc_fill", func(c chunk) []any { return []any{c.at, c.words, c.first, uint32(p.kind), seed, uint64(0)} }),
		check(0, 1), check(inverted, 0), check(inverted, 0)); err != nil { // the last one: what was only read must still be the same
		return err
	}
	wrong, details, err := m.errors.read(m.g, fmt.Sprintf("pattern %s, turn %d", p.kind, n+1))
	if err != nil {
		return err
	}
	m.l.measure("gpu-memory-mismatches", m.g, nil).wrong(wrong, details...)
	return m.bandwidth()
}

// bandwidth reads all of the memory and then writes it.
func (m *memory) bandwidth() error {
	if err := errors.Join(m.g.Begin(),
		m.each("mc_read", func(c chunk) []any { return []any{c.at, c.words, m.errors.at + 8} }),
		m.each("mc_write", func(c chunk) []any { return []any{c.at, c.words, uint64(0)} }),
		m.g.End()); err != nil {
		return err
	}
	took, err := m.g.Took()
	m.l.measure("gpu-memory-bandwidth", m.g, nil).rate(2*float64(m.bytes)/1e9, took.Seconds())
	return err
}
