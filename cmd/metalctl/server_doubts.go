//go:build !ramdisk

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/witness"
	"github.com/metalctl/metalctl/redfish"
)

// doubtEvery is how soon after a start nodes that are held for want of a witness are looked at again; each round in vain doubles it up to doubtMost.
const (
	doubtEvery = 15 * time.Second
	doubtMost  = 10 * time.Minute
)

// settleDoubts looks at every node that is held because the store may know less than the world, as long as there are any: its BMC is read, nothing is
// written to it. A node for which a witness vouches is let go; one of which it knows more is marked as stale; any other stays held, and its fault says why.
func (p *physician) settleDoubts(ctx context.Context, rung <-chan struct{}, log *slog.Logger) error {
	wait := doubtEvery
	for {
		left, settled, err := p.settleOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			log.Error("look at nodes that are held for want of a witness", "err", err)
		case settled > 0:
			log.Info("witnesses were heard of nodes that were held", "settled", settled, "held", left)
			wait = doubtEvery
		}
		var again <-chan time.Time
		if left > 0 || err != nil {
			again = time.After(wait)
			wait = min(2*wait, doubtMost)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rung:
			wait = doubtEvery
		case <-again:
		}
	}
}

// settleOnce looks once and says how many nodes stay held.
func (p *physician) settleOnce(ctx context.Context) (left, settled int, err error) {
	id, err := p.db.Identity(ctx)
	if err != nil {
		return 0, 0, err
	}
	var doubted []fleet.Node
	err = p.db.View(ctx, func(s fleet.Snapshot) error {
		var bad error
		doubted = nil
		err := s.List(fleet.KindNode, func(r fleet.Record) bool {
			if !bytes.Contains(r.Data, []byte(fleet.FaultUnwitnessed)) {
				return true // it has no such fault: nearly all, which need not be decoded
			}
			var n fleet.Node
			if bad = json.Unmarshal(r.Data, &n); bad != nil {
				bad = fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", r.Key, bad)
			} else if n.Doubted() {
				doubted = append(doubted, n)
			}
			return bad == nil
		})
		return errors.Join(bad, err)
	})
	if err != nil || len(doubted) == 0 {
		return 0, 0, err
	}
	verdict := witness.Compare(ctx, id, p.witnesses.Logs)
	var mu sync.Mutex // guards left, settled and err
	var wg sync.WaitGroup
	room := make(chan struct{}, worldParallel)
	for _, n := range doubted {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			_, told := verdict.Nodes[n.ID]
			done, e := p.settle(ctx, id, n.ID, verdict.Reaches && !told)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e != nil:
				err = e
			case done:
				settled++
			default:
				left++
			}
		})
	}
	wg.Wait()
	return left, settled, err
}

// settle looks at one node and writes down what comes of it. done says that it is in doubt no more.
func (p *physician) settle(ctx context.Context, id fleet.StoreIdentity, node fleet.NodeID, logged bool) (done bool, err error) {
	look, cancel := context.WithTimeout(ctx, worldLimit)
	defer cancel()
	bmc, unseen := p.bmcs.see(look, node)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	sight := p.bmcs.sight(bmc)
	sight.Logged = logged
	judge := func(n *fleet.Node) (fleet.Testimony, string) {
		if unseen != nil {
			why := printable(unseen.Error())
			return fleet.Silent, "the BMC cannot be asked: " + strings.ToValidUTF8(why[:min(len(why), 200)], "")
		}
		return sight.Vouch(id, n)
	}
	old, _, err := p.bmcs.nodeAndIdentity(ctx, node)
	if err == nil {
		// What is known already is not written again at each look.
		if f := old.Fault(fleet.FaultUnwitnessed, fleet.StaleComponent); f != nil {
			if testimony, why := judge(&old); testimony == fleet.Silent && f.Evidence == why {
				return false, nil
			}
		}
	}
	err = changeNode(ctx, p.db, node, func(n *fleet.Node, c *fleet.Change) {
		if done = !n.Doubted(); done {
			return
		}
		testimony, why := judge(n)
		event := func(text string) {
			c.Events = append(c.Events, fleet.Event{Type: "node.fault", At: p.now().UTC(), Subject: fleet.KeyOf(fleet.KindNode, n.ID), Node: n.ID, Lease: n.Lease, Text: n.Name + ": " + text})
		}
		switch testimony {
		case fleet.Agrees:
			done = true
			n.Vouched(sight.Tag)
			event(why + "; it is held no longer")
		case fleet.Stale:
			done = true
			n.MarkStale(sight.Tag, why, p.now())
			event("the store is older than its witness: " + why)
		default:
			doubt(n, c, why, p.now())
		}
	})
	if fleet.KindOf(err) == fleet.NotFound {
		return true, nil
	}
	return done, err
}

// sight is what was seen of a machine, as a witness's verdict is given on it.
func (b *bmcs) sight(s seenBMC) fleet.Sight {
	tag, _ := fleet.ParseWitnessTag(s.asset)
	out := fleet.Sight{Tag: tag, Power: map[redfish.PowerState]string{redfish.PowerOn: "on", redfish.PowerOff: "off"}[s.power]}
	for _, m := range s.media {
		out.Medium = out.Medium || m.Inserted && slices.ContainsFunc(b.ours, func(prefix string) bool { return strings.HasPrefix(m.Image, prefix) })
	}
	return out
}
