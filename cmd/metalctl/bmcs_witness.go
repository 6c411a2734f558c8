//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish"
)

// identified is a store that knows which one it is.
type identified interface {
	fleet.Store
	Identity(context.Context) (fleet.StoreIdentity, error)
}

// testify asks the node's BMC, before something is written to it, whether the store knows everything that was done with the node, and refuses where it
// does not. With mark it also writes what the store counts by now into the BMC's asset tag, behind whatever somebody else keeps there.
//
// The BMC is asked once per process and node, and again when the mark is due: at each boot generation and each handover, when it is written to anyway.
func (b *bmcs) testify(ctx context.Context, id fleet.NodeID, bmc *redfish.BMC, mark bool) error {
	b.mu.Lock()
	o := b.open[id]
	b.mu.Unlock()
	if o == nil {
		return nil // dropped meanwhile: the write that follows fails by itself
	}
	o.marking.Lock()
	defer o.marking.Unlock()
	node, identity, err := b.nodeAndIdentity(ctx, id)
	if err != nil {
		return err
	}
	for _, code := range []string{fleet.FaultStaleStore, fleet.FaultUnwitnessed} {
		if f := node.Fault(code, fleet.StaleComponent); f != nil {
			return errWitness(&node, f.Evidence)
		}
	}
	want := fleet.TagOf(identity.Epoch(), &node)
	if o.looked && (!mark || o.noMark || o.mark == want) {
		return nil
	}
	asset, err := bmc.AssetTag(ctx)
	if err != nil {
		return fmt.Errorf("ask the witness in the BMC: %w", err)
	}
	seen, rest := fleet.ParseWitnessTag(asset)
	switch testimony, why := seen.Judge(identity, &node); testimony {
	case fleet.Stale:
		if err := markStale(ctx, b.store, b.now, map[fleet.NodeID]stale{id: {seen, why}}); err != nil {
			return err
		}
		return errWitness(&node, why)
	case fleet.Silent:
		if err := b.changeNode(ctx, id, func(n *fleet.Node, c *fleet.Change) { doubt(n, c, why, b.now()) }); err != nil {
			return err
		}
		b.ring()
		return errWitness(&node, why)
	}
	o.looked, o.mark = true, seen
	if !mark || o.noMark || seen == want {
		return nil
	}
	if err := bmc.SetAssetTag(ctx, fleet.WithWitnessTag(rest, want)); err != nil {
		if fleet.CodeOf(err) != "MC-BMC-ASSETTAG" {
			return err
		}
		// The tag belongs to whoever uses it; a BMC that takes none of ours has no witness in it.
		o.noMark = true
		b.timeline.AppendTimeline(id, fleet.TimelineEntry{At: b.now(), Source: "state", Text: "no witness in this BMC: " + err.Error()})
		return nil
	}
	o.mark = want
	return b.changeNode(ctx, id, func(n *fleet.Node, _ *fleet.Change) { n.BMC.Witness = want.String() })
}

// ring has nodes that are held looked at soon: perhaps a log outside tells what the BMC does not.
func (b *bmcs) ring() {
	select {
	case b.doubted <- struct{}{}:
	default:
	}
}

func errWitness(n *fleet.Node, why string) error {
	return fleet.Errorf(fleet.Refused, "MC-STORE-WITNESS", "nothing is written to %s: %s", n.Name, why).
		WithHint("metalctl doctor --world; the store is older than what was done with this node")
}

func (b *bmcs) nodeAndIdentity(ctx context.Context, id fleet.NodeID) (fleet.Node, fleet.StoreIdentity, error) {
	identity, err := b.store.Identity(ctx)
	if err != nil {
		return fleet.Node{}, identity, err
	}
	var n fleet.Node
	err = b.store.View(ctx, func(s fleet.Snapshot) (err error) {
		n, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
		return err
	})
	return n, identity, err
}

// changeNode commits a change of a node's record, again where somebody was first.
func (b *bmcs) changeNode(ctx context.Context, id fleet.NodeID, do func(*fleet.Node, *fleet.Change)) error {
	return changeNode(ctx, b.store, id, do)
}

func changeNode(ctx context.Context, st fleet.Store, id fleet.NodeID, do func(*fleet.Node, *fleet.Change)) error {
	key := fleet.KeyOf(fleet.KindNode, id)
	for try := 1; ; try++ {
		var n fleet.Node
		var rev fleet.Revision
		err := st.View(ctx, func(s fleet.Snapshot) (err error) {
			n, rev, err = fleet.Get[fleet.Node](s, key)
			return err
		})
		if err != nil {
			return err
		}
		c := fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}}
		do(&n, &c)
		c.Writes = append(c.Writes, fleet.Write{Key: key, Value: n})
		if _, err = st.Commit(ctx, c); fleet.CodeOf(err) != "MC-STORE-STALE" || try == 20 {
			return err
		}
	}
}

// stale is what a witness says against the store's record of a node.
type stale struct {
	seen fleet.WitnessTag
	why  string
}

// markStale gives each node the fault that freezes it, until a person clears it by the node's name.
func markStale(ctx context.Context, st fleet.Store, now func() time.Time, nodes map[fleet.NodeID]stale) error {
	for id, s := range nodes {
		err := changeNode(ctx, st, id, func(n *fleet.Node, c *fleet.Change) {
			n.MarkStale(s.seen, s.why, now())
			c.Events = append(c.Events, fleet.Event{Type: "node.fault", At: now().UTC(), Subject: fleet.KeyOf(fleet.KindNode, n.ID), Node: n.ID, Lease: n.Lease,
				Text: n.Name + ": the store is older than its witness: " + s.why})
		})
		if err != nil && fleet.KindOf(err) != fleet.NotFound {
			return fmt.Errorf("mark a node that its witness knows more of: %w", err)
		}
	}
	return nil
}

// doubt holds a node of which no witness tells, with an event that says so.
func doubt(n *fleet.Node, c *fleet.Change, why string, now time.Time) {
	if !n.Doubted() {
		c.Events = append(c.Events, fleet.Event{Type: "node.fault", At: now.UTC(), Subject: fleet.KeyOf(fleet.KindNode, n.ID), Node: n.ID, Lease: n.Lease,
			Text: n.Name + ": no witness tells whether the store knows all of it: " + why})
	}
	n.DoubtStore(why, now)
}

func newFreezeID() fleet.FreezeID { return fleet.FreezeID(uuid.Must(uuid.NewV7()).String()) }
