package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// errGone: the node does not exist (any more).
var errGone = errors.New("the node is gone")

// doc is a record that may be changed and written back under the revision it was read at.
type doc[T any] struct {
	key    fleet.Key
	rev    fleet.Revision
	before []byte
	v      *T
	drop   bool // delete it
	// fit encodes v, and may shorten it first; nil: as it is.
	fit func() (json.RawMessage, error)
}

func load[T any](s fleet.Snapshot, key fleet.Key) (doc[T], error) {
	k, ok, err := fleet.Peek[T](s, key)
	if err != nil {
		return doc[T]{key: key}, err
	}
	if ok {
		return doc[T]{key: key, rev: k.Revision, v: k.Value.Keep().(*T), before: k.Data}, nil
	}
	r, err := s.Get(key)
	if err != nil {
		return doc[T]{key: key}, err
	}
	d := doc[T]{key: key, rev: r.Revision, v: new(T)}
	if err := json.Unmarshal(r.Data, d.v); err != nil {
		return d, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", key, err)
	}
	// What the store keeps is what it made of such a value: nothing has to be encoded to see whether it has become another.
	d.before = bytes.Clone(r.Data)
	return d, nil
}

// maybe is load where nothing there is nil and no error.
func maybe[T any](s fleet.Snapshot, key fleet.Key) (doc[T], error) {
	d, err := load[T](s, key)
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		return doc[T]{key: key}, nil
	}
	return d, err
}

// put adds the record to a change where it differs from what was read.
func (d doc[T]) put(c *fleet.Change) error {
	if d.v == nil {
		return nil
	}
	if d.drop {
		c.If = append(c.If, fleet.Precondition{Key: d.key, Revision: d.rev})
		c.Writes = append(c.Writes, fleet.Write{Key: d.key})
		return nil
	}
	encode := d.fit
	if encode == nil {
		encode = func() (json.RawMessage, error) { return json.Marshal(d.v) }
	}
	after, err := encode()
	if err != nil {
		return fmt.Errorf("encode record %s: %w", d.key, err)
	}
	if d.before != nil && bytes.Equal(d.before, after) {
		return nil
	}
	c.If = append(c.If, fleet.Precondition{Key: d.key, Revision: d.rev})
	c.Writes = append(c.Writes, fleet.Write{Key: d.key, Value: d.v, Encoded: after})
	return nil
}

// seen is what there is under key, to be looked at and not changed; nil where there is nothing.
func seen[T any](s fleet.Snapshot, key fleet.Key) (*T, error) {
	k, ok, err := fleet.Peek[T](s, key)
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if ok {
		return any(k.Value).(*T), nil
	}
	d, err := maybe[T](s, key)
	return d.v, err
}

// view is everything about one node at one revision, and what a move makes of it.
type view struct {
	now time.Time
	// sure is the time that has passed for certain, and late the later of the clocks: ends are judged by the one and counted from the other.
	sure, late time.Time

	node doc[fleet.Node]
	op   doc[fleet.Operation] // the node's operation
	last *fleet.Operation     // the newest that has ended; only looked at
	// burned is the newest plan run that burned the node in, where that is not the one that runs now; only looked at.
	burned *fleet.Operation
	lease  doc[fleet.Lease]
	// owner is the lease whose data the node holds while it is cleaned, where there is one.
	owner    doc[fleet.Lease]
	claim    doc[Claim]
	class    fleet.Class
	site     fleet.Site
	packs    []fleet.Pack        // all there are, where the class wants any
	profiles []fleet.BurnProfile // all there are
	// frozen is the freeze that covers the node, or nil.
	frozen *fleet.Freeze
	// book is the fence's, where the change may do harm; else nil.
	book  *book
	image *fleet.Image
	// room is what budgets leave the node, nil where none bounds it; stop is what keeps load from it, or nil.
	room *room
	stop *fleet.LoadStop
	// held is what the machine drew by what was read, in watts.
	held int64
	// canary: packets can show where the node's ports are.
	canary bool
	// network is the one that the member has addresses of, nil where it has none.
	network *fleet.Network

	// keepAgent is how long an agent is left up after its plan was given up.
	keepAgent time.Duration
	// cleaned names the record of the node's operation, where that cleans.
	cleaned cleaned
	// steps are those that events tell of, by the event's index.
	steps map[int]fleet.StepRun

	dropped  bool // the node's record goes
	pinLease bool // the move must not overtake a change of the lease
	writes   []fleet.Write
	events   []fleet.Event
}

