package reconcile_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
)

// talker is a console in memory.
type talker struct {
	mu   sync.Mutex // guards said
	said []reconcile.ConsoleLine
}

func (c *talker) say(lines ...reconcile.ConsoleLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, lines...)
}

func (c *talker) ConsoleLines(_ context.Context, _ fleet.NodeID, after int64) ([]reconcile.ConsoleLine, int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]reconcile.ConsoleLine(nil), c.said[after+1:]...), int64(len(c.said)) - 1, nil
}

// noAgents is a link over which no agent was ever heard.
type noAgents struct{}

func (noAgents) Up(fleet.NodeID, int64) (bool, time.Time) { return false, time.Time{} }
func (noAgents) Wake(fleet.NodeID)                        {}

// TestLostBootEndsEarly: a kernel that died on the console is not waited for until the step's limit, and what the machine said before is another boot's.
func TestLostBootEndsEarly(t *testing.T) {
	for name, c := range map[string]struct {
		restarted bool // the process that marked the console's end is gone
		before    reconcile.ConsoleLine
		after     []reconcile.ConsoleLine
		want      []string
	}{
		"lines without a time": {before: reconcile.ConsoleLine{Text: "an older boot"},
			after: []reconcile.ConsoleLine{{Text: "Linux version 6.1"}, {Text: "Kernel panic - not syncing"}}, want: []string{"Linux version 6.1", "Kernel panic - not syncing"}},
		"after a restart only lines of this boot's time": {restarted: true, before: reconcile.ConsoleLine{At: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC), Text: "an older boot"},
			after: []reconcile.ConsoleLine{{Text: "some time"}, {At: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Text: "Kernel panic - not syncing"}}, want: []string{"Kernel panic - not syncing"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := contract.NewWorld(t)
			console := &talker{}
			console.say(c.before)
			l := reconcile.New(&reconcile.Loop{Store: w.Store, Blobs: w.Store, Timeline: w.Store, Funcs: w.Machine.Funcs(), Agents: noAgents{}, Console: console,
				Tick: time.Millisecond, ConsoleTick: time.Millisecond})
			call := step.Call{Node: w.Node, Progress: func(string, int64, int64) {}}
			insert := l.Funcs[step.MediaInsert]
			if c.restarted {
				insert = w.Machine.Funcs()[step.MediaInsert]
			}
			if _, err := insert(t.Context(), call); err != nil {
				t.Fatal(err)
			}
			n, _ := w.Read()
			w.Store.AppendTimeline(w.Node, fleet.TimelineEntry{At: time.Now(), Source: "media", Generation: n.Boot.Generation, Length: 1 << 30})
			console.say(c.after...)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			_, err := l.Funcs[step.AwaitAgent](ctx, call)
			if fleet.CodeOf(err) != "MC-BOOT-KERNEL" {
				t.Fatal(err)
			}
			entries, err := w.Store.ReadTimeline(t.Context(), w.Node, time.Time{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				if e.Source == "serial" {
					got = append(got, e.Text)
				}
			}
			if d := cmp.Diff(got, c.want); d != "" {
				t.Error(d)
			}
		})
	}
}
