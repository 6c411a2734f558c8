package term

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The simulation: two servers and an arbiter in virtual time, with every fault that the network, processes, machines and clocks have. A seed replays exactly.
// Only the state machines of this package are real. What a server does around them is told in sim_server_test.go in as few words as it needs.

const (
	tick = 100 * time.Millisecond
	// callFor is how long an answer of the arbiter is waited for.
	callFor = 3 * time.Second
)

type sim struct {
	rng     *rand.Rand
	now     time.Duration // true time, which nobody sees
	queue   events
	n       int
	bug     string
	arb     *arbiterBox
	servers [2]*serverBox
	// cut holds what is sent and never arrives, as from/to.
	cut  map[[2]*box]bool
	loss float64
	slow float64 // how many messages take up to a minute
	// calm: no faults any more.
	calm bool

	work      []*commit
	found     string // the first broken invariant
	takeovers int
	actedAt   time.Duration
}

type commit struct {
	at    time.Duration
	acked bool
}

// box is a machine with one process.
type box struct {
	name   string
	up     bool
	life   int // counts processes
	rate   float64
	base   time.Duration // what the clock showed at zero
	wall   time.Duration // what a clock shows besides that somebody sets
	frozen time.Duration // how long a clock stood still that stops in a sleep
	until  time.Duration // it stands still till then
}

func (s *sim) clock(b *box) time.Duration {
	t := b.base + time.Duration(b.rate*float64(s.now))
	switch s.bug {
	case "a clock that somebody sets":
		t += b.wall
	case "a clock that stands still in a sleep":
		t -= b.frozen
	}
	return t
}

