package reconcile

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// lanes bound how many BMCs are worked on and looked at at once. BMCs that did not answer when they were last asked have lanes of their own, so
// that the dead starve nobody.
type lanes struct {
	work, doubtfulWork chan struct{}
	eyes, doubtfulEyes chan struct{}
}

func (x *lanes) init(parallel, observers int) {
	x.work, x.doubtfulWork = make(chan struct{}, parallel), make(chan struct{}, max(1, parallel/8))
	x.eyes, x.doubtfulEyes = make(chan struct{}, observers), make(chan struct{}, max(1, observers/8))
}

// touches are the steps that talk to the BMC: most write there, or are about to, and one reads much.
var touches = map[string]bool{step.BMCIdentify: true, step.PowerOff: true, step.StayOff: true, step.PowerOn: true, step.MediaInsert: true, step.BootFromMedia: true, step.BootFromDisk: true, step.MediaEject: true, step.ReadBoard: true}

// admit waits for a place to do an out-of-band step and returns what gives it back. Before the first step of this process that touches a node's BMC its power
// is read: a server that was started anew looks before it writes, and learns which BMCs do not answer before they take a place. at reports that nothing was
// waited for.
func (l *Loop) admit(ctx context.Context, id fleet.NodeID, name string) (leave func(), at bool, err error) {
	if !touches[name] {
		return func() {}, true, nil
	}
	at = true
	if l.Machine != nil && !l.sighted(id) {
		if err := enter(ctx, l.lanes.eyes); err != nil {
			return nil, false, err
		}
		at = false
		_, _, err := l.glance(ctx, id)
		<-l.lanes.eyes
		if err != nil {
			l.Log.DebugContext(ctx, "look before the first write", fleet.LogNode, l.nameOf(ctx, id), "err", err) // the step says it in its own words
		}
	}
	lane := l.lanes.work
	if l.away(id) {
		lane = l.lanes.doubtfulWork
	}
	select {
	case lane <- struct{}{}:
	default:
		at = false
		if err := enter(ctx, lane); err != nil {
			return nil, false, err
		}
	}
	return func() { <-lane }, at, nil
}

func enter(ctx context.Context, lane chan struct{}) error {
	select {
	case lane <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sighted reports whether this process has asked the node's BMC for its power.
func (l *Loop) sighted(id fleet.NodeID) bool {
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	x := l.sights.all[id]
	return x != nil && x.count > 0
}

// heard notes whether a BMC answered a step.
func (l *Loop) heard(id fleet.NodeID, name string, r step.Result) {
	if !touches[name] {
		return
	}
	now := l.Mono()
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	x := l.sights.of(id, now, l.ObserveEvery)
	switch {
	case r.Problem == nil:
		x.fails = 0
	case r.Unseen || r.Problem.Code == "MC-BMC-UNREACHABLE" || r.Problem.Code == "MC-BMC-TIMEOUT" || r.Problem.Code == "MC-STEP-TIMEOUT":
		x.fails++
	}
}
