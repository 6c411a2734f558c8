package switchboard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reach"
)

// lookLimit is how long one look at a device may take, what it mends included.
const lookLimit = 2 * time.Minute

// Run reads every fabric each period until ctx ends: what others changed is found, told and, where it lets somebody into a partition, put back.
func (b *Board) Run(ctx context.Context) error {
	tick := time.NewTicker(b.Every)
	defer tick.Stop()
	for {
		b.Look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Look reads every fabric once, side by side.
func (b *Board) Look(ctx context.Context) {
	names, err := b.names(ctx)
	if err != nil && ctx.Err() == nil {
		b.Log.Error("list fabrics", "err", err)
		return
	}
	var looks sync.WaitGroup
	for _, name := range names {
		looks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookLimit)
			defer cancel()
			if err := b.look(ctx, name); err != nil && ctx.Err() == nil && fleet.KindOf(err) != fleet.Refused {
				b.Log.Warn("read fabric", fleet.LogFabric, name, "err", err)
			}
		})
	}
	looks.Wait()
	if err := b.checkReach(ctx); err != nil && ctx.Err() == nil {
		b.Log.Error("check who reaches whom", "err", err)
	}
}

// names are those of all fabrics.
func (b *Board) names(ctx context.Context) (names []string, err error) {
	err = b.Store.View(ctx, func(s fleet.Snapshot) error {
		all, err := fleet.List[fleet.Fabric](s, fleet.KindFabric)
		for _, f := range all {
			names = append(names, f.Name)
		}
		return err
	})
	return names, err
}

// look reads one fabric, mends what may be mended, and keeps the books.
func (b *Board) look(ctx context.Context, name string) error {
	return b.withTurn(ctx, name, func(d *device, driver Driver) error { return b.read(ctx, d, driver) })
}

// read is a look at a device whose turn the caller has.
func (b *Board) read(ctx context.Context, d *device, driver Driver) error {
	frozen, err := b.frozen(ctx)
	if err != nil {
		return err
	}
	var view fleet.WireView
	mended, began := false, b.Now().UTC()
	if frozen {
		view, err = driver.Observe(ctx)
	} else {
		view, mended, err = driver.Guard(ctx)
	}
	if err != nil {
		d.mu.Lock()
		d.silent = err
		found := map[string]string{}
		for code := range d.told { // whether it stands nobody knows
			found[code] = "it was there when the fabric was read last"
		}
		d.mu.Unlock()
		found["MC-FABRIC-UNREAD"] = err.Error()
		return errors.Join(err, b.tell(ctx, d, found, false))
	}
	if mended {
		began = b.Now().UTC()
	}
	found := map[string]string{}
	for _, f := range view.Findings {
		found[f.Code] = f.Text
	}
	if why := d.weigh(view); why != "" {
		found["MC-FABRIC-MASS"] = why
		return b.tell(ctx, d, found, mended)
	}
	err = errors.Join(b.tell(ctx, d, found, mended), b.settleNodes(ctx, d.name, view))
	if mended {
		return err // what was read before it was mended proves nothing of keys that rest
	}
	return errors.Join(err, b.rest(ctx, d.name, view, began))
}

// weigh believes a reading, unless far too much of it differs from the one before without a change of ours: then it says so, and the reading is believed when
// the next one says the same.
func (d *device) weigh(v fleet.WireView) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.seen
	n := 0
	if last != nil {
		n = differing(*last, v)
	}
	if last == nil || n <= max(8, len(last.Ports)/100) || d.odd != nil && differing(*d.odd, v) == 0 {
		d.seen, d.odd, d.alarm, d.silent = &v, nil, "", nil
		return ""
	}
	d.odd, d.silent = &v, nil
	d.alarm = fmt.Sprintf("%d of %d ports are not as they were at the reading before, and nobody here changed them", n, len(last.Ports))
	return d.alarm
}

