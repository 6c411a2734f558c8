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

	"github.com/metalctl/metalctl/agent/boot"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/term"
)

// sinceBoot is the clock of terms and promises. A process that cannot read it must not go on: whatever it took for the time, one of two servers might act too long.
func sinceBoot() time.Duration {
	d, err := boot.SinceBoot()
	if err != nil {
		panic(err)
	}
	return d
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
	cl, err := api.NewClient(api.Config{Server: c.Arbiter, Token: fleet.NewSecret(strings.TrimSpace(string(token))), Pin: fleet.PinOf(cert), Timeout: askTermFor})
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
