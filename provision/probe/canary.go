package probe

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Site is where a canary sits in one domain of switches.
type Site struct {
	// Interfaces are two or more, each at a port that carries every VLAN of the domain with its tag: what one says in a VLAN the others must hear, so that silence
	// there means something.
	Interfaces []string
	// Namespace is the network namespace that they are in: a path, or a name of `ip netns`; "" is that of this process.
	Namespace string
}

// Canary speaks and listens in every VLAN of its domains while there are rounds. Its exported fields are set before it is used and not changed afterwards.
type Canary struct {
	Sites map[string]Site
	Now   func() time.Time
	Log   *slog.Logger

	mu     sync.Mutex // guards rounds and all that is in them
	rounds map[roundID]*round
	wake   chan struct{}
}

// NewCanary is one that Run lets speak.
func NewCanary(sites map[string]Site, now func() time.Time, log *slog.Logger) *Canary {
	return &Canary{Sites: sites, Now: now, Log: log, rounds: map[roundID]*round{}, wake: make(chan struct{}, 1)}
}

const (
	// roundTime is how long a node and the canary try to hear each other, and forgotten after how long a round is dropped that nobody ended.
	roundTime = 45 * time.Second
	forgotten = 5 * time.Minute
	// maxRate is about how many frames the canary sends in a second, whatever there is to ask.
	maxRate = 5000
	// reopen is how long it waits where an interface cannot be opened.
	reopen = 2 * time.Second
)

// round is one that goes on.
type round struct {
	id    roundID
	key   []byte
	plan  fleet.ProbePlan
	began time.Time
	burst uint32
	// heard is what each interface of each domain heard.
	heard map[string][]ears
	// problem says why a domain's interfaces cannot be used.
	problem map[string]error
	// ended is what it showed, nil while it goes on.
	ended *fleet.Probe
}

// Has reports whether there is a canary in a domain.
func (c *Canary) Has(domain string) bool { return len(c.Sites[domain].Interfaces) > 0 }

// Begin begins a round and returns the agent's half of it.
func (c *Canary) Begin(p fleet.ProbePlan) (fleet.ProbeTask, error) {
	r := &round{plan: p, key: make([]byte, 32), began: c.Now(), heard: map[string][]ears{}, problem: map[string]error{}}
	rand.Read(r.id[:]) //nolint:errcheck // it does not fail
	rand.Read(r.key)   //nolint:errcheck // likewise
	t := fleet.ProbeTask{Round: hex.EncodeToString(r.id[:]), Key: r.key, Seconds: int(roundTime / time.Second)}
	if len(p.Ports) == 0 || len(p.Ports) > maxPorts {
		return t, fleet.Errorf(fleet.Refused, "MC-PROBE-PORTS", "a round of packets has 1 to %d ports, and the node has %d", maxPorts, len(p.Ports))
	}
	for _, x := range p.Ports {
		all := c.Sites[x.Domain].Interfaces
		if r.heard[x.Domain] == nil {
			for range all {
				r.heard[x.Domain] = append(r.heard[x.Domain], ears{})
			}
		}
		if x.VLAN != 0 {
			t.Canaries = max(t.Canaries, len(all))
		}
		// What must not be heard goes before what must: when that has come, the rest would have.
		var tags []fleet.FrameTag
		for _, v := range p.VLANs[x.Domain] {
			tags = append(tags, fleet.FrameTag(v))
		}
		t.Ports = append(t.Ports, fleet.ProbePort{MACs: x.MACs, VLAN: x.VLAN, Tags: append(tags, fleet.PriorityTag, fleet.Untagged)})
	}
	t.Canaries = max(t.Canaries, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rounds[r.id] = r
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return t, nil
}

// End ends a round and judges it with what the agent reports; asked again it says the same. A round that this canary does not know showed nothing.
func (c *Canary) End(report fleet.ProbeReport) fleet.Probe {
	out := fleet.Probe{Round: report.Round, At: c.Now().UTC(), Outcome: fleet.ProbeUntold}
	id, err := parseRound(report.Round)
	if err != nil {
		return out
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rounds[id]
	if r == nil {
		return out
	}
	if r.ended == nil {
		out = r.judge(report, out.At)
		r.ended = &out
	}
	return *r.ended
}

// Run speaks and listens while there are rounds, until ctx ends.
func (c *Canary) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
		for c.busy() && ctx.Err() == nil {
			if err := c.perch(ctx); err != nil {
				c.Log.Error("the canary cannot use its interfaces", "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(reopen):
				}
			}
		}
	}
}

