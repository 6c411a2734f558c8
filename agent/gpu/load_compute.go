//go:build cgo

package gpu

import (
	"errors"
	"hash/crc64"
	"slices"
	"time"
	"unsafe"

	"github.com/metalctl/metalctl/agent/gpu/cuda"
)

// Sizes of what is computed.
const (
	tilesPerSM = 2
	slots      = 4 // launches that are looked at together
	tileWords  = cuda.Block / 2
)

// compute runs the kernels of a module, and keeps what their tiles computed.
type compute struct {
	l       *loader
	g       *cuda.Device
	module  string
	kernels []*kernel
	tiles   int
	out     uint64   // words of all slots, and behind them the SM of each tile
	host    []uint64 // the same, here
}

// kernel is one of them and what it computed.
type kernel struct {
	cuda.Kernel
	tiles    []tile
	launches int64
	odd      int
}

// tile has what a tile was first, and what else it was.
type tile struct {
	first variant
	odd   []variant
}

// variant is one outcome of a tile.
type variant struct {
	digest uint64
	words  []uint64
	sms    []int
	count  int64
}

func (v *variant) seen(sm int) {
	v.count++
	if len(v.sms) < 4 && !slices.Contains(v.sms, sm) {
		v.sms = append(v.sms, sm)
	}
}

// errOldTensor: what a GPU lacks by its kind is none of its faults.
var errOldTensor = errors.New("its tensor cores are older than these kernels")

func (c *compute) prepare() error {
	if c.module == cuda.Tensor && c.g.Major < cuda.FirstTensor {
		return errOldTensor
	}
	var names []string
	c.tiles = tilesPerSM * c.g.SMs
	for _, k := range cuda.Kernels {
		if k.Module == c.module {
			names = append(names, k.Name)
			c.kernels = append(c.kernels, &kernel{Kernel: k, tiles: make([]tile, c.tiles)})
		}
	}
	if err := c.g.Load(c.module, names...); err != nil {
		return err
	}
	// The SMs' numbers are of 32 bits; a word of 64 has two.
	size := slots * (c.tiles*tileWords + (c.tiles+1)/2)
	var err error
	if c.out, err = c.g.Alloc(uint64(size) * 8); err != nil {
		return err
	}
	if c.host, err = c.g.AllocHost(size); err != nil {
		return err
	}
	for _, k := range c.kernels {
		least := time.Hour
		for range 3 {
			began := time.Now()
			if err := errors.Join(c.launch(k, 0, 1), c.g.Wait()); err != nil {
				return err
			}
			least = min(least, time.Since(began))
		}
		c.l.ready.Step[k.Name] = least.Nanoseconds()
	}
	return nil
}

// sms is where the SMs of a slot are, in words of 64 bits.
func (c *compute) sms(slot int) int { return slots*c.tiles*tileWords + slot*((c.tiles+1)/2) }

func (c *compute) launch(k *kernel, slot int, steps uint32) error {
	const seed = uint32(0x2545f491)
	return c.g.Launch(k.Name, c.tiles, c.out+uint64(slot*c.tiles*tileWords)*8, c.out+uint64(c.sms(slot))*8, steps, seed)
}

func (c *compute) turn(int64) error {
	for _, k := range c.kernels {
		if err := c.round(k); err != nil {
			return err
		}
	}
	return nil
}

// round fills all slots with what a kernel computes, and looks at them.
func (c *compute) round(k *kernel) error {
	steps := max(c.l.run.Steps[k.Name], 1)
	if err := c.g.Begin(); err != nil {
		return err
	}
	for slot := range slots {
		if err := c.launch(k, slot, steps); err != nil {
			return err
		}
	}
	if err := errors.Join(c.g.End(), c.g.Download(c.host, c.out)); err != nil {
		return err
	}
	took, err := c.g.Took()
	if err != nil {
		return err
	}
	c.l.measure(k.Check, c.g, nil).rate(k.Operations*float64(c.tiles)*float64(steps)*slots/1e12, took.Seconds())
	for slot := range slots {
		k.launches++
		sms := unsafe.Slice((*uint32)(unsafe.Pointer(&c.host[c.sms(slot)])), c.tiles)
		for t := range k.tiles {
			at := (slot*c.tiles + t) * tileWords
			k.look(t, c.host[at:at+tileWords], int(sms[t]))
		}
	}
	return nil
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// look enters what a tile has become on an SM.
func (k *kernel) look(at int, words []uint64, sm int) {
	t := &k.tiles[at]
	if slices.Equal(t.first.words, words) {
		t.first.seen(sm)
		return
	}
	digest := crc64.Checksum(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words)), crcTable)
	if t.first.words == nil {
		t.first = variant{digest: digest, words: slices.Clone(words)}
		t.first.seen(sm)
		return
	}
	i := slices.IndexFunc(t.odd, func(v variant) bool { return v.digest == digest })
	if i < 0 {
		if k.odd == maxOddities {
			if i = len(t.odd) - 1; i < 0 {
				return // there is more than enough to see already
			}
		} else {
			k.odd++
			i = len(t.odd)
			t.odd = append(t.odd, variant{digest: digest, words: slices.Clone(words)})
		}
	}
	t.odd[i].seen(sm)
}

func (c *compute) results() (all []results) {
	for _, k := range c.kernels {
		r := results{Kernel: k.Name, Launches: k.launches}
		if k.launches == 0 {
			continue
		}
		for i, t := range k.tiles {
			r.Digests = append(r.Digests, t.first.digest)
			r.SMs = append(r.SMs, t.first.sms)
			for _, v := range t.odd {
				r.Odd = append(r.Odd, oddity{Tile: i, Digest: v.digest, SMs: v.sms, Count: v.count})
			}
		}
		all = append(all, r)
	}
	return all
}

// words are those that a tile had under a digest; none where it had no such.
func (c *compute) words(r *wordsRequest) *tileWordsOf {
	out := &tileWordsOf{}
	for _, k := range c.kernels {
		if k.Name != r.Kernel || r.Tile < 0 || r.Tile >= len(k.tiles) {
			continue
		}
		for _, v := range append([]variant{k.tiles[r.Tile].first}, k.tiles[r.Tile].odd...) {
			if v.digest == r.Digest {
				out.Words = v.words
			}
		}
	}
	return out
}
