package burn

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// load runs the stage's stressors side by side until the stage's time is over, all have returned, or the load was stopped.
func (r *run) load(ctx, loaded context.Context) {
	length := time.Duration(r.stage.Seconds) * time.Second
	limit := length / time.Duration(r.m.Speed)
	running, end := context.WithCancel(loaded)
	defer end()
	done := make(chan string, len(r.stage.Stress))
	out := map[string]bool{}
	for _, name := range r.stage.Stress {
		f := r.m.Stressors[name]
		if f == nil {
			r.sink.Untold(fleet.Untold{Check: name, Component: "node", Cause: "no-tool", Words: "this agent has nothing that does it"})
			continue
		}
		out[name] = true
		go func() {
			r.one(running, name, f, Load{Stress: name, For: length, Speed: r.m.Speed, Round: r.round, Before: r.part.Before}.bounded())
			done <- name
		}()
	}
	r.samples.under(r.now(), slices.Collect(maps.Keys(out)))
	began := r.now()
	var over <-chan time.Time
	if len(out) > 0 || len(r.stage.Stress) == 0 {
		over = r.m.after("stage", limit)
	}
	if length == 0 {
		over = nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	// A stage without stressors lasts its time, too, as does one of a machine that is not there: its samples are to be those of the whole time.
	waits, late := len(r.stage.Stress) == 0 || len(out) > 0 && r.m.Speed > 1, false
	for len(out) > 0 || waits && over != nil {
		r.tell(r.doing(), int64(min(r.now().Sub(began), length)/time.Second), int64(r.stage.Seconds))
		select {
		case name := <-done:
			delete(out, name)
			continue
		case <-tick.C:
			continue
		case <-over:
			if len(out) > 0 && r.m.Speed > 1 && !late {
				over, waits, late = r.m.after("overtime", overtime), false, true
				continue
			}
		case <-loaded.Done():
		}
		break
	}
	end()
	r.samples.over()
	r.letGo(ctx, out, done)
}

// bounded is a load of a machine that is not there: a few passes find what is wrong with it.
func (l Load) bounded() Load {
	if l.Speed > 1 {
		l.Passes, l.Bytes = 2*seeds+2, 16<<20
	}
	return l
}

// letGo waits for the stressors that are still to return.
func (r *run) letGo(ctx context.Context, out map[string]bool, done <-chan string) {
	late := r.m.after("tidy", tidyUp)
	aborted, soon := ctx.Done(), (<-chan time.Time)(nil)
	for len(out) > 0 {
		select {
		case name := <-done:
			delete(out, name)
			continue
		case <-aborted:
			aborted, soon = nil, r.m.after("letgo", letGo)
			continue
		case <-soon:
		case <-late:
		}
		for name := range out {
			r.sink.Untold(fleet.Untold{Check: name, Component: "node", Cause: "hung", Words: "it did not stop when it was told to, and was left behind"})
		}
		return
	}
}

// one runs a stressor; what goes wrong with it is told, and is no end of the others.
func (r *run) one(ctx context.Context, name string, f Func, l Load) {
	err := fleet.Catch(func() error { return f(ctx, l, r.sink) })
	if err == nil || ctx.Err() != nil && causeOf(err) == "aborted" {
		return
	}
	r.sink.Untold(fleet.Untold{Check: name, Component: "node", Cause: causeOf(err), Words: err.Error()})
}

// doing says what runs, for a progress bar.
func (r *run) doing() string {
	if w := r.sink.words(r.stage.Stress); w != "" {
		return w
	}
	return fmt.Sprintf("%s: %s", r.stage.Name, strings.Join(r.stage.Stress, ", "))
}
