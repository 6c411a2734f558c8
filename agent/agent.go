// Package agent is the ramdisk's side of metalctl: it says who the machine is, takes one step at a time from the server, does it and reports it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// Identity is what a machine says of itself at first contact; the server compares it with the enrolled one.
type Identity struct {
	UUID   string
	Serial string
	MACs   []fleet.MAC
	Boot   api.AgentBootInfo
}

// Config is all that an agent needs. Credential and Home are required.
type Config struct {
	Credential fleet.Credential
	Identity   Identity
	// Home is what the steps know of the server; Run fills it in.
	Home *Home
	// Uptime says how many seconds ago the kernel started, for each registration afresh; nil: as Identity says.
	Uptime func() float64
	// Funcs does the steps, by their names in the catalogue.
	Funcs step.Funcs
	// Log may be nil. It must not be built on Home.Handler alone: what cannot be sent would be lost.
	Log *slog.Logger
	// Now reads the machine's clock; nil means time.Now.
	Now func() time.Time
	// Clock sets the machine's clock, at registration; nil where the agent must not (a process beside others): then its messages carry corrected times.
	Clock func(time.Time) error
	// OnRegistered is told the server's answer, once; may be nil.
	OnRegistered func(api.Registered)
	// PowerOff switches the machine off, after the result of agent-shutdown has reached the server; nil: Run only ends.
	PowerOff func(context.Context) error
	// Dial connects to servers; nil means a net.Dialer.
	Dial Dial
	// Pace says how long the agent waits; zero fields mean the defaults.
	Pace Pace
}

// Pace is how long the agent waits for what.
type Pace struct {
	// RetryMin and RetryMax bound the pause after a call that did not work: 500 ms doubling to 30 s, less up to half at random.
	RetryMin, RetryMax time.Duration
	// Call is the deadline of one call: 30 s. Poll is how long the server may hold a poll: 25 s.
	Call, Poll time.Duration
	// Progress is the pause between two progress messages: 1 s.
	Progress time.Duration
	// Stop is how long a step may take to end after its limit or an abort, before it counts as stuck: 1 min.
	Stop time.Duration
	// Silence is for how long no server may have answered while the machine is under load: then the load ends. 1 min.
	Silence time.Duration
	// Farewell is how long the last report may take before the machine is switched off: 5 s.
	Farewell time.Duration
}

func (p Pace) withDefaults() Pace {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&p.RetryMin, 500*time.Millisecond)
	set(&p.RetryMax, 30*time.Second)
	set(&p.Call, 30*time.Second)
	set(&p.Poll, 25*time.Second)
	set(&p.Progress, time.Second)
	set(&p.Stop, time.Minute)
	set(&p.Silence, time.Minute)
	set(&p.Farewell, 5*time.Second)
	return p
}

// errPoweredOff ends the group of Run after agent-shutdown.
var errPoweredOff = errors.New("the machine was asked to power off")

// Run registers with the first server that answers and does what it asks until ctx ends, the machine powers off (nil), or the server says that this
// boot's session is over: then the error is of kind Denied (not our machine, token spent by another key) or Conflict (a newer boot generation), and
// nothing is tried again. Servers that do not answer are tried for as long as ctx lasts.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Home == nil {
		return errors.New("agent: Config.Home is nil")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	anonymous := cfg.Log
	cfg.Log = anonymous.With(fleet.LogNode, cfg.Credential.Node)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Pace = cfg.Pace.withDefaults()
	clock := &clock{read: cfg.Now, set: cfg.Clock, log: cfg.Log}
	clock.atLeast(cfg.Credential.IssuedAt)

	c, err := newClient(cfg)
	if err != nil {
		return err
	}
	defer c.close()
	reg, err := c.register(ctx)
	if err != nil {
		return err
	}
	clock.follow(reg.Now, cfg.Credential.IssuedAt)
	// From here on by the name that people use.
	cfg.Log = anonymous.With(fleet.LogNode, reg.Name)
	c.cfg.Log, clock.log = cfg.Log, cfg.Log
	ctx = fleet.WithLog(ctx, slog.String(fleet.LogNode, reg.Name))
	cfg.Log.Info("registered", "server", c.server().ref.URL, "generation", cfg.Credential.Generation)
	cfg.Home.begin(c, clock)
	if cfg.OnRegistered != nil {
		cfg.OnRegistered(reg)
	}

	w := newWorker(cfg, clock)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(cfg.keep(gctx, "delivering results", func() error { return w.deliver(gctx, c) }))
	group.Go(cfg.keep(gctx, "sending progress", func() error { return w.sendProgress(gctx, c) }))
	group.Go(cfg.keep(gctx, "sending reports", func() error { return cfg.Home.sendReports(gctx, c, cfg) }))
	group.Go(cfg.keep(gctx, "taking tasks", func() error { return takeTasks(gctx, c, w, cfg) }))
	err = group.Wait()
	w.stop()
	if !errors.Is(err, errPoweredOff) {
		return err
	}
	cfg.Log.Info("powering off")
	cfg.Home.flush(ctx, c, cfg)
	if cfg.PowerOff == nil {
		return nil
	}
	if err := cfg.PowerOff(ctx); err != nil {
		return fmt.Errorf("power off: %w", err)
	}
	return nil
}

// takeTasks long-polls for tasks and hands them to the worker.
func takeTasks(ctx context.Context, c *client, w *worker, cfg Config) error {
	pause := newBackoff(cfg.Pace)
	for {
		task, err := c.poll(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case isOver(err):
			return err
		case err != nil:
			cfg.Log.Warn("no task from the server", "err", err)
			if err := pause.wait(ctx); err != nil {
				return err
			}
			continue
		}
		pause.reset()
		if task == nil {
			continue
		}
		if repeat := w.offer(*task); repeat {
			// A server that repeats at once what is being done must not be asked again at once.
			if err := sleep(ctx, cfg.Pace.Progress); err != nil {
				return err
			}
		}
	}
}
