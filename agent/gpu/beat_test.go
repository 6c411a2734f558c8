package gpu

import (
	"fmt"
	"testing"
	"time"
)

// TestPulsesAreOutOfStep: of many machines that begin at the same moment no two load and rest together, and each does the same each time.
func TestPulsesAreOutOfStep(t *testing.T) {
	type machine struct {
		late    time.Duration
		stretch int64
	}
	var all []machine
	for i := range 40 {
		late, stretch := beat(fmt.Sprintf("4c4c4544-0051-3010-8052-b4c04f4a38%02d", i))
		again, same := beat(fmt.Sprintf("4c4c4544-0051-3010-8052-b4c04f4a38%02d", i))
		if late != again || stretch != same || late < 0 || late >= 2*phases[len(phases)-1] || stretch < 0 || stretch >= maxStretch {
			t.Fatalf("machine %d begins %s later and %d longer, then %s and %d", i, late, stretch, again, same)
		}
		all = append(all, machine{late, stretch})
	}
	loads := func(m machine, at time.Duration) bool {
		_, rest := phaseAt(at-m.late, m.stretch)
		return rest == 0
	}
	const from, to, every = time.Second, 61 * time.Second, 500 * time.Microsecond
	worst, most := 0.0, 0
	for i, a := range all {
		for _, b := range all[:i] {
			same := 0
			for at := from; at < to; at += 7 * every {
				if loads(a, at) == loads(b, at) {
					same++
				}
			}
			worst = max(worst, float64(same)/float64((to-from)/(7*every)))
		}
	}
	for at := from; at < to; at += every {
		n := 0
		for _, m := range all {
			if loads(m, at) {
				n++
			}
		}
		most = max(most, n)
	}
	if worst > 0.8 {
		t.Errorf("two machines are in the same phase for %.0f %% of a minute", 100*worst)
	}
	if most > len(all)*9/10 {
		t.Errorf("%d of %d load at the same moment", most, len(all))
	}
}
