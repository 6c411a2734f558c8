package reconcile

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// powerbook knows what each node draws, and so what is left of each budget. It is derived from the store alone: what runs holds what it draws, whoever
// began it and whoever died meanwhile. Only what was written since is read again, where the store tells.
type powerbook struct {
	mu      sync.Mutex
	at      fleet.Revision           // guarded by mu: everything up to here is known
	site    fleet.Site               // guarded by mu
	used    []int64                  // guarded by mu: of each of the site's budgets, in watts
	counted []int                    // guarded by mu: how many nodes draw from each
	nodes   map[fleet.NodeID]drawing // guarded by mu
}

// drawing is what one node draws.
type drawing struct {
	in    []int // the budgets that it counts in, by their place
	watts int64
	// more: its next step makes it draw more; since is from when on that could have started.
	more  bool
	since time.Time
}

// draws is what a machine draws now as far as the store knows, and what it would with the step of its operation that has not started yet. What may have been
// switched on counts, and so does what a tenant may load at any time.
func draws(n *fleet.Node, op *fleet.Operation, p fleet.ClassPower) (now, wants int64) {
	if n.Power != "off" {
		now = p.IdleWatts
		if n.Lease != "" {
			now = p.LoadWatts
		}
	}
	if op == nil || op.Current() < 0 {
		return now, 0
	}
	run := op.Steps[op.Current()]
	need, ok := powerNeed(run, n, p)
	switch {
	case !ok:
	case run.State == fleet.StepStarted, run.State == fleet.StepAsk, run.Name == step.PowerOn && run.Try > 0:
		now = max(now, need)
	case run.State == fleet.StepPending:
		wants = need
	}
	return now, wants
}

// holds is draws for a machine's own next step: that nobody knows whether it is on counts for the others, and is no room that it surely has.
func holds(n *fleet.Node, op *fleet.Operation, p fleet.ClassPower) (now, wants int64) {
	known := *n
	if known.Power == "" {
		known.Power = "off"
	}
	return draws(&known, op, p)
}

// powerNeed is what a machine draws from the start of a step on; false where that step makes it draw no more.
func powerNeed(run fleet.StepRun, n *fleet.Node, p fleet.ClassPower) (int64, bool) {
	switch run.Name {
	case step.PowerOn:
		if n.Lease != "" {
			return p.LoadWatts, true
		}
		return p.IdleWatts, true
	case step.BurnStage:
		var b step.BurnParams
		// One that cannot be read loads what it will.
		if json.Unmarshal(run.Params, &b) == nil && !slices.ContainsFunc(b.Stage.Stress, func(s string) bool { return s != fleet.StressNetwork }) {
			return 0, false
		}
		return p.LoadWatts, true
	}
	return 0, false
}

// readLocked brings the book up to a snapshot. It may know of later commits already: who takes from a budget by it has the epoch to be refused by.
func (b *powerbook) readLocked(s fleet.Snapshot) error {
	now := s.Revision()
	if b.nodes != nil && b.at >= now {
		return nil
	}
	changed, known := b.changedLocked(s)
	if !known {
		site, err := seen[fleet.Site](s, fleet.SiteKey)
		if err != nil {
			return err
		}
		b.site = fleet.Site{}
		if site != nil {
			b.site = *site
		}
		n := len(b.site.Power.Budgets)
		b.used, b.counted, b.nodes = make([]int64, n), make([]int, n), map[fleet.NodeID]drawing{}
		if changed = nil; n > 0 {
			err = s.Revisions(fleet.KindNode, func(k fleet.Key, _ fleet.Revision) bool {
				changed = append(changed, fleet.NodeID(k[len(fleet.KindNode)+1:]))
				return true
			})
		}
		if err != nil {
			b.nodes = nil
			return err
		}
	}
	for _, id := range changed {
		if err := b.takeLocked(s, id); err != nil {
			b.nodes = nil // the next one begins anew
			return err
		}
	}
	b.at = now
	return nil
}