func (l *Loop) read(s fleet.Snapshot, id fleet.NodeID) (*view, error) {
	if err := l.anchor(s); err != nil {
		return nil, err
	}
	v := &view{keepAgent: l.KeepAgent, now: l.Now().UTC(), sure: l.sure(), late: l.clock.later(l.Now(), l.Mono()).UTC()}
	var err error
	if v.node, err = load[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id)); err != nil {
		if fleet.KindOf(err) == fleet.NotFound {
			return nil, fleet.Errorf(fleet.NotFound, "MC-NODE-UNKNOWN", "there is no node %s: %w", id, errGone).WithHint("metalctl node list")
		}
		return nil, err
	}
	n := v.node.v
	if n.Operation != "" {
		if v.op, err = load[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, n.Operation)); err != nil {
			return nil, err
		}
	}
	if n.LastOperation != "" {
		if v.last, err = seen[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, n.LastOperation)); err != nil {
			return nil, err
		}
	}
	if n.BurnIn != "" && v.op.v != nil && v.op.v.Use == string(step.Burn) {
		if v.burned, err = seen[fleet.Operation](s, fleet.KeyOf(fleet.KindOperation, n.BurnIn)); err != nil {
			return nil, err
		}
	}
	if n.Lease != "" {
		if v.lease, err = maybe[fleet.Lease](s, fleet.KeyOf(fleet.KindLease, n.Lease)); err != nil {
			return nil, err
		}
	}
	if id := fleet.LeaseID(n.Dirty); n.State == fleet.Cleaning && id != "" && id != n.Lease && n.Dirty != fleet.DirtyUnknown {
		if v.owner, err = maybe[fleet.Lease](s, fleet.KeyOf(fleet.KindLease, id)); err != nil {
			return nil, err
		}
	}
	if n.Class != "" {
		class, err := seen[fleet.Class](s, fleet.KeyOf(fleet.KindClass, n.Class))
		if err != nil {
			return nil, err
		}
		if class != nil {
			v.class = *class
		}
		if len(v.class.Packs) > 0 {
			if v.packs, err = fleet.List[fleet.Pack](s, fleet.KindPack); err != nil {
				return nil, err
			}
		}
	}
	own, err := fleet.List[fleet.BurnProfile](s, fleet.KindProfile)
	if err != nil {
		return nil, err
	}
	v.profiles = slices.Concat(l.Profiles, own)
	freezes, err := fleet.Freezes(s)
	if err != nil {
		return nil, err
	}
	v.frozen = fleet.FrozenBy(*n, freezes)
	if v.claim, err = maybe[Claim](s, fleet.KeyOf(fleet.KindClaim, id)); err != nil {
		return nil, err
	}
	site, err := seen[fleet.Site](s, fleet.SiteKey)
	if err != nil {
		return nil, err
	}
	if site != nil {
		v.site = *site
	}
	if l.Prober != nil {
		if v.canary, err = l.Prober.Probes(s, *n); err != nil {
			return nil, err
		}
	}
	if v.lease.v != nil {
		if v.image, err = seen[fleet.Image](s, fleet.KeyOf(fleet.KindImage, v.lease.v.Request.Image)); err != nil {
			return nil, err
		}
		if err := v.addressOf(s); err != nil {
			return nil, err
		}
	}
	return v, l.readPower(s, v)
}

// look reads a node without changing it.
func (l *Loop) look(ctx context.Context, id fleet.NodeID) (*view, error) {
	var v *view
	err := l.Store.View(ctx, func(s fleet.Snapshot) error {
		var err error
		v, err = l.read(s, id)
		return err
	})
	return v, err
}

// most is how often a change is tried again because somebody else was first.
const most = 30

// update reads a node afresh, lets do change what it read, and commits all of it or nothing. do may run several times and must do no I/O.
// Where do changes nothing, nothing is committed.
func (l *Loop) update(ctx context.Context, id fleet.NodeID, do func(*view) error) error {
	return l.updateFenced(ctx, id, "", nil, do)
}

// updateSeen is update that begins with what was read a moment ago, and reads only where somebody was first.
func (l *Loop) updateSeen(ctx context.Context, id fleet.NodeID, v *view, do func(*view) error) error {
	return l.updateFenced(ctx, id, "", v, do)
}

