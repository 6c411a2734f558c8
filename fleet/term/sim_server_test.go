package term

import (
	"slices"
	"time"
)

type role string

const (
	acts    role = "acts"
	follows role = "follows"
	retired role = "retired"
)

// serverBox is a server: first what its disk has, then its process.
type serverBox struct {
	box
	other *serverBox

	role     role
	age      int // of the store: which life of it this is
	log      []*commit
	whole    bool // it has a store
	followed bool // the other one is recorded to follow

	right     *Right
	cand      *Candidate
	asked     int           // counts requests to the arbiter
	asking    bool          // one is under way
	renewAt   time.Duration // by its clock, as all that follows
	beatAt    time.Duration
	even      bool
	halted    bool // it steps down, or forgets
	ackedTo   int  // how much of the log the follower has
	heardAt   time.Duration
	heardFrom int // the process that was heard
	heardBeat time.Duration
}

func (s *sim) startServer(v *serverBox) {
	v.up = true
	v.life++
	now := s.clock(&v.box)
	v.right, v.cand = NewRight(v.name, v.followed), NewCandidate(v.name, now)
	switch s.bug {
	case "a server that was followed acts when it begins":
		v.right = NewRight(v.name, false)
	case "a standby that begins has promised nothing":
		v.cand.free = now
	}
	v.asking, v.even, v.halted, v.ackedTo, v.renewAt, v.beatAt, v.heardAt, v.heardFrom = false, false, false, 0, now, now, now, 0
	s.loop(v, v.life)
}

func (s *sim) loop(v *serverBox, life int) {
	s.on(&v.box, life, func() {
		switch v.role {
		case acts:
			s.act(v)
		case follows:
			s.follow(v)
		case retired: // a person starts it again, so that it follows
			if s.rng.IntN(100) == 0 {
				v.role, v.whole, v.log = follows, false, nil
				v.cand, v.heardAt = NewCandidate(v.name, s.clock(&v.box)), s.clock(&v.box)
			}
		}
		s.after(tick, func() { s.loop(v, life) })
	})
}

// lag is for how long the oldest commit is there that the follower lacks.
func (s *sim) lag(v *serverBox) time.Duration {
	if v.ackedTo >= len(v.log) {
		return 0
	}
	return time.Duration(v.rate * float64(s.now-v.log[v.ackedTo].at))
}

func (s *sim) act(v *serverBox) {
	now := s.clock(&v.box)
	if v.right.Held(now) && !v.halted {
		o := v.other
		if o.up && o.role == acts && !o.halted && s.now >= o.until && o.right.Held(s.clock(&o.box)) {
			s.broken("both act: %s with %+v, %s with %+v, arbiter %+v", v.name, *v.right, o.name, *o.right, s.arb.file)
		}
		if s.now/(20*time.Second)%2 == 0 && s.rng.IntN(3) == 0 { // work comes and goes
			c := &commit{at: s.now}
			v.log, s.work = append(v.log, c), append(s.work, c)
			s.feed(v)
		}
		if v.right.Covered(now, s.lag(v)) || s.bug == "acknowledged though nobody else has it" {
			s.actedAt = s.now
			for i := len(v.log) - 1; i >= 0 && !v.log[i].acked; i-- {
				v.log[i].acked = true
			}
		}
	}
	if now >= v.beatAt {
		v.beatAt = now + time.Second
		s.feed(v)
		s.lookAt(v)
	}
	even := v.followed && s.lag(v) <= Late/2
	if v.asking || v.halted || now < v.renewAt && even == v.even {
		return
	}
	v.renewAt, v.even = now+RenewEvery, even
	standby := ""
	if v.followed {
		standby = v.other.name
	}
	q := v.right.Renewal(now, standby, even)
	if s.bug == "the term is taken back without a promise" {
		q.Over = standby != "" && v.right.last.State.Holder == standby
	}
	s.renew(v, q, func(bool) {})
}

// renew asks the arbiter, and says what became of it.
func (s *sim) renew(v *serverBox, q Request, then func(granted bool)) {
	sent := s.clock(&v.box)
	s.call(v, q, func(a Reply, came bool) {
		if !came {
			then(false)
			return
		}
		now := s.clock(&v.box)
		from := sent
		if s.bug == "the term counts from its answer" {
			from = now
		}
		v.right.Heard(from, now, q, a)
		if s.bug == "no margin" && a.Granted && q.Kind == Renew {
			v.right.termEnd = sent + Length
		}
		if a.Why == Stale {
			v.renewAt = now
		}
		then(a.Granted)
	})
}

