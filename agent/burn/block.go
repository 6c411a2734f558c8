package burn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// blockBytes is the unit of verified data: what drives write as one.
const blockBytes = 4096

// A block begins with a head that says whose it is, so that a write that went elsewhere or was forgotten is told from flipped bits. The rest follows from the head.
const (
	headMagic  = 0x6d63746c4255524e // mctlBURN
	headOffset = 8
	headPass   = 16
	headSeed   = 24
	headSum    = 32
	headBytes  = 40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fillBlock makes of b the block at an offset, in a pass of a run's seed.
func fillBlock(b []byte, off int64, pass, seed uint64) {
	le := binary.LittleEndian
	le.PutUint64(b, headMagic)
	le.PutUint64(b[headOffset:], uint64(off))
	le.PutUint64(b[headPass:], pass)
	le.PutUint64(b[headSeed:], seed)
	x := mix(seed^mix(pass^mix(uint64(off)))) | 1
	for i := headBytes; i < len(b); i += 8 { // xorshift64: a word in few cycles, as drives are faster than good generators
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		le.PutUint64(b[i:], x)
	}
	le.PutUint64(b[headSum:], uint64(crc32.Checksum(b[headBytes:], castagnoli)))
}

// Kinds of blocks that were read other than they were written.
const (
	blockFlipped   = "flipped"   // bits differ
	blockStale     = "stale"     // what an earlier pass wrote here: the newer write was lost
	blockMisplaced = "misplaced" // what belongs elsewhere
	blockForeign   = "foreign"   // not ours at all: never written, or damaged beyond knowing
)

// wrongBlock says what is wrong with a block that was read; kind is "" for one that is right. want is the block as it was written.
func wrongBlock(got, want []byte) (kind, detail string) {
	if bytes.Equal(got, want) {
		return "", ""
	}
	le := binary.LittleEndian
	off := le.Uint64(want[headOffset:])
	whole := le.Uint64(got) == headMagic && le.Uint64(got[headSum:]) == uint64(crc32.Checksum(got[headBytes:], castagnoli)) && le.Uint64(got[headSeed:]) == le.Uint64(want[headSeed:])
	switch {
	case whole && le.Uint64(got[headOffset:]) != off:
		return blockMisplaced, fmt.Sprintf("offset %d: holds what was written to offset %d in %s", off, le.Uint64(got[headOffset:]), passName(le.Uint64(got[headPass:])))
	case whole && le.Uint64(got[headPass:]) != le.Uint64(want[headPass:]):
		return blockStale, fmt.Sprintf("offset %d: holds what %s wrote, not %s", off, passName(le.Uint64(got[headPass:])), passName(le.Uint64(want[headPass:])))
	}
	first, flipped := -1, 0
	for i := range got {
		if d := got[i] ^ want[i]; d != 0 {
			if first < 0 {
				first = i
			}
			flipped += bits.OnesCount8(d)
		}
	}
	if flipped > len(got) { // of foreign data half of all bits differ, of our own that was damaged few
		return blockForeign, fmt.Sprintf("offset %d: holds nothing that was written, beginning %x", off, got[:8])
	}
	return blockFlipped, fmt.Sprintf("offset %d: %d bits differ, first in byte %d: expected %02x, got %02x", off, flipped, first, want[first], got[first])
}

// passOf numbers a write: the round, the cycle in it, and whether it is the second to its place in the cycle.
func passOf(round, cycle int) uint64 { return uint64(round)<<32 | uint64(cycle)<<1 }

func passName(pass uint64) string {
	return fmt.Sprintf("write %d of cycle %d of round %d", pass&1+1, pass&(1<<32-1)>>1+1, pass>>32)
}
