package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/agent/disk"
)

// Samples of verify-erase: 512 places of 64 KiB at random, and both ends.
const (
	samplePlaces = 512
	sampleBytes  = 64 << 10
)

// sample reads places of a disk past what the kernel remembers of it and says why it does not look erased. Where the method leaves random or constant
// contents, only text that somebody wrote can be told from it.
func sample(ctx context.Context, d disk.Device, random bool) (read int64, bad string, err error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return 0, "", fmt.Errorf("read samples: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Clean pages are dropped, so that what follows comes from the disk; erasing synced it, so none is dirty.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, "", fmt.Errorf("drop the cache of %s: %w", d, err)
	}
	buf := make([]byte, sampleBytes)
	for _, off := range places(d.SizeBytes) {
		if err := ctx.Err(); err != nil {
			return read, "", err
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), d.SizeBytes-off)], off)
		if err != nil {
			return read, "", fmt.Errorf("read samples of %s at %d: %w", d, off, err)
		}
		read += int64(n)
		if i := leftover(buf[:n], random); i >= 0 {
			return read, fmt.Sprintf("at byte %d there is data", off+int64(i)), nil
		}
	}
	return read, "", nil
}

// places are sorted offsets of samples: both ends, and the rest at random, or the whole of a small disk.
func places(size int64) []int64 {
	var out []int64
	if size <= samplePlaces*sampleBytes {
		for off := int64(0); off < size; off += sampleBytes {
			out = append(out, off)
		}
		return out
	}
	last := (size - 1) / sampleBytes * sampleBytes
	out = append(out, 0, last)
	for len(out) < samplePlaces {
		out = append(out, rand.N(last/sampleBytes)*sampleBytes)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// leftover returns where a sample holds what an erasure does not leave, or -1. Random contents hold no run of 64 printable bytes (one chance in 10^27 per
// place) unless they are one constant.
func leftover(b []byte, random bool) int {
	if !random {
		for i, c := range b {
			if c != 0 {
				return i
			}
		}
		return -1
	}
	if len(b) > 0 && bytes.Count(b, b[:1]) == len(b) {
		return -1
	}
	run := 0
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			run = 0
			continue
		}
		if run++; run == 64 {
			return i - 63
		}
	}
	return -1
}