type event struct {
	at time.Duration
	n  int
	f  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func (s *sim) after(d time.Duration, f func()) {
	s.n++
	heap.Push(&s.queue, event{s.now + d, s.n, f})
}

func (s *sim) random(d time.Duration) time.Duration {
	return time.Duration(s.rng.Int64N(int64(d)))
}

// on runs f on a machine as soon as it does not stand still, if its process is the same one then.
func (s *sim) on(b *box, life int, f func()) {
	switch {
	case !b.up || b.life != life:
	case s.now < b.until:
		s.after(b.until-s.now, func() { s.on(b, life, f) })
	default:
		f()
	}
}

// send brings a message to whatever process runs there when it comes: once, twice, late or never.
func (s *sim) send(from, to *box, f func()) {
	copies := 1
	if s.rng.Float64() < 0.05 {
		copies = 2
	}
	for range copies {
		if s.cut[[2]*box{from, to}] || s.rng.Float64() < s.loss {
			continue
		}
		delay := time.Millisecond + s.random(50*time.Millisecond)
		if s.rng.Float64() < s.slow {
			delay = s.random(time.Minute)
		}
		s.after(delay, func() { s.on(to, to.life, f) })
	}
}

func (s *sim) broken(format string, args ...any) {
	if s.found == "" {
		s.found = fmt.Sprintf("at %s: ", s.now) + fmt.Sprintf(format, args...)
	}
}

// arbiterBox is an arbiter with its file.
type arbiterBox struct {
	box
	file State
	a    *Arbiter
}

func (s *sim) startArbiter() {
	b := s.arb
	b.up = true
	b.life++
	began := s.clock(&b.box)
	if s.bug == "no wait after the arbiter's restart" {
		began -= Length
	}
	b.a = NewArbiter(b.file, fmt.Sprint(b.life), began)
}

func (s *sim) judge(q Request, answer func(Reply)) {
	b := s.arb
	if s.bug == "marks are not compared" {
		q.Mark = b.a.mark()
	}
	if s.bug == "granted to one that is behind" && q.Kind == Claim {
		q.Force = true
	}
	if s.bug == "granted to anybody" && q.Kind == Claim && b.a.state.Holder != q.Server {
		b.a.state.Standby, b.a.state.Even = q.Server, true
	}
	if s.bug == "granted before the term is over" && q.Kind == Claim {
		b.a.renewed, b.a.began = s.clock(&b.box)-Length, s.clock(&b.box)-Length
	}
	next, r := b.a.Judge(s.clock(&b.box), q)
	if !r.Granted {
		answer(r)
		return
	}
	if s.bug == "answered before it is kept" {
		life := b.life
		answer(b.a.Accept(s.clock(&b.box), next))
		s.after(2*time.Second, func() { s.on(&b.box, life, func() { b.file = next }) })
		return
	}
	b.file = next
	if s.rng.Float64() < 0.002 && !s.calm { // it dies between its file and its answer
		s.crash(&b.box)
		return
	}
	answer(b.a.Accept(s.clock(&b.box), next))
}

func (s *sim) boxes() []*box {
	return []*box{&s.arb.box, &s.servers[0].box, &s.servers[1].box}
}

func (s *sim) start(b *box) {
	if b.up {
		return
	}
	for _, v := range s.servers {
		if &v.box == b {
			s.startServer(v)
			return
		}
	}
	s.startArbiter()
}

func (s *sim) crash(b *box) {
	b.up = false
	away := 40 * time.Second
	if s.rng.IntN(2) == 0 {
		away = time.Second
	}
	s.after(s.random(away), func() { s.start(b) })
}

// faults breaks something now and then, until all is calm.
func (s *sim) faults() {
	if s.calm {
		return
	}
	next := 30 * time.Second
	if s.rng.IntN(3) == 0 { // misfortunes come together
		next = time.Second
	}
	defer s.after(s.random(next), s.faults)
	all := s.boxes()
	b := all[s.rng.IntN(3)]
	other := all[s.rng.IntN(3)]
	span := s.random(time.Minute)
	switch s.rng.IntN(9) {
	case 0:
		s.crash(b)
	case 1: // the machine, too: its clock begins at zero
		s.crash(b)
		b.base = -time.Duration(b.rate * float64(s.now))
	case 2, 3:
		b.until = s.now + span
		s.after(span, func() { b.frozen += span })
	case 4: // one direction
		s.cut[[2]*box{b, other}] = true
		s.after(span, func() { delete(s.cut, [2]*box{b, other}) })
	case 5, 6: // alone
		for _, o := range all {
			s.cut[[2]*box{b, o}], s.cut[[2]*box{o, b}] = true, true
			s.after(span, func() { delete(s.cut, [2]*box{b, o}); delete(s.cut, [2]*box{o, b}) })
		}
	case 7:
		s.loss, s.slow = s.rng.Float64()*0.6, s.rng.Float64()*0.3
		s.after(span, func() { s.loss, s.slow = 0.01, 0.01 })
	case 8:
		b.wall += s.random(4*time.Minute) - 2*time.Minute
	}
}

// persons give orders now and then.
func (s *sim) persons() {
	if s.calm {
		return
	}
	defer s.after(s.random(3*time.Minute), s.persons)
	v := s.servers[s.rng.IntN(2)]
	s.on(&v.box, v.life, func() {
		if v.role != follows {
			if s.rng.IntN(4) == 0 {
				s.forget(v)
			}
			return
		}
		s.promote(v)
	})
}

// simulate runs for that long with faults, then until whoever can act does, and returns what went wrong.
func simulate(seed uint64, bug string, span time.Duration) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 1)), bug: bug, cut: map[[2]*box]bool{}, loss: 0.01, slow: 0.01}
	clock := func(name string) box {
		return box{name: name, rate: 0.955 + 0.09*s.rng.Float64(), base: s.random(time.Hour)}
	}
	s.arb = &arbiterBox{box: clock("arbiter"), file: State{ID: "the one"}}
	s.servers[0] = &serverBox{box: clock("mc1"), role: acts, whole: true}
	s.servers[1] = &serverBox{box: clock("mc2"), role: follows}
	s.servers[0].other, s.servers[1].other = s.servers[1], s.servers[0]
	for _, b := range s.boxes() {
		s.start(b)
	}
	s.after(time.Minute, s.faults)
	s.after(time.Minute, s.persons)
	s.after(span, func() {
		s.calm = true
		clear(s.cut)
		s.loss, s.slow = 0, 0
		for _, b := range s.boxes() {
			b.until = s.now
			s.start(b)
		}
	})
	end := span + 3*time.Minute
	for len(s.queue) > 0 && s.found == "" {
		e := heap.Pop(&s.queue).(event)
		if e.at > end {
			break
		}
		s.now = e.at
		e.f()
	}
	if s.found == "" && s.now-s.actedAt > 5*time.Second {
		s.broken("nobody acts: %s %+v, %s %+v, arbiter %+v", s.servers[0].role, s.servers[0].right, s.servers[1].role, s.servers[1].right, s.arb.a.state)
	}
	return s
}

// lost compares what a server that has just taken over has with what was acknowledged.
func (s *sim) lost(v *serverBox) {
	s.takeovers++
	var first, last *commit
	for _, c := range s.work {
		if c.acked && !slices.Contains(v.log, c) {
			if first == nil {
				first = c
			}
			last = c
		}
	}
	// Clocks run apart by a tenth, and servers look every tick.
	if first != nil && last.at-first.at > Late*11/10+2*tick {
		s.broken("%s takes over and lacks %s of what was acknowledged", v.name, last.at-first.at)
	}
	s.work = slices.Clone(v.log)
}
