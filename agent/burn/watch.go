package burn

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/agent/kmsg"
	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// period is how often values are sampled and the kernel's log is looked at, in the machine's time; by the clock at most ten times a second.
const period = time.Second

func (r *run) period() time.Duration {
	return max(period/time.Duration(r.m.Speed), 100*time.Millisecond)
}

// follower follows one log of the kernel.
type follower struct {
	path string

	mu       sync.Mutex // guards what follows
	log      *kmsg.Log
	findings kmsg.Findings
	next     uint64 // number of the record that comes next; 0 is not known
	lost     uint64
	err      error
}

// openLogs begins to follow the kernel's logs: what they hold already belongs to the time before.
func (r *run) openLogs(ctx context.Context) {
	for _, path := range r.m.Logs {
		f := &follower{path: path, findings: kmsg.Findings{Boot: r.bootTime()}}
		if f.log, f.err = kmsg.Open(path); f.err == nil {
			f.err = f.log.Skip(ctx)
		}
		r.logs = append(r.logs, f)
	}
}

func (r *run) closeLogs() {
	for _, f := range r.logs {
		f.mu.Lock()
		if f.log != nil {
			_ = f.log.Close() // it was only read
		}
		f.err = fs.ErrClosed // whoever was left behind reads no more
		f.mu.Unlock()
	}
}

// bootTime is when the kernel started, to the second; zero where nobody tells.
func (r *run) bootTime() time.Time {
	up, _, _ := strings.Cut(r.m.Files.Try("proc/uptime"), " ")
	seconds, err := strconv.ParseFloat(up, 64)
	if err != nil || seconds < 0 || seconds > 1e10 {
		return time.Time{}
	}
	return r.began.Add(-time.Duration(seconds * float64(time.Second))).Truncate(time.Second)
}

// look reads what is new, and returns the finding after which a load is of no use, if there is one.
func (f *follower) look(ctx context.Context) (fatal *fleet.KernelFinding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil
	}
	err := f.log.Each(ctx, func(record string) {
		k, ok := kmsg.Parse(record)
		if !ok {
			return
		}
		if f.next != 0 && k.Sequence > f.next {
			f.lost += k.Sequence - f.next
		}
		f.next = k.Sequence + 1
		if f.findings.Add(k) && fatal == nil {
			if found, ok := kmsg.Find(k.Text); ok && stops(found) {
				found.Line = k.Text
				fatal = &found
			}
		}
	})
	if ctx.Err() == nil {
		f.err = err
	}
	return fatal
}

// list returns what was found, with the parts' own names.
func (f *follower) list(r *run) []fleet.KernelFinding {
	f.look(context.Background()) // what came since, while the machine was read; it never waits
	f.mu.Lock()
	defer f.mu.Unlock()
	tell := func(cause, words string) {
		r.sink.Untold(fleet.Untold{Check: "kernel-log", Component: "node", Cause: cause, Words: words})
	}
	if f.err != nil {
		tell("other", fmt.Sprintf("%s could not be followed: %v", f.path, f.err))
	}
	if f.lost > 0 {
		tell("other", fmt.Sprintf("%s has lost %d records before they were read", f.path, f.lost))
	}
	found := f.findings.List()
	for i := range found {
		found[i].Component = r.component(found[i].Component)
	}
	return found
}

// component is a part's own name.
func (r *run) component(c string) string {
	inv := r.part.Before
	if inv == nil {
		inv = &fleet.Inventory{}
	}
	return kmsg.Component(inv, c, func(thread string) (int64, bool) {
		n, err := r.m.Files.Number("sys/devices/system/cpu/cpu"+thread, "topology/physical_package_id")
		return n, err == nil && n >= 0
	})
}

// stopXIDs are those after which a GPU does nothing more until it is reset: it left the bus, its memory is not contained, or its firmware does not answer.
var stopXIDs = []int{79, 95, 119, 120}

// stops reports whether a load is of no use after a finding. What the finding means is judged elsewhere.
func stops(f fleet.KernelFinding) bool {
	return f.Severity == "fatal" || f.Kind == kmsg.XID && slices.Contains(stopXIDs, f.Code)
}

// watch samples and follows until ctx ends; the channel is closed when all that was started has returned.
func (r *run) watch(ctx context.Context) <-chan struct{} {
	var all sync.WaitGroup
	for _, f := range r.logs {
		all.Go(func() {
			r.each(ctx, "kernel-log", func() error {
				if fatal := f.look(ctx); fatal != nil {
					r.sink.stop(&stopped{fmt.Sprintf("%s: %s: %s", fleet.StoppedKernel, r.component(fatal.Component), fatal.Line)})
				}
				return nil
			})
		})
	}
	for _, s := range r.samplers() {
		all.Go(func() {
			r.each(ctx, "samples "+s.Name, func() error {
				got, err := s.Read(ctx)
				if ctx.Err() == nil || err == nil {
					r.samples.add(r.now(), got)
				}
				return err
			})
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	return done
}

// samplers are those that were handed in, and the kernel's attributes.
func (r *run) samplers() []Sampler {
	out := slices.Clone(r.m.Samplers)
	for _, files := range []sysfs.Tree{r.m.Files, r.m.Simulated} {
		if files != (sysfs.Tree{}) {
			out = append(out, Sampler{"kernel", newMeters(files, r.part.Before).read})
		}
	}
	return out
}

// each calls f now and then once a period until ctx ends. One that panics is not called again; an error is told once.
func (r *run) each(ctx context.Context, what string, f func() error) {
	tick := time.NewTicker(r.period())
	defer tick.Stop()
	told := false
	for {
		err := fleet.Catch(f)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !told {
			told = true
			r.sink.Untold(fleet.Untold{Check: what, Component: "node", Cause: causeOf(err), Words: err.Error()})
		}
		if causeOf(err) == "crashed" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// settle waits for the watchers, and leaves one behind that is stuck in the kernel or in somebody's library.
func (r *run) settle(watched <-chan struct{}) {
	select {
	case <-watched:
	case <-r.m.after("settle", letGo/2):
		r.sink.Untold(fleet.Untold{Check: "samples", Component: "node", Cause: "hung", Words: "a reader of samples did not come back, and was left behind"})
	}
}
