package agent

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// clock is the agent's idea of the time: the machine's clock, plus a correction where that clock cannot be set.
type clock struct {
	read func() time.Time
	set  func(time.Time) error
	log  *slog.Logger

	mu     sync.Mutex
	offset time.Duration // guarded by mu
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read().Add(c.offset)
}

// atLeast moves a clock that is behind t to t: a dead battery says 1970.
func (c *clock) atLeast(t time.Time) {
	if c.now().Before(t) {
		c.step(t)
	}
}

// follow sets the clock to the server's, but never to before floor.
func (c *clock) follow(server, floor time.Time) {
	if server.Before(floor) {
		server = floor
	}
	if d := c.now().Sub(server); d > time.Second || d < -time.Second {
		c.step(server)
	}
}

func (c *clock) step(t time.Time) {
	from := c.now()
	var err error
	if c.set != nil {
		err = c.set(t)
	}
	c.mu.Lock()
	c.offset = t.Sub(c.read())
	if d := c.offset; c.set != nil && err == nil && d < time.Second && d > -time.Second {
		c.offset = 0
	}
	c.mu.Unlock()
	if err != nil {
		// The session needs no right clock; only the times of messages do, and the correction takes care of those.
		c.log.Warn("the machine's clock cannot be set", "to", t, "err", err)
		return
	}
	c.log.Info("clock set", "from", from, "to", t)
}

// backoff pauses between calls that did not work: doubling, and less up to half at random so that a rack does not knock in step.
type backoff struct {
	min, max, next time.Duration
}

func newBackoff(p Pace) *backoff { return &backoff{min: p.RetryMin, max: p.RetryMax} }

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, b.min), b.max)
	return sleep(ctx, b.next-rand.N(b.next/2+1))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
