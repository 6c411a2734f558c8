package term

import "time"

// Candidate is the side of a server that follows: it promises the one that acts to leave the term alone, and claims it when that is over. It is not safe for concurrent use.
type Candidate struct {
	self string
	// free is when its last promise is over.
	free time.Duration
	last Reply
	// claiming: what was asked has not been made void by a promise. taken: it was granted.
	claiming, taken bool
}

// NewCandidate begins. A process before it may have promised something a moment ago.
func NewCandidate(self string, now time.Duration) *Candidate {
	return &Candidate{self: self, free: now + Length}
}

// Promise promises not to claim the term for its length. It reports false where this server has it.
func (c *Candidate) Promise(now time.Duration) bool {
	if c.taken {
		return false
	}
	c.free, c.claiming = now+Length, false
	return true
}

// Released says that the server that acted has stepped down for good: it needs no promise any more.
func (c *Candidate) Released() { c.free = 0 }

// Claim is how to ask for the term; wait is how long it is too early for that.
func (c *Candidate) Claim(now time.Duration, force bool) (q Request, wait time.Duration) {
	if now < c.free {
		return q, c.free - now
	}
	c.claiming = true
	return Request{Kind: Claim, Server: c.self, Mark: c.last.Mark, Force: force}, 0
}

// Heard takes the answer, and reports whether this server has the term: it then takes over, and follows nobody any more.
func (c *Candidate) Heard(a Reply) bool {
	c.last = a
	c.taken = c.taken || a.Granted && c.claiming
	c.claiming = false
	return c.taken
}

// Last is the arbiter's newest answer; its zero value: there was none.
func (c *Candidate) Last() Reply { return c.last }
