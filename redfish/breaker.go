package redfish

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// probeEvery is how long an open breaker stays shut before one more login is tried: longer than any lockout window seen.
const probeEvery = 10 * time.Minute

// readersPerBMC is how many requests one BMC answers at once.
const readersPerBMC = 3

// Breakers holds what all clients of a BMC in one process share. BMCs lock accounts after as few as three wrong passwords, and a
// second worker with the stale password is what locks them (NVIDIA infra-controller #1292); so there is one per process.
type Breakers struct {
	mu    sync.Mutex // guards the maps
	gates map[string]*gate
	all   map[string]*Breaker
}

// NewBreakers returns an empty set.
func NewBreakers() *Breakers {
	return &Breakers{gates: map[string]*gate{}, all: map[string]*Breaker{}}
}

// For returns the breaker of a user at a BMC. address is a URL or host[:port]; the same BMC must be named the same way.
func (s *Breakers) For(address, user string) *Breaker {
	key := hostPort(address)
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[key]
	if g == nil {
		g = newGate()
		s.gates[key] = g
	}
	id := key + "\x00" + user
	b := s.all[id]
	if b == nil {
		b = &Breaker{gate: g, login: make(chan struct{}, 1)}
		s.all[id] = b
	}
	return b
}

func hostPort(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		address = u.Host
		if u.Port() == "" {
			address = u.Hostname() + ":443"
		}
	}
	return strings.ToLower(address)
}

// gate admits one writer and a few requests at a time to a BMC.
type gate struct {
	writer chan struct{}
	slots  chan struct{}
}

func newGate() *gate {
	return &gate{writer: make(chan struct{}, 1), slots: make(chan struct{}, readersPerBMC)}
}

func acquire(ctx context.Context, c chan struct{}) error {
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Breaker stops all use of one credential at one BMC after one wrong password, and serialises logins with it.
type Breaker struct {
	gate  *gate
	login chan struct{} // held during each try of the password

	mu    sync.Mutex // guards the rest
	open  bool
	since time.Time
	tried time.Time
	why   string
}

// BreakerState is a breaker as shown to people.
type BreakerState struct {
	Open bool `json:"open"`
	// Since is when the credential was refused; zero where closed.
	Since time.Time `json:"since,omitzero"`
	Why   string    `json:"why,omitempty"`
	// NextTry is when one more login is allowed without a new password.
	NextTry time.Time `json:"next_try,omitzero"`
}

func newBreaker() *Breaker {
	return &Breaker{gate: newGate(), login: make(chan struct{}, 1)}
}

// State tells whether the credential is in use.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return BreakerState{}
	}
	return BreakerState{Open: true, Since: b.since, Why: b.why, NextTry: b.tried.Add(probeEvery)}
}

// Reset closes the breaker; call it when a new password was set.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open, b.why, b.since, b.tried = false, "", time.Time{}, time.Time{}
}

// allow says whether the password may be tried now; an open breaker admits one try in ten minutes.
func (b *Breaker) allow(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return nil
	}
	if next := b.tried.Add(probeEvery); now.Before(next) {
		return fleet.Errorf(fleet.Denied, "MC-BMC-BREAKER", "the BMC refused this user and password at %s (%s); they are not tried again before %s, so that the account is not locked",
			b.since.UTC().Format(time.RFC3339), b.why, next.UTC().Format(time.RFC3339)).
			WithHint("metalctl bmc credential set NODE")
	}
	b.tried = now
	return nil
}

func (b *Breaker) trip(now time.Time, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		b.open, b.since = true, now
	}
	b.tried, b.why = now, printable(why, 200)
}

func (b *Breaker) String() string {
	s := b.State()
	if !s.Open {
		return "closed"
	}
	return fmt.Sprintf("open since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Why)
}
