//go:build !ramdisk

package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/term"
)

// sinceBoot is a clock that nobody sets and that runs on while the machine sleeps. A kernel without it has no other one either.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error())
	}
	return time.Duration(t.Nano())
}

const (
	// askTermFor bounds a question to the arbiter, lookForTerm is how often a server looks whether it is to ask one.
	askTermFor  = 3 * time.Second
	lookForTerm = 200 * time.Millisecond
	// lookAtArbiter is how often one that follows, and claims nothing, sees whether the arbiter answers.
	lookAtArbiter = 5 * time.Second
)

// tenure is by what right this process acts, or takes over, over all its stages.
type tenure struct {
	url, self string
	automatic bool
	cl        *api.Client
	log       *slog.Logger
	// run tells this process from earlier ones, whose promises are not its own.
	run string

	calling sync.Mutex // one question at a time: an answer is to the newest

	mu    sync.Mutex      // guards what follows
	right *term.Right     // of a server whose store acts; nil: there is none yet
	cand  *term.Candidate // of one that follows; nil: this one does not
	// hub knows the standby while something serves it; named is the standby that the store names while nothing does.
	hub        *standby.Hub
	named      string
	forgetting bool
	wanted     string        // the standby of the newest renewal
	even       bool          // and whether it was called even
	next       time.Duration // when to ask again
	answeredAt time.Duration
	problem    error // why the arbiter does not answer
	could      bool  // what was last logged of the right
}

var (
	_ standby.Tenure   = (*tenure)(nil)
	_ standby.Claimant = (*tenure)(nil)
)

// tenure makes what speaks to the arbiter; nil where none is configured.
func (c serverConfig) tenure(log *slog.Logger) (*tenure, error) {
	if c.Arbiter == "" {
		return nil, nil
	}
	token, err := os.ReadFile(c.ArbiterTokenFile)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-ARBITER-TOKEN", "read arbiter_token_file: %w", err).WithHint("copy arbiter.token from the arbiter's folder")
	}
	text, err := os.ReadFile(c.ArbiterCert)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-ARBITER-TOKEN", "read arbiter_cert: %w", err).WithHint("copy arbiter.pem from the arbiter's folder")
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-ARBITER-TOKEN", "%s holds no PEM certificate", c.ArbiterCert).WithHint("copy arbiter.pem from the arbiter's folder")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-ARBITER-TOKEN", "%s: %w", c.ArbiterCert, err).WithHint("copy arbiter.pem from the arbiter's folder")
	}
	cl, err := api.NewClient(api.Config{Server: c.Arbiter, Token: fleet.NewSecret(strings.TrimSpace(string(token))), Pin: api.PinOf(cert), Timeout: askTermFor})
	if err != nil {
		return nil, err
	}
	self, _, err := server.Addresses(c.serverConfig())
	if err != nil {
		return nil, err
	}
	return &tenure{url: c.Arbiter, self: self, automatic: c.Takeover == takeoverAutomatic, cl: cl, log: log, run: rand.Text(), answeredAt: sinceBoot(), could: true}, nil
}

// acts begins a stage in which the store acts, and names that standby.
func (t *tenure) acts(f *fleet.Follower) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cand, t.hub, t.named, t.next = nil, nil, "", 0
	if f != nil {
		t.named = f.URL
	}
	if t.right == nil {
		t.right = term.NewRight(t.self, f != nil)
	}
}

// follows begins one in which it does not.
func (t *tenure) follows() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.right, t.hub, t.named = nil, nil, ""
	t.cand = term.NewCandidate(t.self, sinceBoot())
}

// retired begins one in which it does not, and follows nobody either.
func (t *tenure) retired() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.right, t.cand, t.hub, t.named = nil, nil, nil, ""
}

// served says which hub knows the standby from now on; its clock is the tenure's then.
func (t *tenure) served(h *standby.Hub) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hub = h
}

