//go:build cgo

package gpu

import (
	"errors"
	"fmt"
	"slices"

	"github.com/metalctl/metalctl/agent/gpu/cuda"
)

// copyBytes is how much is copied at a time, where a GPU has that much to spare.
const copyBytes = 256 << 20

// copySize is how much may be copied by a GPU, in words.
func copySize(g *cuda.Device) (uint64, error) {
	free, _, err := g.Memory()
	words := min(copyBytes, free/4) / 16 * 2
	if err == nil && words == 0 {
		err = &cuda.Error{Call: "cuMemAlloc_v2", Code: 2, Name: "CUDA_ERROR_OUT_OF_MEMORY", Words: fmt.Sprintf("only %d bytes of its memory are free", free)}
	}
	return words, err
}

// hostCopy copies from the host to a GPU and back, and looks at both ends.
type hostCopy struct {
	l          *loader
	g          *cuda.Device
	at         uint64
	sent, back []uint64
	errors     complaints
}

func (h *hostCopy) prepare() error {
	if err := errors.Join(h.g.Load(cuda.Memory, "mc_check"), h.errors.prepare(h.g)); err != nil {
		return err
	}
	words, err := copySize(h.g)
	if err != nil {
		return err
	}
	if h.at, err = h.g.Alloc(words * 8); err != nil {
		return err
	}
	if h.sent, err = h.g.AllocHost(int(words)); err != nil {
		return err
	}
	h.back, err = h.g.AllocHost(int(words))
	h.l.measure("gpu-copy-mismatches", h.g, nil)
	return err
}

func (h *hostCopy) turn(n int64) error {
	const each = 16 // turns with the same data: making it takes longer than copying it
	seed := uint64(0x2127599bf4325c37) ^ uint64(n/each)
	if n%each == 0 {
		for i := range h.sent {
			h.sent[i] = cuda.RandomWord(seed, uint64(i))
		}
	}
	bytes := float64(len(h.sent)) * 8 / 1e9
	if err := errors.Join(h.errors.reset(h.g), h.g.Begin(), h.g.Upload(h.at, h.sent), h.g.End()); err != nil {
		return err
	}
	took, err := h.g.Took()
	if err != nil {
		return err
	}
	h.l.measure("gpu-h2d", h.g, nil).rate(bytes, took.Seconds())
	if err := h.g.Launch("mc_check", 8*h.g.SMs, h.at, uint64(len(h.sent)), uint64(0), uint32(cuda.Random), seed, uint64(0), h.errors.at, uint32(0)); err != nil {
		return err
	}
	arrived, details, err := h.errors.read(h.g, fmt.Sprintf("host to GPU, turn %d", n+1))
	if err != nil {
		return err
	}
	clear(h.back)
	if err := errors.Join(h.g.Begin(), h.g.Download(h.back, h.at), h.g.End()); err != nil {
		return err
	}
	if took, err = h.g.Took(); err != nil {
		return err
	}
	h.l.measure("gpu-d2h", h.g, nil).rate(bytes, took.Seconds())
	wrong := h.l.measure("gpu-copy-mismatches", h.g, nil)
	wrong.wrong(arrived, details...)
	if arrived == 0 && !slices.Equal(h.sent, h.back) {
		back, details := int64(0), []string(nil)
		for i, got := range h.back {
			if want := h.sent[i]; got != want {
				if back++; back <= maxDetails {
					details = append(details, fmt.Sprintf("offset %#x, expected %#016x, got %#016x, %s (GPU to host, turn %d)", 8*i, want, got, bitsOf(want^got), n+1))
				}
			}
		}
		wrong.wrong(back, details...)
	}
	return nil
}

// peerCopy copies between all GPUs: in each turn every one sends to another one, all at the same time. Once all have sent to all by their copy engines, whose
// rate is measured, they do so by kernels, where they reach each other directly.
type peerCopy struct {
	l        *loader
	from, to []uint64
	words    uint64
	errors   []complaints
	direct   map[[2]int]bool
}

