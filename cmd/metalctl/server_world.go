//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/witness"
	"github.com/metalctl/metalctl/redfish"
)

const (
	// worldParallel is how many BMCs are asked at once, worldLimit how long one may take.
	worldParallel = 64
	worldLimit    = time.Minute
	// agentsBack is how long after a start agents are not expected to have been heard of: they poll every 25 s.
	agentsBack = 90 * time.Second
)

// agentsUp tells which agents answer.
type agentsUp interface {
	Up(id fleet.NodeID, generation int64) (up bool, since time.Time)
}

// seenBMC is what a BMC shows of its machine.
type seenBMC struct {
	power redfish.PowerState
	media []redfish.MediaState
	asset string
}

// World implements server.Physician: it reads every BMC once and writes nothing.
func (p *physician) World(ctx context.Context) (api.World, error) {
	w := api.World{At: p.now().UTC(), Nodes: []api.WorldNode{}, NotCompared: []string{"ports: no network driver is bound"}}
	var err error
	if w.Store, err = p.db.Identity(ctx); err != nil {
		return w, err
	}
	var nodes []fleet.Node
	err = p.db.View(ctx, func(s fleet.Snapshot) (err error) {
		if w.Freezes, err = fleet.Freezes(s); err != nil {
			return err
		}
		nodes, err = fleet.List[fleet.Node](s, fleet.KindNode)
		return err
	})
	if err != nil {
		return w, err
	}
	verdict, strangers := unresolved(witness.Compare(ctx, w.Store, p.witnesses.Logs), nodes)
	w.Witness, w.WitnessText = verdict.Testimony, verdict.Text
	for _, l := range strangers {
		w.Strangers = append(w.Strangers, fmt.Sprintf("%s (%s): %s", l.Name, l.Node, witnessed(l)))
	}
	if p.now().Sub(p.began) < agentsBack {
		w.NotCompared = append(w.NotCompared, fmt.Sprintf("agents: the server has run for less than %s, and they may not have called yet", agentsBack))
	}
	found := make([]api.WorldNode, len(nodes))
	var wg sync.WaitGroup
	room := make(chan struct{}, worldParallel)
	for i := range nodes {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			found[i] = p.compare(ctx, w.Store, nodes[i], verdict.Nodes)
			found[i].Frozen = fleet.FrozenBy(nodes[i], w.Freezes) != nil
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return w, err
	}
	for _, f := range found {
		w.Compared++
		if len(f.Differences) == 0 && len(f.Unknown) == 0 {
			w.Agree++
			continue
		}
		w.Nodes = append(w.Nodes, f)
	}
	slices.Sort(w.Strangers)
	slices.SortFunc(w.Nodes, func(a, b api.WorldNode) int { return strings.Compare(a.Name, b.Name) })
	return w, nil
}

// compare looks at one node.
func (p *physician) compare(ctx context.Context, id fleet.StoreIdentity, n fleet.Node, lines map[fleet.NodeID]witness.Line) api.WorldNode {
	out := worldFinding{ID: n.ID, Name: n.Name, State: n.State}
	if l, ok := lines[n.ID]; ok {
		out.differs("witness", fmt.Sprintf("%d boots, %d handovers", n.Boot.Generation, n.Handovers), fmt.Sprintf("%d boots, %d handovers", l.Boots, l.Handovers), witnessed(l))
	}
	if f := n.Fault(fleet.FaultUnwitnessed, fleet.StaleComponent); f != nil {
		out.Unknown = append(out.Unknown, "held until a witness or a person vouches for it: "+f.Evidence)
	}
	ctx, cancel := context.WithTimeout(ctx, worldLimit)
	defer cancel()
	bmc, err := p.bmcs.see(ctx, n.ID)
	if err != nil {
		out.Unknown = append(out.Unknown, "the BMC cannot be asked: "+printable(err.Error()))
		return api.WorldNode(out)
	}
	tag, _ := fleet.ParseWitnessTag(bmc.asset)
	switch testimony, why := tag.Judge(id, &n); {
	case testimony == fleet.Silent:
		out.Unknown = append(out.Unknown, why)
	case testimony == fleet.Stale && tag.Boots > max(n.Boot.Generation, n.Boot.Witnessed):
		out.differs("boot-generation", fmt.Sprint(n.Boot.Generation), fmt.Sprint(tag.Boots), why)
	case testimony == fleet.Stale:
		out.differs("handovers", fmt.Sprint(n.Handovers), fmt.Sprint(tag.Handovers), why)
	}
	up, _ := p.agents.Up(n.ID, n.Boot.Generation)
	switch {
	case n.State == fleet.Active && bmc.power == redfish.PowerOff:
		out.differs("power", "on", "off", "a tenant has the node, and its machine is off")
	case n.State == fleet.Grace && bmc.power == redfish.PowerOn:
		out.differs("power", "off", "on", "the node's disks are kept for its former tenant, and its machine runs")
	case (n.State == fleet.Available || n.State == fleet.Allocated) && bmc.power == redfish.PowerOn && !up && p.now().Sub(p.began) >= agentsBack:
		out.differs("agent", "up, or the machine off", "the machine runs something else", "nobody has the node by the store, its machine is on, and no agent answers")
	}
	for _, m := range bmc.media {
		ours := slices.ContainsFunc(p.bmcs.ours, func(prefix string) bool { return strings.HasPrefix(m.Image, prefix) })
		if m.Inserted && ours && n.Boot.MediaID == "" {
			out.differs("media", "ejected", "inserted in "+m.URI, "a boot medium of this server whose address has ended")
		}
	}
	return api.WorldNode(out)
}

// worldFinding gathers what is found out about a node.
type worldFinding api.WorldNode

func (w *worldFinding) differs(what, store, world, text string) {
	w.Differences = append(w.Differences, api.Difference{What: what, Store: store, World: world, Text: text})
}

// see reads what World compares.
func (b *bmcs) see(ctx context.Context, id fleet.NodeID) (seenBMC, error) {
	bmc, err := b.get(ctx, id)
	if err != nil {
		return seenBMC{}, err
	}
	var s seenBMC
	if s.power, err = bmc.Power(ctx); err != nil {
		return s, err
	}
	if s.asset, err = bmc.AssetTag(ctx); err != nil {
		return s, err
	}
	s.media, err = bmc.Media(ctx)
	if fleet.CodeOf(err) == "MC-BMC-NO-MEDIA" {
		err = nil
	}
	return s, err
}
