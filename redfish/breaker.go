package redfish

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/url"
	"slices"
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
		b = newBreaker(g)
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

// Breaker stops all use of a refused password at one BMC by one user, and serialises logins. It knows passwords by a salted hash, so
// that another one may be tried at once (somebody mistyped), while a worker that still has the old one stays shut out.
type Breaker struct {
	gate  *gate
	login chan struct{} // held during each try of a password
	salt  [16]byte

	mu      sync.Mutex // guards the rest
	refused map[[sha256.Size]byte]*refusal
	last    *refusal // nil once a password was taken
}

// refusal is one password that the BMC did not take.
type refusal struct {
	since, tried time.Time
	why          string
}

// maxRefused bounds how many wrong passwords are remembered; the oldest is forgotten.
const maxRefused = 16

// BreakerState is a breaker as shown to people.
type BreakerState struct {
	Open bool `json:"open"`
	// Since is when the credential was refused; zero where closed.
	Since time.Time `json:"since,omitzero"`
	Why   string    `json:"why,omitempty"`
	// NextTry is when one more login is allowed without a new password.
	NextTry time.Time `json:"next_try,omitzero"`
}

func newBreaker(g *gate) *Breaker {
	b := &Breaker{gate: g, login: make(chan struct{}, 1)}
	rand.Read(b.salt[:]) // never fails (crypto/rand)
	return b
}

// State tells whether the last password that was tried is in use.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		return BreakerState{}
	}
	return BreakerState{Open: true, Since: b.last.since, Why: b.last.why, NextTry: b.last.tried.Add(probeEvery)}
}

// Reset forgets all refusals; call it when the password was set anew, even to the same text.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.refused)
	b.last = nil
}

func (b *Breaker) hash(password fleet.Secret) [sha256.Size]byte {
	return sha256.Sum256(append(b.salt[:], password.Reveal()...))
}

// allow says whether a password may be tried now; one that was refused is tried once in ten minutes.
func (b *Breaker) allow(now time.Time, password fleet.Secret) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.refused[b.hash(password)]
	if r == nil {
		return nil
	}
	if next := r.tried.Add(probeEvery); now.Before(next) {
		return fleet.Errorf(fleet.Denied, "MC-BMC-BREAKER", "the BMC refused this user and password at %s (%s); they are not tried again before %s, so that the account is not locked",
			r.since.UTC().Format(time.RFC3339), r.why, next.UTC().Format(time.RFC3339)).
			WithHint("metalctl bmc credential set NODE")
	}
	r.tried = now
	return nil
}

// trip remembers that a password was refused.
func (b *Breaker) trip(now time.Time, password fleet.Secret, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.hash(password)
	r := b.refused[key]
	if r == nil {
		if len(b.refused) == maxRefused {
			oldest := slices.MinFunc(slices.Collect(maps.Keys(b.refused)), func(x, y [sha256.Size]byte) int {
				return b.refused[x].tried.Compare(b.refused[y].tried)
			})
			delete(b.refused, oldest)
		}
		r = &refusal{since: now}
		if b.refused == nil {
			b.refused = map[[sha256.Size]byte]*refusal{}
		}
		b.refused[key] = r
	}
	r.tried, r.why = now, printable(why, 200)
	b.last = r
}

// taken remembers that a password is right; others stay refused.
func (b *Breaker) taken(password fleet.Secret) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.refused, b.hash(password))
	b.last = nil
}

func (b *Breaker) String() string {
	s := b.State()
	if !s.Open {
		return "closed"
	}
	return fmt.Sprintf("open since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Why)
}