func (s *sim) call(v *serverBox, q Request, then func(a Reply, came bool)) {
	v.asking = true
	v.asked++
	id, life := v.asked, v.life
	end := func(a Reply, came bool) {
		if v.asked == id && v.asking {
			v.asking = false
			then(a, came)
		}
	}
	s.send(&v.box, &s.arb.box, func() {
		s.judge(q, func(a Reply) {
			s.send(&s.arb.box, &v.box, func() {
				if v.life == life {
					end(a, true)
				}
			})
		})
	})
	s.after(callFor, func() { s.on(&v.box, life, func() { end(Reply{}, false) }) })
}

// feed sends the follower what there is, and a beat.
func (s *sim) feed(v *serverBox) {
	if !v.followed || v.role != acts && v.role != retired {
		return
	}
	o, log, age, life, beat, ends := v.other, slices.Clip(v.log), v.age, v.life, s.clock(&v.box), v.role == retired
	s.send(&v.box, &o.box, func() {
		if o.role != follows || o.whole && age < o.age {
			return
		}
		if !o.whole || age > o.age || len(log) > len(o.log) {
			o.whole, o.age, o.log = true, age, log
		}
		if life < o.heardFrom || life == o.heardFrom && beat < o.heardBeat {
			return // of an earlier stream
		}
		o.heardAt, o.heardFrom, o.heardBeat = s.clock(&o.box), life, beat
		promise := !ends && o.cand.Promise(s.clock(&o.box))
		has := len(o.log)
		s.send(&o.box, &v.box, func() {
			switch {
			case v.role != acts || v.age != age:
				return
			case v.life == life || s.bug == "a promise to an earlier process counts":
			default:
				return
			}
			v.ackedTo = max(v.ackedTo, has)
			if promise {
				if s.bug == "a promise counts from when it comes" {
					beat = s.clock(&v.box)
				}
				v.right.Promised(beat)
			}
		})
	})
}

// lookAt asks the other server whether it has taken over, and offers to follow it where this one does.
func (s *sim) lookAt(v *serverBox) {
	o := v.other
	s.send(&v.box, &o.box, func() {
		r, age := o.role, o.age
		if v.role == follows && r == acts && !o.followed && !o.halted && o.right.Held(s.clock(&o.box)) {
			o.followed, o.ackedTo = true, 0
		}
		s.send(&o.box, &v.box, func() {
			if v.role == acts && r == acts && age > v.age {
				v.role = retired
			}
		})
	})
}

func (s *sim) follow(v *serverBox) {
	now := s.clock(&v.box)
	if now >= v.beatAt {
		v.beatAt = now + time.Second
		s.lookAt(v)
	}
	if !v.whole || v.asking || now-v.heardAt < 5*time.Second && s.bug != "claimed in spite of a promise" || now < v.renewAt {
		return
	}
	v.renewAt = now + time.Second
	s.claim(v)
}

// claim asks for the term, and takes over where it is granted.
func (s *sim) claim(v *serverBox) {
	now := s.clock(&v.box)
	if s.bug == "claimed in spite of a promise" {
		v.cand.Released()
	}
	q, wait := v.cand.Claim(now, false)
	if wait > 0 {
		return
	}
	s.call(v, q, func(a Reply, came bool) {
		if !came {
			return
		}
		if s.bug == "a claim holds in spite of a promise" {
			v.cand.claiming = true
		}
		if !v.cand.Heard(a) {
			if a.Why == Stale {
				v.renewAt = s.clock(&v.box)
			}
			return
		}
		v.role, v.followed = acts, false
		v.age++
		v.right = Taken(v.name, now, s.clock(&v.box), a)
		s.lost(v)
	})
}

// promote is a person's order: the other one steps down, after it is even, hands over the term, and retires.
func (s *sim) promote(v *serverBox) {
	o := v.other
	s.send(&v.box, &o.box, func() {
		if o.role != acts || !o.followed || o.halted || o.asking || o.ackedTo < len(o.log) {
			return
		}
		o.halted = true
		s.renew(o, o.right.Yielding(s.clock(&o.box), v.name), func(granted bool) {
			o.halted = false
			if !granted {
				o.renewAt = s.clock(&o.box)
				return
			}
			o.role = retired
			s.send(&o.box, &v.box, func() {
				if v.role == follows {
					v.cand.Released()
					v.renewAt = s.clock(&v.box)
					s.claim(v)
				}
			})
		})
	})
}

// forget is a person's order: the arbiter knows first, the store then.
func (s *sim) forget(v *serverBox) {
	if v.role != acts || !v.followed || v.asking || v.halted {
		return
	}
	v.halted = true
	if s.bug == "forgotten before the arbiter knows" {
		v.followed, v.right.bound = false, false
	}
	s.renew(v, v.right.Renewal(s.clock(&v.box), "", false), func(granted bool) {
		v.halted = false
		if granted {
			v.followed = false
		}
	})
}
