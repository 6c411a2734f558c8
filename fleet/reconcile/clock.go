package reconcile

import (
	"sync"
	"time"
)

// trusted keeps two clocks: the wall clock, which people and NTP set, and the time since the process began, which nobody sets. Nothing ends on a clock
// that stepped: what has an end is over only when both say so.
type trusted struct {
	mu    sync.Mutex
	wall  time.Time     // guarded by mu: where it began
	mono  time.Duration // guarded by mu
	drift time.Duration // guarded by mu: the wall clock's last known distance from the other
}

// stepAt is the drift from which on the wall clock is said to have stepped; NTP slews less than 0.05 %.
const stepAt = 5 * time.Second

func (t *trusted) start(wall time.Time, mono time.Duration) { t.wall, t.mono = wall.Round(0), mono }

// earlier returns the earlier of the two clocks' times, and how far the wall clock has stepped since the last call (0 for a drift below stepAt).
func (t *trusted) earlier(wall time.Time, mono time.Duration) (now time.Time, stepped time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	other := t.wall.Add(mono - t.mono)
	drift := wall.Round(0).Sub(other)
	if d := drift - t.drift; d >= stepAt || d <= -stepAt {
		stepped, t.drift = d, drift
	}
	if drift > 0 {
		return other, stepped
	}
	return wall.Round(0), stepped
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