// updateFenced is update for what may do harm: the view has the fence's book, unless h is "". The first try takes v where it is not nil.
func (l *Loop) updateFenced(ctx context.Context, id fleet.NodeID, h fleet.Harm, v *view, do func(*view) error) error {
	leave, err := l.harm(ctx, h)
	if err != nil {
		return err
	}
	defer leave()
	for try := 1; ; try++ {
		if v == nil {
			err := l.Store.View(ctx, func(s fleet.Snapshot) error {
				var err error
				if v, err = l.read(s, id); err == nil && h != "" {
					v.book, err = l.readBook(s, h)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		if err := do(v); err != nil {
			return err
		}
		c, err := v.change()
		if err != nil || len(c.Writes) == 0 && len(c.Events) == 0 {
			return err
		}
		if _, err = l.Store.Commit(ctx, c); err == nil {
			l.tell(v)
			return nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return err
		}
		v = nil
	}
}

func (v *view) change() (fleet.Change, error) {
	c := fleet.Change{Events: v.events, Writes: slices.Clone(v.writes)}
	if v.dropped {
		c.If = append(c.If, fleet.Precondition{Key: v.node.key, Revision: v.node.rev})
		c.Writes = append(c.Writes, fleet.Write{Key: v.node.key})
		return c, nil
	}
	v.node.fit = func() (json.RawMessage, error) { return fit(v.node.v) }
	for _, err := range []error{v.node.put(&c), v.op.put(&c), v.lease.put(&c), v.owner.put(&c), v.claim.put(&c)} {
		if err != nil {
			return c, err
		}
	}
	if v.book != nil {
		if err := v.book.put(&c); err != nil {
			return c, err
		}
	}
	if v.room != nil && v.room.taken {
		v.room.put(&c)
	}
	if v.pinLease && v.lease.v != nil && !slices.ContainsFunc(c.If, func(p fleet.Precondition) bool { return p.Key == v.lease.key }) {
		c.If = append(c.If, fleet.Precondition{Key: v.lease.key, Revision: v.lease.rev})
	}
	// Whoever decided by the node must not be overtaken, even where the node's own record stays.
	if len(c.Writes) > 0 && !slices.ContainsFunc(c.If, func(p fleet.Precondition) bool { return p.Key == v.node.key }) {
		c.If = append(c.If, fleet.Precondition{Key: v.node.key, Revision: v.node.rev})
	}
	return c, nil
}

// maxNode is what a node's record may have, in bytes.
const maxNode = 4 << 10

// fit encodes a node, and shortens what its faults show until its record fits; what they block stays.
func fit(n *fleet.Node) (b json.RawMessage, err error) {
	if b, err = json.Marshal(n); err != nil {
		return nil, err
	}
	for _, most := range []int{300, 120, 40} {
		if len(b) <= maxNode {
			break
		}
		for i := range n.Faults {
			n.Faults[i].Evidence, n.Faults[i].Hint = cut(n.Faults[i].Evidence, most), cut(n.Faults[i].Hint, most)
		}
		if b, err = json.Marshal(n); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// event records a change for watchers and for the node's timeline.
func (v *view) event(kind, format string, args ...any) {
	n := v.node.v
	e := fleet.Event{Type: kind, At: v.now, Subject: v.node.key, Node: n.ID, Lease: n.Lease, Text: fmt.Sprintf(format, args...)}
	v.events = append(v.events, e)
}

// tell writes committed events to the timeline and the log.
func (l *Loop) tell(v *view) {
	for i, e := range v.events {
		about := []any{fleet.LogNode, v.node.v.Name}
		if op := v.op.v; op != nil && (strings.HasPrefix(e.Type, "operation.") || !op.State.Over() || op.EndedAt.Equal(v.now)) {
			about = append(about, fleet.LogOperation, op.ID)
		}
		if run, ok := v.steps[i]; ok {
			about = append(about, fleet.LogStep, run.Name, fleet.LogTry, run.Try)
		}
		if e.Lease != "" {
			about = append(about, fleet.LogLease, e.Lease)
		}
		l.Log.Info("node moved", append(about, "type", e.Type, "text", e.Text)...)
		if l.Timeline == nil || e.Node == "" {
			continue
		}
		source := "state"
		switch e.Type {
		case "operation.step":
			source = "step"
		case "lease.state":
			source = "lease"
		}
		l.Timeline.AppendTimeline(e.Node, fleet.TimelineEntry{At: e.At, Source: source, Text: e.Text, Generation: v.node.v.Boot.Generation})
	}
}
