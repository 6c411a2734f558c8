package disk

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

const (
	canaryBytes = 4096
	canaryCount = 1024
	sampleBytes = 64 << 10
)

// canaries are blocks whose contents only this run can know: an old copy that reads back like them was not erased.
type canaries struct {
	key     [32]byte
	offsets []int64
}

// newCanaries spreads up to 1,024 blocks at random, always some in the first and last MiB.
func newCanaries(size int64) (*canaries, error) {
	c := &canaries{}
	if size < 4*canaryBytes {
		return nil, fleet.Errorf(fleet.Invalid, "MC-DISK-SMALL", "a disk of %d bytes is too small to prove anything", size)
	}
	if _, err := rand.Read(c.key[:]); err != nil {
		return nil, fmt.Errorf("canary key: %w", err)
	}
	random := mrand.New(mrand.NewChaCha8(c.key))
	blocks := size / canaryBytes
	edge := min(blocks/4, (1<<20)/canaryBytes)
	pick := map[int64]bool{0: true, blocks - 1: true}
	want := min(canaryCount, blocks/4)
	for len(pick) < int(want) {
		switch n := len(pick); {
		case n < int(want)/16:
			pick[random.Int64N(edge)] = true
		case n < int(want)/8:
			pick[blocks-1-random.Int64N(edge)] = true
		default:
			pick[random.Int64N(blocks)] = true
		}
	}
	for b := range pick {
		c.offsets = append(c.offsets, b*canaryBytes)
	}
	slices.Sort(c.offsets)
	return c, nil
}

func (c *canaries) block(off int64) []byte {
	seed := sha256.Sum256(binary.LittleEndian.AppendUint64(bytes.Clone(c.key[:]), uint64(off)))
	b := AlignedBytes(canaryBytes)
	_, _ = mrand.NewChaCha8(seed).Read(b) // never fails
	return b
}

func (c *canaries) write(ctx context.Context, h *handle) error {
	for _, off := range c.offsets {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := h.WriteAt(c.block(off), off); err != nil {
			return fmt.Errorf("write canary: %w", err)
		}
	}
	return h.flush()
}

// found counts the canaries of which at least one sector is still there.
func (c *canaries) found(ctx context.Context, h *handle) (int, error) {
	n := 0
	b := AlignedBytes(canaryBytes)
	for _, off := range c.offsets {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if _, err := h.ReadAt(b, off); err != nil {
			return n, fmt.Errorf("look for canary: %w", err)
		}
		want := c.block(off)
		for at := 0; at < canaryBytes; at += 512 {
			if bytes.Equal(b[at:at+512], want[at:at+512]) {
				n++
				break
			}
		}
	}
	return n, nil
}

// samplePlan takes two places at random out of each of many equal regions.
func samplePlan(size int64, p ErasePolicy, random *mrand.Rand) []int64 {
	percent, limit := p.SamplePercent, p.SampleMaxBytes
	if percent <= 0 {
		percent = 1
	}
	if limit <= 0 {
		limit = 1 << 30
	}
	want := int64(float64(size) * min(percent, 100) / 100)
	want = max(min(want, limit), min(4<<20, size))
	regions := max(1, want/sampleBytes/2)
	length := size / regions
	var offsets []int64
	for r := range regions {
		for range 2 {
			off := r*length + random.Int64N(max(1, length-sampleBytes+1))
			offsets = append(offsets, max(0, min(off/canaryBytes*canaryBytes, size-sampleBytes)))
		}
	}
	return offsets
}

// verify proves the erasure, then leaves both ends zero.
func (e *eraser) verify(ctx context.Context, plan *canaries, m method) error {
	bad := func(format string, args ...any) error {
		return fleet.Errorf(fleet.Broken, "MC-ERASE-VERIFY", "after %s: "+format, append([]any{m.name}, args...)...).
			WithHint("metalctl node show NODE; do not hand the disk on: erase it again or destroy it")
	}
	found, err := plan.found(ctx, e.h)
	if err != nil {
		return err
	}
	e.evidence.CanariesFound = found
	if found > 0 {
		return bad("%d of %d known blocks are still there", found, len(plan.offsets))
	}
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return fmt.Errorf("sample seed: %w", err)
	}
	offsets := samplePlan(e.h.size, e.policy, mrand.New(mrand.NewChaCha8(seed)))
	b := AlignedBytes(int(min(sampleBytes, e.h.size)))
	e.evidence.SampledZero = true
	for _, off := range offsets {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := e.h.ReadAt(b, off); err != nil {
			return fmt.Errorf("read sample: %w", err)
		}
		e.meter.add(int64(len(b)))
		e.evidence.SampledBytes += int64(len(b))
		e.evidence.SampledPlaces++
		if allZero(b) {
			continue
		}
		e.evidence.SampledZero = false
		if m.zeros {
			return bad("there is something else than zeros at byte %d", off)
		}
		if at, ok := structured(b); ok {
			return bad("there is readable data at byte %d", off+int64(at))
		}
	}
	return e.clearEnds(ctx, bad)
}

// clearEnds zeroes what no sampling may leave to chance and reads it back.
func (e *eraser) clearEnds(ctx context.Context, bad func(string, ...any) error) error {
	if err := e.h.zeroEnds(ctx); err != nil {
		return err
	}
	n := min(headBytes, e.h.size)
	b := AlignedBytes(int(n))
	for _, off := range []int64{0, e.h.size - n} {
		if _, err := e.h.ReadAt(b, off); err != nil {
			return fmt.Errorf("read both ends: %w", err)
		}
		if !allZero(b) {
			return bad("the %d bytes at %d are not zero", n, off)
		}
	}
	left, err := e.h.signatures()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return bad("signatures are left: %v", left)
	}
	return nil
}

// structured looks for a block that is neither one repeated byte nor random: after a cryptographic erase nothing else can be there.
func structured(b []byte) (at int, ok bool) {
	for at = 0; at+canaryBytes <= len(b); at += canaryBytes {
		if h := entropy(b[at : at+canaryBytes]); h > 0 && h < 7.5 {
			return at, true
		}
	}
	return 0, false
}

// entropy is in bits per byte; 4 KiB of random bytes have 7.95.
func entropy(b []byte) float64 {
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	h := 0.0
	for _, n := range count {
		if n > 0 && n < len(b) {
			p := float64(n) / float64(len(b))
			h -= p * math.Log2(p)
		}
	}
	return h
}
