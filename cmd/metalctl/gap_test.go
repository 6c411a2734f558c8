//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/agent"
	"github.com/metalctl/metalctl/fixtures/rack"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// TestRestartGap stops the server within every step that runs on a machine, for longer than the machine's agent waits for anything: by SIGKILL before the step
// does anything, so that the step meets a server that is not there, and by SIGTERM once it has done everything, so that its result waits. Besides the
// commands of TestScripts there are:
//
//	gap-server          starts a server as a process of its own
//	gap-rack            starts a rack with one machine n1, whose agent has no patience
//	gaps-until STATE    waits for the state of n1; until then, each step that is new to this test has its gaps
//	no-gap-seen         wants every in-band step of the catalogue to have had its gaps, and nothing to be seen of them in any journal or event
func TestRestartGap(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: two gaps in each step")
	}
	p := scriptParams(t, "testdata/gap")
	p.Cmds["gap-server"], p.Cmds["gap-rack"], p.Cmds["gaps-until"], p.Cmds["no-gap-seen"] = scriptGapServer, scriptGapRack, scriptGapsUntil, scriptNoGapSeen
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Values[gapsKey{}] = &gaps{had: map[string]bool{}, done: map[gapTask]int{}, cue: make(chan struct{})}
		return setup(e)
	}
	testscript.Run(t, p)
}

// gapPatience bounds how long the test waits for what must come.
const gapPatience = 5 * time.Minute

// gapPace is the agent's: what it waits for in vain is over soon. missesOfAGap polls that found no server last longer than each of its pauses, and than a poll.
var gapPace = agent.Pace{RetryMin: 20 * time.Millisecond, RetryMax: 100 * time.Millisecond, Poll: 300 * time.Millisecond, Progress: 100 * time.Millisecond}

const missesOfAGap = 8

// gapsKey is where a script's gaps are.
type gapsKey struct{}

// gapTask is one try of one step.
type gapTask struct {
	operation  fleet.OperationID
	index, try int
	name       string
}

// gaps are a server that comes and goes, and what the steps noticed of it.
type gaps struct {
	self, listen, medium, data string
	cmd                        *exec.Cmd
	out                        *said
	client                     *api.Client

	mu     sync.Mutex
	had    map[string]bool // guarded by mu: steps that had their gaps
	done   map[gapTask]int // guarded by mu: how often each was done
	cue    chan struct{}   // guarded by mu: closed while the script waits, so that no command of its is cut off
	misses chan struct{}   // guarded by mu: nil, or one for each poll that found no server
}

// reserve returns an address of the loopback that is this test's until it ends: a socket that is bound and never listens keeps others from the port, even from
// using it at the far end of a connection, while the server is away.
func reserve(ts *testscript.TestScript) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	ts.Check(err)
	ts.Defer(func() { _ = unix.Close(fd) })
	ts.Check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	ts.Check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := unix.Getsockname(fd)
	ts.Check(err)
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

func scriptGapServer(ts *testscript.TestScript, neg bool, args []string) {
	g := ts.Value(gapsKey{}).(*gaps)
	self, err := exec.LookPath("metalctl")
	ts.Check(err)
	g.self, g.listen, g.medium, g.data = self, reserve(ts), ts.Getenv("MEDIUM"), ts.MkAbs("data")
	ts.Check(g.start())
	ts.Defer(func() {
		if err := g.stop(syscall.SIGTERM); err != nil {
			ts.Logf("the server ended: %v", err)
		}
	})
	m := serverLine.FindStringSubmatch(g.out.String())
	ts.Setenv("METALCTL_SERVER", m[1])
	ts.Setenv("METALCTL_TOKEN_FILE", m[2])
	ts.Setenv("METALCTL_CACERT", m[3])
	token, err := os.ReadFile(m[2])
	ts.Check(err)
	ca, err := os.ReadFile(m[3])
	ts.Check(err)
	g.client, err = api.NewClient(api.Config{Server: m[1], Token: fleet.NewSecret(strings.TrimSpace(string(token))), CACert: ca})
	ts.Check(err)
	ts.Defer(g.client.Close)
}

// start starts a server on the data of the one before, and returns when it listens.
func (g *gaps) start() error {
	out := &said{wake: make(chan struct{}, 1)}
	cmd := exec.Command(g.self, "server", "--listen", g.listen, "--data-dir", g.data, "--ramdisk", g.medium)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	g.cmd, g.out = cmd, out
	over := time.NewTimer(gapPatience)
	defer over.Stop()
	for !serverLine.MatchString(out.String()) {
		select {
		case <-out.wake:
		case <-over.C:
			return fmt.Errorf("the server did not start: %s", out)
		}
	}
	return nil
}

// stop ends the server and waits until it is gone.
func (g *gaps) stop(how syscall.Signal) error {
	if err := g.cmd.Process.Signal(how); err != nil {
		return err
	}
	err := g.cmd.Wait()
	if how == syscall.SIGKILL {
		return nil
	}
	return err
}

func scriptGapRack(ts *testscript.TestScript, neg bool, args []string) {
	g := ts.Value(gapsKey{}).(*gaps)
	lab := rack.Lab{Machines: []rack.MachineSpec{{Name: "n1", Disks: []rack.DiskSpec{{SizeBytes: 256 << 20}}}}}
	r, err := rack.Up(context.Background(), lab, rack.Options{Dir: ts.MkAbs("rack"), Plain: true, Log: slog.New(slog.DiscardHandler), Agent: g.agent})
	ts.Check(err)
	ts.Defer(func() { ts.Check(r.Down(context.Background())) })
}

