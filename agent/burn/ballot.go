package burn

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/metalctl/metalctl/fleet"
)

// ballot compares what cores computed: the result that most cores had is right. A core that had two results of the same work has no vote about it.
type ballot struct {
	say *Sink

	mu     sync.Mutex // guards what follows
	boxes  map[box][]vote
	blamed map[int]*blame
}

// box is one piece of work.
type box struct {
	kernel string
	seed   uint64
}

// vote is one result of it, and how often each core had it.
type vote struct {
	digest uint64
	cores  map[int]int64
	pass   int64 // in which it was had first
}

// blame is what a core did wrong.
type blame struct {
	results int64
	details []string
}

// cast takes one result.
func (b *ballot) cast(core int, pass int64, kernel string, seed, digest uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := box{kernel, seed}
	votes := b.boxes[at]
	i := slices.IndexFunc(votes, func(v vote) bool { return v.digest == digest })
	if i < 0 {
		i = len(votes)
		votes = append(votes, vote{digest, map[int]int64{}, pass})
		b.boxes[at] = votes
	}
	votes[i].cores[core]++
	if len(votes) > 1 {
		b.judgeLocked()
	}
}

// count says how many results of a piece of work each core had, and which result counts: -1 while nothing tells.
func count(votes []vote) (results map[int]int, right int) {
	results = map[int]int{}
	for _, v := range votes {
		for core := range v.cores {
			results[core]++
		}
	}
	best, second, right := 0, 0, -1
	for i, v := range votes {
		n := 0
		for core := range v.cores {
			if results[core] == 1 {
				n++
			}
		}
		if n > best {
			best, second, right = n, best, i
		} else {
			second = max(second, n)
		}
	}
	if best == second {
		right = -1
	}
	return results, right
}

// judgeLocked counts anew what every core did wrong, and tells it.
func (b *ballot) judgeLocked() {
	clear(b.blamed)
	for at, votes := range b.boxes {
		if len(votes) < 2 {
			continue
		}
		results, right := count(votes)
		for i, v := range votes {
			for core, n := range v.cores {
				switch {
				case i == right:
				case right >= 0:
					b.blameLocked(core, n, fmt.Sprintf("kernel %s, seed %d, pass %d: expected %016x as %d cores, got %016x, %d times", at.kernel, at.seed, v.pass+1, votes[right].digest, len(votes[right].cores), v.digest, n))
				case results[core] > 1: // it contradicts itself, whoever is right
					b.blameLocked(core, n, fmt.Sprintf("kernel %s, seed %d, pass %d: got %016x, %d times, and other results in other passes", at.kernel, at.seed, v.pass+1, v.digest, n))
				}
			}
		}
	}
	for core, x := range b.blamed {
		slices.Sort(x.details)
		b.say.Measured(fleet.Measured{Check: "cpu-mismatches", Component: coreName(core), Value: float64(x.results), Details: x.details, Engine: "builtin"})
		b.say.Wrong(coreName(core), fmt.Sprintf("%d wrong results", x.results))
	}
}

func (b *ballot) blameLocked(core int, n int64, detail string) {
	x := b.blamed[core]
	if x == nil {
		x = &blame{}
		b.blamed[core] = x
	}
	x.results += n
	x.details = append(x.details, detail)
}

// close tells of every core how it did, also of those that did nothing wrong.
func (b *ballot) close(cores []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := map[int]int64{}
	unclear := map[int][]string{}
	for at, votes := range b.boxes {
		_, right := count(votes)
		for _, v := range votes {
			for core, k := range v.cores {
				n[core] += k
				if right < 0 {
					unclear[core] = append(unclear[core], fmt.Sprintf("%s with seed %d gave %016x", at.kernel, at.seed, v.digest))
				}
			}
		}
	}
	for _, core := range cores {
		switch {
		case b.blamed[core] != nil:
		case unclear[core] != nil:
			slices.Sort(unclear[core])
			b.say.Untold(fleet.Untold{Check: "cpu-mismatches", Component: coreName(core), Cause: "other",
				Words: "results differ, and no majority of cores tells which are right: " + strings.Join(unclear[core][:min(3, len(unclear[core]))], ", ")})
		case n[core] > 0:
			b.say.Measured(fleet.Measured{Check: "cpu-mismatches", Component: coreName(core), N: n[core], Engine: "builtin"})
		}
	}
}