// changedLocked lists the nodes that may draw otherwise since the book was read; false where it may be any.
func (b *powerbook) changedLocked(s fleet.Snapshot) ([]fleet.NodeID, bool) {
	feed, ok := s.(fleet.Feed)
	if !ok || b.nodes == nil {
		return nil, false
	}
	for _, kind := range []string{fleet.KindSite, fleet.KindClass} {
		if keys, ok := feed.Since(kind, b.at); !ok || len(keys) > 0 {
			return nil, false
		}
	}
	if len(b.used) == 0 {
		return nil, true
	}
	// A node's record changes whenever it gets an operation or loses it; what happens within one is told by the operation's.
	nodes, ok := feed.Since(fleet.KindNode, b.at)
	if !ok {
		return nil, false
	}
	operations, ok := feed.Since(fleet.KindOperation, b.at)
	if !ok {
		return nil, false
	}
	some := map[fleet.NodeID]bool{}
	for _, k := range nodes {
		some[fleet.NodeID(k[len(fleet.KindNode)+1:])] = true
	}
	for _, k := range operations {
		op, err := seen[fleet.Operation](s, k)
		if err != nil {
			return nil, false
		}
		if op != nil {
			some[op.Node] = true
		}
	}
	var out []fleet.NodeID
	for id := range some {
		out = append(out, id)
	}
	return out, true
}

// takeLocked takes over a node as it is in the snapshot.
func (b *powerbook) takeLocked(s fleet.Snapshot, id fleet.NodeID) error {
	b.enterLocked(b.nodes[id], -1)
	delete(b.nodes, id)
	n, err := seen[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
	if err != nil || n == nil {
		return err
	}
	var d drawing
	for i, x := range b.site.Power.Budgets {
		if x.Covers(*n) {
			d.in = append(d.in, i)
		}
	}
	if len(d.in) == 0 {
		return nil
	}
	var op *fleet.Operation
	if n.Operation != "" {
		if op, err = seen[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, n.Operation)); err != nil {
			return err
		}
	}
	var class fleet.Class
	if n.Class != "" {
		c, err := seen[fleet.Class](s, fleet.KeyOf(fleet.KindClass, n.Class))
		if err != nil {
			return err
		}
		if c != nil {
			class = *c
		}
	}
	power := b.site.PowerOf(class)
	d.watts, _ = draws(n, op, power)
	held, wants := holds(n, op, power)
	d.more = wants > held
	if op != nil {
		d.since = latest(op.CreatedAt, prevEnded(*op))
	}
	b.nodes[id] = d
	b.enterLocked(d, 1)
	return nil
}

func (b *powerbook) enterLocked(d drawing, sign int) {
	for _, i := range d.in {
		b.used[i] += int64(sign) * d.watts
		if d.watts > 0 {
			b.counted[i] += sign
		}
	}
}

// share is a budget that a node counts in, and what the others draw from it.
type share struct {
	budget fleet.PowerBudget
	others int64
	nodes  int
}

func (x share) left() int64 { return max(x.budget.Watts-x.others, 0) }

// shares are those of a node.
func (b *powerbook) shares(s fleet.Snapshot, id fleet.NodeID) ([]share, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.readLocked(s); err != nil {
		return nil, err
	}
	d := b.nodes[id]
	var out []share
	for _, i := range d.in {
		x := share{b.site.Power.Budgets[i], b.used[i] - d.watts, b.counted[i]}
		if d.watts > 0 {
			x.nodes--
		}
		out = append(out, x)
	}
	return out, nil
}

// status is what each budget has left, in the site's order, and the nodes whose next step would draw more, in the order in which they could have begun.
func (b *powerbook) status(s fleet.Snapshot) (budgets []api.BudgetDrawn, waiting []fleet.NodeID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.readLocked(s); err != nil {
		return nil, nil, err
	}
	budgets = make([]api.BudgetDrawn, len(b.used))
	for i, x := range b.site.Power.Budgets {
		budgets[i] = api.BudgetDrawn{Budget: x.Name(), Watts: x.Watts, DrawnWatts: b.used[i], Nodes: b.counted[i]}
	}
	for id, d := range b.nodes {
		if d.more {
			waiting = append(waiting, id)
		}
	}
	slices.SortFunc(waiting, func(x, y fleet.NodeID) int {
		return cmp.Or(b.nodes[x].since.Compare(b.nodes[y].since), cmp.Compare(x, y))
	})
	return budgets, waiting, nil
}
