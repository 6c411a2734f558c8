package burn

import "math/bits"

// pattern is what words of memory are made to hold; a word's value follows from its place.
type pattern struct {
	name  string
	kind  int
	value uint64 // of the kind: what is held, what is turned over, the seed
	// invert: each word is turned over while it is verified, upwards and then downwards, so that every cell goes both ways beside neighbours that went before.
	invert bool
	// fade: it is left alone for a while before it is verified.
	fade bool
}

// Kinds of patterns.
const (
	constant = iota
	address  // the word's own number, so that two places that are one are seen
	walking  // one bit, another one in each word
	random
)

// patterns are those of one cycle. What moving inversions and walking bits find is in the description of memtest86+ (memtest.org, "Test Sequence").
func patterns(seed uint64, fade bool) []pattern {
	const half = 0x5555555555555555
	out := []pattern{
		{"own address", address, 0, false, false}, {"own address inverted", address, ^uint64(0), false, false},
		{"random", random, mix(seed), true, false},
		{"moving inversions of 0", constant, 0, true, false}, {"moving inversions of 0x55", constant, half, true, false},
		{"walking one", walking, 0, false, false}, {"walking zero", walking, ^uint64(0), false, false},
		{"random", random, mix(seed + 1), false, false},
	}
	if fade {
		out = append(out, pattern{"bit fade of 0", constant, 0, false, true}, pattern{"bit fade of 1", constant, ^uint64(0), false, true})
	}
	return out
}

// at is the value of word i; turn is all ones after an odd number of inversions.
func (p pattern) at(i, turn uint64) uint64 {
	switch p.kind {
	case address:
		return i ^ p.value ^ turn
	case walking:
		return bits.RotateLeft64(1, int(i)) ^ p.value ^ turn
	case random:
		return mix(p.value+i) ^ turn
	}
	return p.value ^ turn
}

// fill writes words whose first is number i.
func (p pattern) fill(w []uint64, i uint64) {
	switch p.kind {
	case constant:
		for k := range w {
			w[k] = p.value
		}
	case address:
		for k := range w {
			w[k] = (i + uint64(k)) ^ p.value
		}
	case walking:
		for k := range w {
			w[k] = bits.RotateLeft64(1, int(i)+k) ^ p.value
		}
	case random:
		for k := range w {
			w[k] = mix(p.value + i + uint64(k))
		}
	}
}

// wrong returns the place in w of the first word from k on that is not what it should be, or len(w).
func (p pattern) wrong(w []uint64, k int, i, turn uint64) int {
	switch v := p.value ^ turn; p.kind {
	case constant:
		for ; k < len(w) && w[k] == v; k++ {
		}
	case address:
		for ; k < len(w) && w[k] == (i+uint64(k))^v; k++ {
		}
	case walking:
		for ; k < len(w) && w[k] == bits.RotateLeft64(1, int(i)+k)^v; k++ {
		}
	case random:
		for ; k < len(w) && w[k] == mix(p.value+i+uint64(k))^turn; k++ {
		}
	}
	return k
}
