package term

import "time"

// Right is a server's right to act. All its times are of one clock that nobody sets, that runs on while the machine sleeps, and that is handed in. It is not safe for concurrent use.
//
// A server that names no standby needs none, as nobody else can be given the term. From the moment on at which it asks the arbiter to name one it acts while its term
// or the standby's promise lasts. Both count from before they were asked for.
type Right struct {
	self string
	// bound: somebody else may be given the term. mayEven: the arbiter may think that the standby is even.
	bound, mayEven bool
	// termEnd and promiseEnd are when they end.
	termEnd, promiseEnd time.Duration
	// beat is what the newest promise answers; one that answers an earlier one than floor does not count.
	beat, floor time.Duration
	// last is the arbiter's newest answer, and when it came; the arbiter is the one that was heard first.
	last    Reply
	lastAt  time.Duration
	arbiter string
}

// NewRight is the right of a server that begins. Followed says that its store names a standby: it may do nothing then before it has heard of somebody.
func NewRight(self string, followed bool) *Right {
	return &Right{self: self, bound: followed, mayEven: followed, beat: -1, floor: -1}
}

// Taken is the right of a server that has taken over: nobody is named that could take the term from it.
func Taken(self string, sent, now time.Duration, r Reply) *Right {
	return &Right{self: self, termEnd: sent + Length - Margin, beat: -1, floor: now, last: r, lastAt: now, arbiter: r.State.ID}
}

// Held reports whether this server may act.
func (r *Right) Held(now time.Duration) bool {
	return !r.bound || now < r.termEnd || now < r.promiseEnd
}

// Covered reports whether it may also acknowledge what it has committed, and act upon it: either the standby lacks no more than Late of it, or the arbiter knows that it does, and gives it no term.
func (r *Right) Covered(now, lag time.Duration) bool {
	return r.Held(now) && (!r.bound || !r.mayEven || lag <= Late)
}

// Bound reports whether this server needs a term or a promise to act.
func (r *Right) Bound() bool { return r.bound }

// End is when the newest right ends, or did.
func (r *Right) End() time.Duration { return max(r.termEnd, r.promiseEnd) }

// Left is how long the term and the promise last, 0 where they do not.
func (r *Right) Left(now time.Duration) (term, promise time.Duration) {
	return max(r.termEnd-now, 0), max(r.promiseEnd-now, 0)
}

// Last is the arbiter's newest answer; its zero value: there was none.
func (r *Right) Last() Reply { return r.last }

// Renewal is what to ask the arbiter now. Standby is the one that the store names, "" for none; even says that it lacks less than Late. A server that has nobody's
// leave to act, and needs none, gets that first: the standby is named in the next one.
func (r *Right) Renewal(now time.Duration, standby string, even bool) Request {
	if !r.bound && now >= r.End() {
		standby = "" // what acts freely binds itself only where it goes on acting
	}
	even = even && standby != ""
	r.bound, r.mayEven = r.bound || standby != "", r.mayEven || even
	over := standby != "" && r.last.State.Holder == standby && r.beat > r.lastAt && now < r.promiseEnd
	return Request{Kind: Renew, Server: r.self, Mark: r.last.Mark, Standby: standby, Even: even, Over: over}
}

// Yielding is how this server hands the term to another. It has no right any more when it asks, whatever becomes of that.
func (r *Right) Yielding(now time.Duration, to string) Request {
	r.bound, r.termEnd, r.promiseEnd, r.floor = true, 0, 0, now
	return Request{Kind: Yield, Server: r.self, Mark: r.last.Mark, Standby: to}
}

// Heard takes the answer to the newest request, which was sent at that time. It reports false where another arbiter answers than before: that one knows nothing of this term.
func (r *Right) Heard(sent, now time.Duration, q Request, a Reply) bool {
	if r.arbiter == "" {
		r.arbiter = a.State.ID
	}
	if a.State.ID != r.arbiter {
		return false
	}
	r.last, r.lastAt = a, now
	switch {
	case a.Granted && q.Kind == Renew:
		r.termEnd = max(r.termEnd, sent+Length-Margin)
		r.bound, r.mayEven = q.Standby != "", q.Even
	case a.State.Holder != r.self:
		r.termEnd = 0
	}
	return true
}

// Promised takes the standby's promise that answers a beat of this server, which was sent at that time.
func (r *Right) Promised(beat time.Duration) {
	if beat <= r.floor || beat <= r.beat {
		return
	}
	r.beat, r.promiseEnd = beat, beat+Length-Margin
}
