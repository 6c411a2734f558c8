package term

import (
	"fmt"
	"time"
)

// Arbiter judges by its state, and by its own clock, which nobody sets and which runs on while the machine sleeps. It is not safe for concurrent use.
type Arbiter struct {
	state State
	// boot tells the marks of this process from earlier ones'; count tells its own apart.
	boot    string
	count   uint64
	began   time.Duration
	renewed time.Duration
}

// NewArbiter begins with the state that was kept. Whoever held the term may still hold it for its whole length. Boot must differ from one process to the next.
func NewArbiter(s State, boot string, now time.Duration) *Arbiter {
	return &Arbiter{state: s, boot: boot, began: now, renewed: now}
}

// State is what it has granted so far.
func (a *Arbiter) State() State { return a.state }

// Judge says what the state becomes, and what to answer. Where that grants something, Accept makes it true, after the new state was kept: until then nothing has changed.
func (a *Arbiter) Judge(now time.Duration, q Request) (State, Reply) {
	next, why, wait := a.judge(now, q)
	if q.Kind == Look || why != "" {
		return a.state, a.reply(now, why, wait)
	}
	return next, Reply{Granted: true}
}

// Accept takes the state that Judge gave for a request, and answers.
func (a *Arbiter) Accept(now time.Duration, next State) Reply {
	a.state, a.renewed = next, now
	a.count++
	r := a.reply(now, "", 0)
	r.Granted = true
	return r
}

func (a *Arbiter) reply(now time.Duration, why Why, wait time.Duration) Reply {
	return Reply{Why: why, Mark: a.mark(), State: a.state, SilentMS: (now - a.renewed).Milliseconds(), WaitMS: wait.Milliseconds()}
}

func (a *Arbiter) mark() string { return fmt.Sprintf("%s/%d", a.boot, a.count) }

func (a *Arbiter) judge(now time.Duration, q Request) (next State, why Why, wait time.Duration) {
	s := a.state
	if q.Mark != a.mark() {
		return s, Stale, 0
	}
	// A term from before this process began may have been renewed at its last moment.
	settled := a.began + Length - now
	lapsed := max(settled, a.renewed+Length-now)
	switch q.Kind {
	case Renew:
		switch {
		case s.Holder == q.Server:
		case s.Holder == "" && settled > 0:
			return s, Early, settled
		case s.Holder == "":
			s.Number++
		case q.Over && s.Holder == q.Standby:
			s.Number++
		default:
			return s, Held, 0
		}
		s.Holder, s.Standby, s.Even, s.Claimed = q.Server, q.Standby, q.Even && q.Standby != "", false
	case Claim:
		again := s.Holder == q.Server && s.Claimed
		switch {
		case again && settled > 0:
			return s, Early, settled
		case again:
		case s.Standby != q.Server:
			return s, Unnamed, 0
		case !s.Even && !q.Force:
			return s, Behind, 0
		case lapsed > 0:
			return s, Early, lapsed
		}
		s = State{ID: s.ID, Number: s.Number + 1, Holder: q.Server, Claimed: true}
	case Yield:
		if s.Holder != q.Server {
			return s, Held, 0
		}
		s = State{ID: s.ID, Number: s.Number + 1, Holder: q.Standby, Claimed: true}
	}
	return s, "", 0
}
