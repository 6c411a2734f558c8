package switchboard

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reach"
)

// checkReach asks of everything that was read who can exchange a packet and must not.
func (b *Board) checkReach(ctx context.Context) error {
	names, err := b.names(ctx)
	if err != nil {
		return err
	}
	o, err := b.observed(ctx, names)
	if err != nil {
		return err
	}
	meetings, _ := reach.Check(o)
	var meet []string
	for _, m := range meetings {
		meet = append(meet, m.String())
	}
	b.mu.Lock()
	before := b.meet
	b.mu.Unlock()
	if !slices.Equal(before, meet) {
		text := "nobody reaches whom they must not any more"
		if len(meet) > 0 {
			text = "nothing is handed out: " + strings.Join(meet[:min(len(meet), 3)], "; ")
			b.Log.Error("tenants can reach each other", "text", text)
		}
		if _, err := b.Store.Commit(ctx, fleet.Change{Events: []fleet.Event{{Type: "network.reach", At: b.Now().UTC(), Subject: fleet.KindFabric + "/", Text: text}}}); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.meet = meet
	return nil
}

// observed is what the newest readings show, and whose each port is: both of one moment, as ports change hands meanwhile. A fabric that is open to all is left
// out: that is a finding of its own, which stops as much.
func (b *Board) observed(ctx context.Context, names []string) (o reach.Observed, err error) {
	read := func() (out []reach.Port, err error) {
		err = b.Store.View(ctx, func(s fleet.Snapshot) (err error) {
			out, err = owners(s)
			return err
		})
		return out, err
	}
	if o.Owners, err = read(); err != nil {
		return o, err
	}
	for {
		o.Views, o.Domains = nil, map[string]string{}
		for _, name := range names {
			d := b.entry(name)
			d.mu.Lock()
			if d.seen != nil && !slices.ContainsFunc(d.seen.Findings, func(f fleet.WireFinding) bool { return f.Code == "MC-FABRIC-OPEN" }) {
				o.Views = append(o.Views, filtered(d.ethernet, *d.seen))
			}
			if d.ethernet != nil {
				o.Domains[name] = d.ethernet.Segment()
			}
			d.mu.Unlock()
		}
		again, err := read()
		if err != nil || slices.Equal(o.Owners, again) {
			return o, err
		}
		o.Owners = again
	}
}

// owners says whose the ports are that the store knows: those of a partition's nodes belong together.
func owners(s fleet.Snapshot) ([]reach.Port, error) {
	var out []reach.Port
	fabrics, err := fleet.List[fleet.Fabric](s, fleet.KindFabric)
	if err != nil {
		return nil, err
	}
	for _, f := range fabrics {
		for _, g := range f.SMs {
			out = append(out, reach.Port{Device: f.Name, Port: string(g), Owner: reach.Fabric})
		}
		for _, p := range f.Fixed {
			for _, m := range p.Members {
				out = append(out, reach.Port{Device: f.Name, Port: string(m.GUID), Owner: reach.Fabric})
			}
		}
	}
	switches, err := fleet.List[fleet.Switch](s, fleet.KindSwitch)
	if err != nil {
		return nil, err
	}
	for _, x := range switches {
		for _, p := range x.Uplinks {
			out = append(out, reach.Port{Device: x.Name, Port: p, Owner: reach.Fabric})
		}
	}
	wires, err := fleet.List[fleet.NodeWires](s, fleet.KindWires)
	if err != nil {
		return nil, err
	}
	at := map[[2]string]int{}
	for _, w := range wires {
		for _, p := range w.Ports {
			here := [2]string{p.Device(), p.Port}
			x := reach.Port{Device: p.Device(), Port: p.Port, Owner: ownerOf(w, p)}
			i, shared := at[here]
			switch {
			case !shared:
				at[here] = len(out)
				out = append(out, x)
			case x.Owner != reach.Quarantine: // of two nodes that name one port it is whose who has it
				out[i] = x
			}
		}
	}
	return out, nil
}

// ownerOf is whose a node's port is. Until it is proven to have left, that is whom it was given to.
func ownerOf(w fleet.NodeWires, p fleet.WireProof) reach.Owner {
	if p.Fabric != "" && w.Partition != "" {
		return reach.Owner("partition " + w.Partition)
	}
	if at := cmp.Or(p.Was, p.Where); p.Switch != "" && at != "" {
		return reach.Owner("network " + at)
	}
	return reach.Quarantine
}