// busy reports whether there are rounds that go on, and drops those that are long over, or that nobody will end.
func (c *Canary) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.rounds, func(_ roundID, r *round) bool { return c.Now().Sub(r.began) > forgotten })
	for _, r := range c.rounds {
		if r.ended == nil {
			return true
		}
	}
	return false
}

// perch opens the interfaces of all domains that are asked for and uses them until there are no rounds, or one of another domain.
func (c *Canary) perch(ctx context.Context) error {
	wanted := c.domains()
	open := map[string][]*link{}
	var readers sync.WaitGroup
	defer func() {
		for _, all := range open {
			closeLinks(all)
		}
		readers.Wait()
	}()
	var errs []error
	for _, d := range wanted {
		all, err := openLinks(c.Sites[d].Namespace, c.Sites[d].Interfaces)
		c.noted(d, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("in the domain %s: %w", d, err))
			continue
		}
		open[d] = all
		for i, l := range all {
			readers.Go(func() { c.listen(d, i, l) })
		}
	}
	if len(open) == 0 {
		return errors.Join(errs...)
	}
	for c.busy() && slices.Equal(wanted, c.domains()) {
		sent := c.speak(open)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(pace, time.Duration(sent)*time.Second/maxRate)):
		}
	}
	return errors.Join(errs...)
}

// domains are those that there are rounds in, in order.
func (c *Canary) domains() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string]bool{}
	for _, r := range c.rounds {
		for d := range r.heard {
			all[d] = all[d] || r.ended == nil
		}
	}
	maps.DeleteFunc(all, func(_ string, asked bool) bool { return !asked })
	return slices.Sorted(maps.Keys(all))
}

func (c *Canary) noted(domain string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.rounds {
		if r.problem[domain] = err; err == nil {
			delete(r.problem, domain)
		}
	}
}

// listen counts what comes at the i-th interface of a domain, until it is closed.
func (c *Canary) listen(domain string, i int, l *link) {
	for {
		tag, payload, err := l.next()
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				c.noted(domain, err)
			}
			return
		}
		f, ok := parse(payload)
		if !ok {
			continue
		}
		c.mu.Lock()
		// What it said itself and hears again counts for nothing.
		if r := c.rounds[f.round]; r != nil && r.ended == nil && i < len(r.heard[domain]) && int(f.from) != fleet.CanaryPorts+i && verified(r.key, payload) {
			r.heard[domain][i].hear(f, tag)
		}
		c.mu.Unlock()
	}
}

// speak sends one burst of every round, and returns how many frames that were.
func (c *Canary) speak(open map[string][]*link) int {
	type saying struct {
		f   frame
		key []byte
	}
	say := map[string][]saying{}
	c.mu.Lock()
	for _, r := range c.rounds {
		if r.ended != nil {
			continue
		}
		r.burst++
		acks := r.acks()
		for d := range r.heard {
			for _, tag := range append([]fleet.FrameTag{fleet.Untagged}, tagsOf(r.plan.VLANs[d])...) {
				say[d] = append(say[d], saying{frame{round: r.id, sent: tag, burst: r.burst, acks: acks}, r.key})
			}
		}
	}
	c.mu.Unlock()
	sent := 0
	for d, links := range open {
		for i, l := range links {
			for _, s := range say[d] {
				s.f.from = uint16(fleet.CanaryPorts + i)
				if err := l.send(s.f.encode(s.key, l.mac)); err != nil {
					c.noted(d, err)
					break
				}
				sent++
			}
		}
	}
	return sent
}

func tagsOf(vlans []fleet.VLAN) []fleet.FrameTag {
	out := make([]fleet.FrameTag, 0, len(vlans))
	for _, v := range vlans {
		out = append(out, fleet.FrameTag(v))
	}
	return out
}
