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
)

// lookLimit is how long one look at a device may take, what it mends included.
const lookLimit = 2 * time.Minute

// Run reads every fabric and switch each period until ctx ends: what others changed is found, told and, where it lets somebody into a partition, put back.
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

// Look reads every fabric and switch once, side by side.
func (b *Board) Look(ctx context.Context) {
	names, err := b.names(ctx)
	if err != nil && ctx.Err() == nil {
		b.Log.Error("list fabrics and switches", "err", err)
		return
	}
	var looks sync.WaitGroup
	for _, name := range names {
		looks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookLimit)
			defer cancel()
			if err := b.look(ctx, name); err != nil && ctx.Err() == nil && fleet.KindOf(err) != fleet.Refused {
				b.Log.Warn("read fabric or switch", fleet.LogFabric, name, "err", err)
			}
		})
	}
	looks.Wait()
	if err := b.checkReach(ctx); err != nil && ctx.Err() == nil {
		b.Log.Error("check who reaches whom", "err", err)
	}
}

// names are those of all fabrics and switches.
func (b *Board) names(ctx context.Context) (names []string, err error) {
	err = b.Store.View(ctx, func(s fleet.Snapshot) error {
		all, err := fleet.List[fleet.Fabric](s, fleet.KindFabric)
		if err != nil {
			return err
		}
		names = nil
		for _, f := range all {
			names = append(names, f.Name)
		}
		switches, err := fleet.List[fleet.Switch](s, fleet.KindSwitch)
		for _, x := range switches {
			names = append(names, x.Name)
		}
		return err
	})
	return names, err
}

// look reads one device, mends what may be mended, and keeps the books.
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
			found[code] = "it was there at the reading before"
		}
		d.mu.Unlock()
		found[d.code("UNREAD")] = err.Error()
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
		found[d.code("MASS")] = why
		return b.tell(ctx, d, found, mended)
	}
	drift, err := b.mend(ctx, d, &view, frozen)
	if drift != "" {
		found[d.code("DRIFT")] = drift
	}
	if err != nil {
		return errors.Join(err, b.tell(ctx, d, found, false))
	}
	err = errors.Join(b.tell(ctx, d, found, mended), b.settleNodes(ctx, d.name, view))
	if mended {
		return err // what was read before it was mended proves nothing of keys that rest
	}
	return errors.Join(err, b.rest(ctx, d, view, began))
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
	if last == nil || few(n, len(last.Ports)) || d.odd != nil && differing(*d.odd, v) == 0 {
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
		if q == nil || p.Doubt != q.Doubt || !p.Carries.Equal(loose(q.Carries)) {
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

// loose is what a port carries, at whatever index.
func loose(c fleet.Carries) fleet.Carries {
	c.Index0 = 0
	return c
}

// code is that of a finding about the device: fabrics and switches have pages of their own.
func (d *device) code(what string) string { return "MC-" + strings.ToUpper(d.what()) + "-" + what }

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
	key, what := fleet.KeyOf(d.what(), d.name), d.what()
	var c fleet.Change
	event := func(kind, format string, args ...any) {
		c.Events = append(c.Events, fleet.Event{Type: kind, At: b.Now().UTC(), Subject: key, Text: what + " " + d.name + ": " + fmt.Sprintf(format, args...)})
	}
	d.mu.Lock()
	told := maps.Clone(d.told)
	d.mu.Unlock()
	if mended {
		event(what+".mended", "what others changed was put back")
	}
	for _, code := range slices.Sorted(maps.Keys(found)) {
		if !told[code] {
			event(what+".finding", "%s: %s", code, found[code])
			b.Log.Warn(what+" finding", fleet.LogFabric, d.name, "code", code, "text", found[code])
		}
	}
	for _, code := range slices.Sorted(maps.Keys(told)) {
		if _, still := found[code]; !still {
			event(what+".cleared", "%s is over", code)
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

// rest notes in the device's pool which keys or VLANs the reading shows, so that those that were given back and are gone may be used again.
func (b *Board) rest(ctx context.Context, d *device, v fleet.WireView, began time.Time) error {
	key, sw := poolKey(d.name), d.asSwitch()
	if sw != nil {
		key = vlansKey(sw.Segment())
		v.Ports = slices.DeleteFunc(slices.Clone(v.Ports), func(p fleet.PortView) bool { return slices.Contains(sw.Uplinks, p.Port) })
	}
	var seen []uint16
	doubt := false
	for _, p := range v.Ports {
		doubt = doubt || p.Doubt != "" && !p.Absent
		seen = append(seen, tags(p.Carries)...)
	}
	if doubt {
		return nil // a port that was not read may still carry any of them
	}
	return b.commit(ctx, func(s fleet.Snapshot) (c fleet.Change, err error) {
		pool, rev, err := maybe[fleet.TagPool](s, key)
		if err != nil {
			return c, err
		}
		if pool == nil || len(pool.Resting) == 0 {
			return c, errNothing
		}
		before := fmt.Sprint(pool.Resting)
		if pool.Read(d.name, seen, began); fmt.Sprint(pool.Resting) == before {
			return c, errNothing
		}
		put(&c, key, rev, *pool)
		return c, nil
	})
}

// tags are the VLANs and keys that a port carries.
func tags(c fleet.Carries) []uint16 {
	var out []uint16
	for _, m := range c.Partitions {
		out = append(out, uint16(m.PKey))
	}
	if c.Untagged != 0 {
		out = append(out, uint16(c.Untagged))
	}
	for _, v := range c.Tagged {
		out = append(out, uint16(v))
	}
	return out
}