func (p *peerCopy) prepare() error {
	p.direct = map[[2]int]bool{}
	p.words = copyBytes / 8
	p.errors = make([]complaints, len(p.l.gpus))
	for i, g := range p.l.gpus {
		if err := errors.Join(g.Use(), g.Load(cuda.Memory, "mc_fill", "mc_check", "mc_copy"), p.errors[i].prepare(g)); err != nil {
			return err
		}
		words, err := copySize(g)
		if err != nil {
			return err
		}
		p.words = min(p.words, words)
		for j, peer := range p.l.gpus {
			if i == j {
				continue
			}
			if p.direct[[2]int{i, j}], err = g.Reach(peer); err != nil {
				return err
			}
		}
	}
	for _, g := range p.l.gpus {
		if err := g.Use(); err != nil {
			return err
		}
		from, err := g.Alloc(p.words * 8)
		if err != nil {
			return err
		}
		to, err := g.Alloc(p.words * 8)
		if err != nil {
			return err
		}
		p.from, p.to = append(p.from, from), append(p.to, to)
	}
	return nil
}

func (p *peerCopy) turn(n int64) error {
	count := len(p.l.gpus)
	if count < 2 {
		return nil
	}
	shift := 1 + int(n)%(count-1)
	seed := func(i int) uint64 { return 0x94d049bb133111eb ^ uint64(n)<<8 ^ uint64(i) }
	each := func(f func(i int, g *cuda.Device) error) error {
		for i, g := range p.l.gpus {
			if err := errors.Join(g.Use(), f(i, g)); err != nil {
				return err
			}
		}
		return nil
	}
	peer := func(i int) int { return (i + shift) % count }
	byKernel := func(i int) bool { return n/int64(count-1)%2 == 1 && p.direct[[2]int{i, peer(i)}] }
	err := each(func(i int, g *cuda.Device) error {
		// What lies at the other end from an earlier turn must not pass for what is sent now.
		return errors.Join(p.errors[i].reset(g),
			g.Launch("mc_fill", 8*g.SMs, p.from[i], p.words, uint64(0), uint32(cuda.Random), seed(i), uint64(0)),
			g.Launch("mc_fill", 8*g.SMs, p.to[i], p.words, uint64(0), uint32(cuda.Solid), uint64(n), uint64(0)))
	})
	if err == nil {
		err = each(func(_ int, g *cuda.Device) error { return g.Wait() })
	}
	if err == nil {
		err = each(func(i int, g *cuda.Device) error {
			if byKernel(i) {
				return g.Launch("mc_copy", 8*g.SMs, p.to[peer(i)], p.from[i], p.words)
			}
			return errors.Join(g.Begin(), g.Send(p.l.gpus[peer(i)], p.to[peer(i)], p.from[i], p.words*8), g.End())
		})
	}
	if err == nil {
		err = each(func(i int, g *cuda.Device) error {
			if byKernel(i) {
				return g.Wait()
			}
			took, err := g.Took()
			p.l.measure("gpu-peer", g, p.l.gpus[peer(i)]).rate(float64(p.words)*8/1e9, took.Seconds())
			return err
		})
	}
	if err != nil {
		return err
	}
	return each(func(i int, g *cuda.Device) error {
		sender := (i - shift + count) % count
		if err := g.Launch("mc_check", 8*g.SMs, p.to[i], p.words, uint64(0), uint32(cuda.Random), seed(sender), uint64(0), p.errors[i].at, uint32(0)); err != nil {
			return err
		}
		way := "by NVLink or PCIe"
		switch {
		case byKernel(sender):
			way += ", by a kernel"
		case !p.direct[[2]int{sender, i}]:
			way = "through the host"
		}
		wrong, details, err := p.errors[i].read(g, fmt.Sprintf("sent %s, turn %d", way, n+1))
		p.l.measure("gpu-peer-mismatches", p.l.gpus[sender], g).wrong(wrong, details...)
		return err
	})
}