// differing counts ports that carry something else, or that only one of the two shows.
func differing(a, b fleet.WireView) int {
	n := 0
	for _, p := range a.Ports {
		q := b.Port(p.Port)
		if q == nil || p.Doubt != q.Doubt || !slices.Equal(p.Carries.Partitions, q.Carries.Partitions) {
			n++
		}
	}
	for _, q := range b.Ports {
		if a.Port(q.Port) == nil {
			n++
		}
	}
	return n
}

// frozen reports whether everything is frozen, or this process may not act: then nothing is mended either.
func (b *Board) frozen(ctx context.Context) (frozen bool, err error) {
	if b.may() != nil {
		return true, nil
	}
	err = b.Store.View(ctx, func(s fleet.Snapshot) error {
		all, err := fleet.Freezes(s)
		frozen = slices.ContainsFunc(all, func(f fleet.Freeze) bool { return f.Scope == fleet.FreezeAll })
		return err
	})
	return frozen, err
}

func (b *Board) may() error {
	if b.May == nil {
		return nil
	}
	return b.May()
}

// tell writes an event for each finding that is new or gone, and for what was mended.
func (b *Board) tell(ctx context.Context, d *device, found map[string]string, mended bool) error {
	key := fleet.KeyOf(fleet.KindFabric, d.name)
	var c fleet.Change
	event := func(kind, format string, args ...any) {
		c.Events = append(c.Events, fleet.Event{Type: kind, At: b.Now().UTC(), Subject: key, Text: "fabric " + d.name + ": " + fmt.Sprintf(format, args...)})
	}
	d.mu.Lock()
	told := maps.Clone(d.told)
	d.mu.Unlock()
	if mended {
		event("fabric.mended", "what others changed was put back")
	}
	for _, code := range slices.Sorted(maps.Keys(found)) {
		if !told[code] {
			event("fabric.finding", "%s: %s", code, found[code])
			b.Log.Warn("fabric finding", fleet.LogFabric, d.name, "code", code, "text", found[code])
		}
	}
	for _, code := range slices.Sorted(maps.Keys(told)) {
		if _, still := found[code]; !still {
			event("fabric.cleared", "%s is over", code)
		}
	}
	if len(c.Events) == 0 {
		return nil
	}
	if _, err := b.Store.Commit(ctx, c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.told)
	for code := range found {
		d.told[code] = true
	}
	return nil
}

// rest notes in the fabric's pool which keys the reading shows, so that those that were given back and are gone may be used again.
func (b *Board) rest(ctx context.Context, fabric string, v fleet.WireView, began time.Time) error {
	var seen []uint16
	doubt := false
	for _, p := range v.Ports {
		doubt = doubt || p.Doubt != "" && !p.Absent
		for _, m := range p.Carries.Partitions {
			seen = append(seen, uint16(m.PKey))
		}
	}
	if doubt {
		return nil // a port that was not read may still carry any of them
	}
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		pool, rev, err := maybe[fleet.TagPool](s, poolKey(fabric))
		if err != nil {
			return c, err
		}
		if pool == nil || len(pool.Resting) == 0 {
			return c, errNothing
		}
		before := fmt.Sprint(pool.Resting)
		if pool.Read(fabric, seen, began); fmt.Sprint(pool.Resting) == before {
			return c, errNothing
		}
		put(&c, poolKey(fabric), rev, *pool)
		return c, nil
	})
}

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
		o.Views = nil
		for _, name := range names {
			d := b.entry(name)
			d.mu.Lock()
			if d.seen != nil && !slices.ContainsFunc(d.seen.Findings, func(f fleet.WireFinding) bool { return f.Code == "MC-FABRIC-OPEN" }) {
				o.Views = append(o.Views, *d.seen)
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
	wires, err := fleet.List[fleet.NodeWires](s, fleet.KindWires)
	if err != nil {
		return nil, err
	}
	for _, w := range wires {
		owner := reach.Quarantine
		if w.Partition != "" {
			owner = reach.Owner("partition " + w.Partition)
		}
		for _, p := range w.Ports {
			out = append(out, reach.Port{Device: p.Fabric, Port: p.Port, Owner: owner})
		}
	}
	return out, nil
}
