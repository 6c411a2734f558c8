package witness

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Store is the store that is testified for.
type Store interface {
	fleet.Store
	LastEvent(context.Context) (int64, error)
	Identity(context.Context) (fleet.StoreIdentity, error)
}

// Follower writes a line for every boot generation, handover and erase that the store commits.
type Follower struct {
	Store Store
	Logs  []Log
	Now   func() time.Time
	Log   *slog.Logger

	told map[fleet.NodeID]told

	mu     sync.Mutex // guards behind
	behind []Behind
	// waiting are the lines that a log did not take yet, by the log's place in Logs.
	waiting map[int][]Line
}

// Behind is a log that does not take lines: how many wait for it since when, and why it took none at the last try.
type Behind struct {
	Log   string
	Lines int
	Since time.Time
	Err   error
}

// Behind lists the logs that do not take lines, in the order of Logs.
func (f *Follower) Behind() []Behind {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.behind)
}

// told is what was last said of a node.
type told struct {
	boots, handovers int64
	dirty            fleet.Dirty
}

// most is how many lines wait for a log that does not answer; older ones are dropped: a witness that lacks lines testifies less, and nothing wrong.
const most = 10_000

// Run follows the store until ctx ends. A log that does not take lines is tried again.
func (f *Follower) Run(ctx context.Context) error {
	f.told, f.waiting = map[fleet.NodeID]told{}, map[int][]Line{}
	if len(f.Logs) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, l := range f.Logs {
		// What was said before is not said again; a log that cannot be read, or is new, begins with what comes from now on.
		if err := l.Read(ctx, func(l Line) { f.remember(l) }); err != nil {
			f.Log.Debug("the witness cannot be read", "witness", l.String(), "err", err)
		}
	}
	retry := time.NewTicker(time.Minute)
	defer retry.Stop()
	// Before the look: what is committed between the two is then seen in one of them.
	after, err := f.Store.LastEvent(ctx)
	if lookErr := f.look(ctx, Start, nil); lookErr != nil && ctx.Err() == nil {
		f.Log.Error("the store cannot be read for its witness", "err", lookErr)
	}
	for ctx.Err() == nil {
		changed := f.Store.Changed()
		var events []fleet.Event
		if err == nil {
			events, err = f.Store.Events(ctx, after, 500)
		}
		if err != nil && ctx.Err() == nil {
			// What was dropped meanwhile is seen in the nodes' records.
			f.Log.Warn("events cannot be followed for the witness", "err", err)
			after, err = f.Store.LastEvent(ctx)
			if lookErr := f.look(ctx, "", nil); lookErr != nil && ctx.Err() == nil {
				f.Log.Error("the store cannot be read for its witness", "err", lookErr)
			}
		}
		touched := map[fleet.NodeID]bool{}
		for _, e := range events {
			after = e.ID
			if e.Node != "" {
				touched[e.Node] = true
			}
		}
		if len(touched) > 0 {
			if lookErr := f.look(ctx, "", touched); lookErr != nil && ctx.Err() == nil {
				f.Log.Error("the store cannot be read for its witness", "err", lookErr)
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-retry.C:
			f.send(ctx)
		}
	}
	return ctx.Err()
}

func (f *Follower) remember(l Line) {
	t := f.told[l.Node]
	if l.Node == "" || l.Boots < t.boots || l.Boots == t.boots && l.Handovers < t.handovers {
		return
	}
	t.boots, t.handovers, t.dirty = l.Boots, l.Handovers, fleet.Dirty(l.Lease)
	if l.Event == Clean {
		t.dirty = ""
	}
	f.told[l.Node] = t
}

// look compares nodes, all of them where only is nil, with what was last said of them and says what is new.
func (f *Follower) look(ctx context.Context, event string, only map[fleet.NodeID]bool) error {
	id, err := f.Store.Identity(ctx)
	if err != nil {
		return err
	}
	line := Line{At: f.Now().UTC().Truncate(time.Millisecond), Event: event, Epoch: id.Epoch(), Generation: id.Generation()}
	var lines []Line
	err = f.Store.View(ctx, func(s fleet.Snapshot) error {
		line.Revision, lines = s.Revision(), nil
		if event != "" {
			lines = append(lines, line)
		}
		nodes, err := nodesOf(s, only)
		for i := range nodes {
			if l, ok := f.news(line, &nodes[i]); ok {
				lines = append(lines, l)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, l := range lines {
		f.remember(l)
	}
	for i := range f.Logs {
		f.waiting[i] = append(f.waiting[i], lines...)
		f.waiting[i] = f.waiting[i][max(len(f.waiting[i])-most, 0):]
	}
	f.send(ctx)
	return nil
}

// nodesOf reads the nodes that are named, or all where only is nil. One that is gone is left out.
func nodesOf(s fleet.Snapshot, only map[fleet.NodeID]bool) ([]fleet.Node, error) {
	if only == nil {
		return fleet.List[fleet.Node](s, fleet.KindNode)
	}
	var out []fleet.Node
	for id := range only {
		n, _, err := fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
		switch {
		case err == nil:
			out = append(out, n)
		case fleet.KindOf(err) != fleet.NotFound:
			return nil, err
		}
	}
	return out, nil
}

// news is the line that is to be said of a node, if any.
func (f *Follower) news(l Line, n *fleet.Node) (Line, bool) {
	old := f.told[n.ID]
	l.Node, l.Name, l.Boots, l.Handovers = n.ID, n.Name, n.Boot.Generation, n.Handovers
	if n.Dirty != "" && n.Dirty != fleet.DirtyUnknown {
		l.Lease = fleet.LeaseID(n.Dirty)
	}
	switch {
	case n.Handovers > old.handovers:
		l.Event = Handover
	case n.Boot.Generation > old.boots:
		l.Event = Boot
	case old.dirty != "" && n.Dirty == "":
		l.Event = Clean
	default:
		return l, false
	}
	return l, true
}

func (f *Follower) send(ctx context.Context) {
	before := f.Behind()
	var behind []Behind
	for i, log := range f.Logs {
		if len(f.waiting[i]) == 0 {
			continue
		}
		err := log.Append(ctx, f.waiting[i])
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			f.waiting[i] = nil
			continue
		}
		f.Log.Error("the witness does not take lines", "witness", log.String(), "waiting", len(f.waiting[i]), "err", err)
		b := Behind{Log: log.String(), Lines: len(f.waiting[i]), Since: f.Now().UTC(), Err: err}
		if j := slices.IndexFunc(before, func(x Behind) bool { return x.Log == b.Log }); j >= 0 {
			b.Since = before[j].Since
		}
		behind = append(behind, b)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.behind = behind
}