// agent is the agent of one boot of the rack's machine.
func (g *gaps) agent(ctx context.Context, p rack.Process) error {
	description, err := json.Marshal(p.Spec)
	if err != nil {
		return err
	}
	spec, err := readProcessSpec(bytes.NewReader(description))
	if err != nil {
		return err
	}
	cfg, err := spec.agent(gapLog{slog.NewTextHandler(p.Console, nil), g})
	if err != nil {
		return err
	}
	cfg.Pace = gapPace
	for name, f := range cfg.Funcs {
		cfg.Funcs[name] = g.within(f)
	}
	return agent.Run(ctx, cfg)
}

// gapLog hears of each poll that found no server.
type gapLog struct {
	slog.Handler
	g *gaps
}

func (l gapLog) WithAttrs(a []slog.Attr) slog.Handler { return gapLog{l.Handler.WithAttrs(a), l.g} }
func (l gapLog) WithGroup(name string) slog.Handler   { return gapLog{l.Handler.WithGroup(name), l.g} }

func (l gapLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "no task from the server" {
		l.g.mu.Lock()
		if l.g.misses != nil {
			select {
			case l.g.misses <- struct{}{}:
			default:
			}
		}
		l.g.mu.Unlock()
	}
	return l.Handler.Handle(ctx, r)
}

// within is a step with a gap before it acts and one after it has.
func (g *gaps) within(f step.Func) step.Func {
	return func(ctx context.Context, c step.Call) (step.Outcome, error) {
		g.mu.Lock()
		first, cue := !g.had[c.Step], g.cue
		g.had[c.Step] = true
		g.done[gapTask{c.Operation, c.Index, c.Try, c.Step}]++
		g.mu.Unlock()
		if !first {
			return f(ctx, c)
		}
		select {
		case <-cue:
		case <-ctx.Done():
			return step.Outcome{}, ctx.Err()
		}
		type ending struct {
			out step.Outcome
			err error
		}
		ended := make(chan ending, 1)
		back := make(chan error, 1)
		go func() {
			back <- g.gap(ctx, syscall.SIGKILL, func() { out, err := f(ctx, c); ended <- ending{out, err} })
		}()
		err := <-back
		e := <-ended
		if err == nil && e.err == nil {
			err = g.gap(ctx, syscall.SIGTERM, func() {})
		}
		if err != nil {
			return step.Outcome{}, fleet.Errorf(fleet.Broken, "MC-TEST-GAP", "the gap: %w", err)
		}
		return e.out, e.err
	}
}

// gap ends the server, begins during, and starts a server once the agent has looked for one in vain for long enough.
func (g *gaps) gap(ctx context.Context, how syscall.Signal, during func()) error {
	misses := make(chan struct{}, missesOfAGap)
	stopped := g.stop(how)
	g.mu.Lock()
	g.misses = misses
	g.mu.Unlock()
	go during()
	over := time.NewTimer(gapPatience)
	defer over.Stop()
	for range missesOfAGap {
		select {
		case <-misses:
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return fmt.Errorf("the agent does not look for its server any more")
		}
	}
	g.mu.Lock()
	g.misses = nil
	g.mu.Unlock()
	if stopped != nil {
		return fmt.Errorf("the server ended badly: %w: %s", stopped, g.out)
	}
	return g.start()
}

func scriptGapsUntil(ts *testscript.TestScript, neg bool, args []string) {
	g := ts.Value(gapsKey{}).(*gaps)
	g.mu.Lock()
	close(g.cue)
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), gapPatience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := g.client.Node(ctx, "n1")
		if err == nil && n.State == fleet.State(args[0]) && n.Operation == "" {
			break
		}
		if err == nil && len(n.Faults) > 0 {
			ts.Fatalf("a gap was noticed: %+v", n.Faults)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("n1 did not become %s: it is %s (%v)", args[0], n.State, err)
		}
	}
	g.mu.Lock()
	g.cue = make(chan struct{})
	g.mu.Unlock()
}

func scriptNoGapSeen(ts *testscript.TestScript, neg bool, args []string) {
	g := ts.Value(gapsKey{}).(*gaps)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range step.Catalogue {
		if s.Name == step.CleanGPUs || s.Name == step.RestoreNS {
			continue // they need a machine with GPUs, or with NVMe drives, which no agent in this process can have
		}
		if s.Name == step.ProbeWires {
			continue // what a canary has heard ends with its server, so that this step is done once more
		}
		if s.Side == step.InBand && !g.had[s.Name] {
			ts.Fatalf("no server was away while %s ran: give a plan of the script the step", s.Name)
		}
	}
	for task, times := range g.done {
		if times != 1 || task.try != 1 {
			ts.Fatalf("%s of operation %s, step %d, was done %d times at try %d", task.name, task.operation, task.index, times, task.try)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), gapPatience)
	defer cancel()
	ops, err := g.client.Operations(ctx, api.ListOptions{})
	ts.Check(err)
	if len(ops.Items) != 4 {
		ts.Fatalf("there are %d operations, want those that inspect, clean, burn in and deploy", len(ops.Items))
	}
	for _, op := range ops.Items {
		for _, r := range op.Steps {
			if op.State != fleet.OperationDone || r.Try != 1 || r.Error != nil {
				ts.Fatalf("%s is %s, and %s is %s at try %d: %+v", op.Use, op.State, r.Name, r.State, r.Try, r.Error)
			}
		}
	}
	events, err := g.client.EventsSince(ctx, 0, 10000)
	ts.Check(err)
	if i := slices.IndexFunc(events, func(e fleet.Event) bool { return strings.Contains(e.Type, "fault") }); i >= 0 {
		ts.Fatalf("a gap was noticed: %+v", events[i])
	}
}