// Run asks the arbiter as often as the right needs it, until ctx ends.
func (t *tenure) Run(ctx context.Context) error {
	tick := time.NewTicker(lookForTerm)
	defer tick.Stop()
	defer t.cl.Close()
	for {
		t.step(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// step asks the arbiter if it is time to.
func (t *tenure) step(ctx context.Context) {
	standbyURL, even := t.second()
	t.mu.Lock()
	now := sinceBoot()
	// That the standby is behind is said at once: nothing more is acknowledged before the arbiter knows.
	changed := t.right != nil && (standbyURL != t.wanted || t.even && !even)
	due := now >= t.next || changed
	right, cand := t.right != nil, t.cand != nil
	t.tellLocked(now)
	t.mu.Unlock()
	switch {
	case !due:
	case right:
		t.renew(ctx, standbyURL, even)
	case cand:
		t.look(ctx)
	}
}

// second is the standby as the store names it, and whether it lacks so little that it may take over.
func (t *tenure) second() (url string, even bool) {
	t.mu.Lock()
	hub, url, forgetting := t.hub, t.named, t.forgetting
	t.mu.Unlock()
	if hub != nil {
		f := hub.Follower()
		if f == nil || forgetting {
			return "", false
		}
		lag, connected := hub.Lag()
		return f.URL, connected && lag <= term.Late/2
	}
	return url, false
}

// ask puts one question. What comes of it is for heard, under the lock.
func (t *tenure) ask(ctx context.Context, question func(now time.Duration) (term.Request, bool), heard func(sent, now time.Duration, q term.Request, a term.Reply)) (term.Reply, error) {
	t.calling.Lock()
	defer t.calling.Unlock()
	for try := 0; ; try++ {
		t.mu.Lock()
		sent := sinceBoot()
		q, ok := question(sent)
		t.mu.Unlock()
		if !ok {
			return term.Reply{}, nil
		}
		a, err := t.cl.AskTerm(ctx, q)
		t.mu.Lock()
		now := sinceBoot()
		if err != nil {
			if ctx.Err() == nil && fleet.KindOf(err) != fleet.Denied {
				err = fleet.Errorf(fleet.Unavailable, "MC-ARBITER-GONE", "the arbiter %s does not answer: %w", t.url, err).WithHint("start it again; while it is away nobody takes over")
			}
			if t.problem == nil && ctx.Err() == nil {
				t.log.Warn("the arbiter does not answer", "peer", t.url, "err", err)
			}
			t.problem, t.next = err, now+time.Second
			t.mu.Unlock()
			return a, err
		}
		if t.problem != nil {
			t.log.Info("the arbiter answers again", "peer", t.url)
		}
		t.problem, t.answeredAt = nil, now
		heard(sent, now, q, a)
		t.tellLocked(now)
		t.mu.Unlock()
		if a.Why != term.Stale || try == 3 {
			return a, nil
		}
	}
}

func (t *tenure) renew(ctx context.Context, standbyURL string, even bool) (term.Reply, error) {
	return t.ask(ctx, func(now time.Duration) (term.Request, bool) {
		if t.right == nil {
			return term.Request{}, false
		}
		q := t.right.Renewal(now, standbyURL, even)
		t.wanted, t.even, t.next = standbyURL, q.Even, now+term.RenewEvery
		return q, true
	}, t.heardLocked)
}

func (t *tenure) heardLocked(sent, now time.Duration, q term.Request, a term.Reply) {
	if t.right == nil {
		return
	}
	if !t.right.Heard(sent, now, q, a) {
		t.problem = fleet.Errorf(fleet.Conflict, "MC-ARBITER-STRANGER", "another arbiter answers at %s than before, or it has lost its file", t.url).
			WithHint("see that one server acts and the other one follows; then start both anew: metalctl help MC-ARBITER-STRANGER")
	}
	switch {
	case !a.Granted:
		t.next = min(t.next, now+time.Second)
	case q.Kind == term.Renew && q.Standby != t.wanted:
		t.next = now // it is named now
	}
}

// look sees whether the arbiter answers.
func (t *tenure) look(ctx context.Context) (term.Reply, error) {
	return t.ask(ctx, func(now time.Duration) (term.Request, bool) {
		if t.right == nil {
			t.next = now + lookAtArbiter
		}
		return term.Request{Kind: term.Look, Server: t.self, Mark: t.lastLocked().Mark}, true
	}, func(sent, now time.Duration, q term.Request, a term.Reply) {
		if t.cand != nil {
			t.cand.Heard(a)
		}
		t.heardLocked(sent, now, q, a)
	})
}

// lastLocked is the arbiter's newest answer.
func (t *tenure) lastLocked() (last term.Reply) {
	switch {
	case t.right != nil:
		last = t.right.Last()
	case t.cand != nil:
		last = t.cand.Last()
	}
	return last
}

// tellLocked logs when the right comes and goes.
func (t *tenure) tellLocked(now time.Duration) {
	if t.right == nil {
		t.could = true
		return
	}
	can := t.right.Held(now)
	if can == t.could {
		return
	}
	t.could = can
	if can {
		t.log.Info("this server may act", "term", t.right.Last().State.Number, "since_boot", now.Seconds())
		return
	}
	t.log.Error("this server may not act: neither the arbiter nor the standby answers, or another one has the term", "term", t.right.Last().State.Number, "since_boot", t.right.End().Seconds())
}

// held says why this server may not act; nil: it may.
func (t *tenure) held() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.right != nil && t.right.Held(sinceBoot()) {
		return nil
	}
	return t.errFencedLocked()
}

func (t *tenure) errFencedLocked() error {
	if t.right != nil {
		if s := t.right.Last().State; s.Holder != "" && s.Holder != t.self {
			return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FENCED", "the arbiter has lent the term to %s, so this server does not act", s.Holder).WithHint("ask that one: --server %s", s.Holder)
		}
	}
	return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FENCED", "this server hears neither of the arbiter nor of its standby, which may take over, so it does not act").
		WithHint("metalctl standby status; it goes on by itself as soon as one of the two answers")
}

// settled waits until what was committed here may be acknowledged and acted upon.
func (t *tenure) settled(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, standby.Gone)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		lag := time.Duration(1<<63 - 1)
		t.mu.Lock()
		hub := t.hub
		t.mu.Unlock()
		if hub != nil {
			lag, _ = hub.Lag()
		}
		t.mu.Lock()
		now := sinceBoot()
		held := t.right != nil && t.right.Held(now)
		ok := held && t.right.Covered(now, lag)
		err := t.errFencedLocked()
		t.mu.Unlock()
		switch {
		case ok:
			return nil
		case !held:
			return err
		}
		select {
		case <-ctx.Done():
			return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FENCED", "the standby lacks what this server has just done, and the arbiter cannot be told: it may be lost").
				WithHint("metalctl standby status; then look whether it was done, and repeat the command")
		case <-tick.C:
		}
	}
}

