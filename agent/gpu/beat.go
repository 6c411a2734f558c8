package gpu

import (
	"hash/fnv"
	"time"
)

// phases are the lengths of load and rest; each is kept for some turns.
var phases = []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}

// maxStretch is by how many millionths phases are longer at most: a tenth, so that two machines drift apart within some turns and what is loaded stays the same.
const maxStretch = 100_000

// beat is by how much a machine begins later than it could, and by how many millionths its phases are longer. It follows from who the machine is alone: two
// that begin together are out of step at once, and none stays in step with another.
func beat(machine string) (late time.Duration, stretch int64) {
	h := fnv.New64a()
	h.Write([]byte(machine))
	x := h.Sum64()
	x ^= x >> 33 // names that differ in their last letter differ in few of the upper bits
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return time.Duration(x % uint64(2*phases[len(phases)-1])), int64(x >> 32 % maxStretch)
}

// phaseAt is how long load and rest each last at a time since the beginning, and for how long it is to rest from then on; 0: it is to load.
func phaseAt(since time.Duration, stretch int64) (phase, rest time.Duration) {
	phase = phases[int(since/time.Second)%len(phases)]
	phase += phase * time.Duration(stretch) / 1_000_000
	if at := since % (2 * phase); at >= phase {
		rest = 2*phase - at
	}
	return phase, rest
}
