package reconcile

import (
	"context"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// trusted keeps two clocks: the wall clock, which people and NTP set, and the time since the process began, which nobody sets. Nothing ends on a clock
// that stepped: what has an end is over only when both say so. Across a restart the wall clock is the only one there is, so it is compared with what
// the last process saw: for up to downtimeMost it is believed, and of a longer jump nothing is, so that what has an end ends late and not early.
type trusted struct {
	mu    sync.Mutex
	wall  time.Time     // guarded by mu: where it began
	mono  time.Duration // guarded by mu
	drift time.Duration // guarded by mu: the wall clock's last known distance from the other
	// low is the furthest that the wall clock was seen behind the other, 0 where it was not or has come back to it; guarded by mu. An end that was given
	// meanwhile is dated by a clock that stood there.
	low time.Duration

	resumed bool // guarded by mu: the last process's record was looked at
	kept    time.Duration
	// ranBefore is how long earlier processes ran on this store, start when this one began by the clock that nobody sets; guarded by mu.
	ranBefore, start0 time.Duration
	keeps             bool // guarded by mu, as kept: when the record was last written, and whether it was
}

// clockKey is the key of what a server that is started anew must know of time.
const clockKey fleet.Key = fleet.KindMeta + "/clock"

// clockRecord is what the clocks said when both were last seen.
type clockRecord struct {
	// Seen is the time that both agreed on, Wall what the wall clock said then.
	Seen time.Time `json:"seen"`
	Wall time.Time `json:"wall"`
	// Ran is how long servers had run on this store, in all.
	Ran time.Duration `json:"ran,omitempty"`
}

const (
	// stepAt is the drift from which on the wall clock is said to have stepped; NTP slews less than 0.05 %.
	stepAt = 5 * time.Second
	// downtimeMost is the longest time without a server that the wall clock alone is believed.
	downtimeMost = 24 * time.Hour
	// clockPeriod is how often the record is written.
	clockPeriod = time.Minute
)

func (t *trusted) start(wall time.Time, mono time.Duration) {
	t.wall, t.mono, t.start0 = wall.Round(0), mono, mono
}

// ran is how long servers have run on this store: a clock that is set and a time without a server add nothing to it.
func (t *trusted) ran(mono time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ranBefore + mono - t.start0
}

// resume goes on from what the last process saw, and says by how much the wall clock jumped meanwhile if that is not believed.
func (t *trusted) resume(last clockRecord) (jumped time.Duration) {
	gap := t.wall.Sub(last.Wall)
	if gap < 0 || gap > downtimeMost {
		jumped, gap = gap, 0
	}
	wall := t.wall
	t.wall = last.Seen.Round(0).Add(gap)
	t.drift = wall.Sub(t.wall)
	return jumped
}

// earlier returns the earlier of the two clocks' times, and how far the wall clock has stepped since the last call (0 for a drift below stepAt).
func (t *trusted) earlier(wall time.Time, mono time.Duration) (now time.Time, stepped time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, drift := t.both(wall, mono)
	if d := drift - t.drift; d >= stepAt || d <= -stepAt {
		stepped, t.drift = d, drift
	}
	return now, stepped
}

// both compares the clocks; mu is held. The time is that of the earlier one, or of where the wall clock once stood.
func (t *trusted) both(wall time.Time, mono time.Duration) (now time.Time, drift time.Duration) {
	other := t.wall.Add(mono - t.mono)
	drift = wall.Round(0).Sub(other)
	switch {
	case drift > -stepAt && drift < stepAt:
		t.low = 0
	case drift < t.low:
		t.low = drift
	}
	return other.Add(min(drift, t.low)), drift
}

// since is how long ago a line was written that the wall clock of then dates. It may have been set between the two, or jumped while no server ran: of the ages that
// each clock gives the line the one nearer to now counts, so that what has an end ends late and not early.
func (t *trusted) since(written, wall time.Time, mono time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	age, other := wall.Round(0).Sub(written), t.wall.Add(mono-t.mono).Sub(written)
	if other.Abs() < age.Abs() {
		age = other
	}
	return min(max(age, 0), downtimeMost)
}

// later returns the later of the two clocks' times: an end that is counted from it comes late rather than early.
func (t *trusted) later(wall time.Time, mono time.Duration) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return latest(wall.Round(0), t.wall.Add(mono-t.mono))
}

// anchor reads once what the last process saw of time.
func (l *Loop) anchor(s fleet.Snapshot) error {
	l.clock.mu.Lock()
	defer l.clock.mu.Unlock()
	if l.clock.resumed {
		return nil
	}
	d, err := maybe[clockRecord](s, clockKey)
	if err != nil {
		return err
	}
	l.clock.resumed = true
	if d.v == nil {
		return nil
	}
	l.clock.ranBefore = d.v.Ran
	if l.TrustWall {
		return nil
	}
	if jumped := l.clock.resume(*d.v); jumped != 0 {
		l.Log.Warn("the clock is not believed: it jumped while no server ran. Leases and graces end late by that much; if it is right, start once with --trust-clock",
			"last", d.v.Wall, "by", jumped)
	}
	return nil
}

// sure is the time that has passed for certain: what ends, and what it ends destroys, is judged by it.
func (l *Loop) sure() time.Time {
	l.clock.mu.Lock()
	defer l.clock.mu.Unlock()
	now, _ := l.clock.both(l.Now(), l.Mono())
	return now.UTC()
}

// keepClock records, once a minute and when the wall clock was set, what a next process must know of time.
func (l *Loop) keepClock(ctx context.Context, stepped bool) error {
	mono, wall := l.Mono(), l.Now()
	l.clock.mu.Lock()
	due := stepped || !l.clock.keeps || mono-l.clock.kept >= clockPeriod
	l.clock.mu.Unlock()
	if !due {
		return nil
	}
	rec := clockRecord{Seen: l.sure(), Wall: wall.UTC().Round(0), Ran: l.clock.ran(mono)}
	if _, err := l.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: clockKey, Value: rec}}}); err != nil {
		return err
	}
	l.clock.mu.Lock()
	defer l.clock.mu.Unlock()
	l.clock.kept, l.clock.keeps = mono, true
	return nil
}

// pace is where an operation's journal stood when this process first saw it so, by the clock that nobody sets.
type pace struct {
	operation fleet.OperationID
	// written is the time that the journal's present line was written at, and behind how long ago that was at mono.
	written time.Time
	mono    time.Duration
	behind  time.Duration
}

// steady is the time by which an operation's limits, pauses and patience are judged. The journal is dated by the wall clock; what passes since its newest
// line is measured by the clock that nobody sets, so that a clock that was set neither ends a step that still runs nor keeps one waiting for days.
func (l *Loop) steady(op *fleet.Operation, now time.Time) time.Time {
	written := latest(op.CreatedAt, op.StartedAt)
	if i := op.Current(); i >= 0 {
		switch r := op.Steps[i]; {
		case !r.FinishedAt.IsZero():
			written = r.FinishedAt
		case !r.StartedAt.IsZero():
			written = r.StartedAt
		case i > 0:
			written = latest(written, op.Steps[i-1].FinishedAt)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.paces[op.Node]
	if p.operation != op.ID || !p.written.Equal(written) {
		p = pace{operation: op.ID, written: written, mono: l.Mono(), behind: l.clock.since(written, now, l.Mono())}
		l.paces[op.Node] = p
	}
	return written.Add(p.behind + l.Mono() - p.mono)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