// Beat implements standby.Tenure.
func (t *tenure) Beat() (run string, at time.Duration) { return t.run, sinceBoot() }

// Promised implements standby.Tenure.
func (t *tenure) Promised(run string, beat time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := sinceBoot(); t.right != nil && run == t.run && beat <= now {
		t.right.Promised(beat)
		t.tellLocked(now)
	}
}

// Unname implements standby.Tenure.
func (t *tenure) Unname(ctx context.Context) error {
	t.mu.Lock()
	t.forgetting = true
	t.mu.Unlock()
	a, err := t.renew(ctx, "", false)
	if err == nil && !a.Granted {
		err = errTerm(a)
	}
	if err != nil {
		t.Named()
	}
	return err
}

// Named implements standby.Tenure.
func (t *tenure) Named() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetting, t.next = false, 0
}

// yield hands the term to the server at that URL. This one has no right any more, whatever comes of it.
func (t *tenure) yield(ctx context.Context, to string) error {
	a, err := t.ask(ctx, func(now time.Duration) (term.Request, bool) {
		return t.right.Yielding(now, to), true
	}, t.heardLocked)
	if err == nil && !a.Granted {
		err = errTerm(a)
	}
	return err
}

// handOver hands the term to the follower, once that has everything up to pos.
func (t *tenure) handOver(ctx context.Context, hub *standby.Hub, pos fleet.Position, to string) error {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if !hub.Even(wait, pos) {
		return fleet.Errorf(fleet.Timeout, "MC-STANDBY-BEHIND", "the server %s does not come to where this one is", to).WithHint("metalctl standby status; then repeat: metalctl standby promote")
	}
	return t.yield(ctx, to)
}

// fill says how this server stands with the arbiter.
func (t *tenure) fill(out *api.Standby) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := sinceBoot()
	last := t.lastLocked()
	v := &api.Tenure{URL: t.url, Reached: t.problem == nil && last.Mark != "", Automatic: t.automatic, Holder: last.State.Holder, Term: last.State.Number, Even: last.State.Even}
	if t.right != nil {
		left, promise := t.right.Left(now)
		v.Needed, v.TermSeconds, v.PromiseSeconds = t.right.Bound(), left.Seconds(), promise.Seconds()
	}
	if !v.Reached {
		v.SilentSeconds = (now - t.answeredAt).Seconds()
	}
	if t.problem != nil {
		v.Problem, v.Code = t.problem.Error(), fleet.CodeOf(t.problem)
	}
	out.Arbiter = v
}
