package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// sight is what this process saw of a node's machine, in memory only: what does not change costs no write.
type sight struct {
	power string        // "on", "off", or "" where the BMC did not say yet
	at    time.Time     // of the newest answer
	due   time.Duration // by Mono, when to look again
	fails int           // calls without an answer since the last
	doubt string        // a change that is believed when it is seen again
	count uint32
}

// sights remember what was seen of each node.
type sights struct {
	mu  sync.Mutex
	all map[fleet.NodeID]*sight // guarded by mu
}

// of returns a node's sight; a node that was never seen is due at some time within the period, so that a server that starts does not ask all at once.
func (s *sights) of(id fleet.NodeID, now, period time.Duration) *sight {
	x := s.all[id]
	if x == nil {
		x = &sight{due: now + spread(id, 0, period)}
		s.all[id] = x
	}
	return x
}

// spread is a time within d that depends on the node and on n, not on chance.
func spread(id fleet.NodeID, n uint32, d time.Duration) time.Duration {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(id), n))
	return time.Duration(float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32) * float64(d))
}

// away reports whether the node's BMC did not answer when it was last asked: it then waits in a lane of its own and delays nobody.
func (l *Loop) away(id fleet.NodeID) bool {
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	x := l.sights.all[id]
	return x != nil && x.fails > 0
}

// Observed returns the power that a node's BMC last told this process, and when; "" where it did not yet.
func (l *Loop) Observed(id fleet.NodeID) (power string, at time.Time) {
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	if x := l.sights.all[id]; x != nil {
		return x.power, x.at
	}
	return "", time.Time{}
}

// watch looks at every node's power once in ObserveEvery, spread over that time, at most Observers at once, until ctx ends.
func (l *Loop) watch(ctx context.Context) {
	if l.Machine == nil || l.ObserveEvery < 0 {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(max(min(time.Second, l.ObserveEvery/20), time.Millisecond))
	defer tick.Stop()
	var ids []fleet.NodeID
	listed := time.Duration(-1)
	for {
		if now := l.Mono(); listed < 0 || now-listed >= l.Period {
			if some, _, err := l.nodes(ctx); err == nil {
				ids, listed = some, now
				l.forgetSights(ids)
			} else if ctx.Err() == nil {
				l.Log.Warn("list nodes to look at", "err", err)
			}
		}
		for _, id := range l.DueToObserve(ids) {
			lane := l.lanes.eyes
			if l.away(id) {
				lane = l.lanes.doubtfulEyes
				select {
				case lane <- struct{}{}:
				default:
					continue // all are busy; it stays due, and keeps nobody waiting
				}
			} else if enter(ctx, lane) != nil {
				break
			}
			l.postpone(id, l.ObserveLimit)
			wg.Go(func() {
				defer func() { <-lane }()
				if err := l.Observe(ctx, id); err != nil && ctx.Err() == nil {
					l.Log.DebugContext(ctx, "look at a node's power", fleet.LogNode, l.nameOf(ctx, id), "err", err)
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// DueToObserve lists those of ids whose power is to be read now, those first that have waited longest.
func (l *Loop) DueToObserve(ids []fleet.NodeID) []fleet.NodeID {
	now := l.Mono()
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	var due []waiting
	for _, id := range ids {
		if at := l.sights.of(id, now, l.ObserveEvery).due; at <= now {
			due = append(due, waiting{id, at})
		}
	}
	slices.SortStableFunc(due, func(a, b waiting) int { return cmp.Compare(a.since, b.since) })
	out := make([]fleet.NodeID, len(due))
	for i, w := range due {
		out[i] = w.id
	}
	return out
}

// waiting is a node whose power is to be read since then, by Mono.
type waiting struct {
	id    fleet.NodeID
	since time.Duration
}

func (l *Loop) postpone(id fleet.NodeID, d time.Duration) {
	now := l.Mono()
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	l.sights.of(id, now, l.ObserveEvery).due = now + d
}

func (l *Loop) forgetSights(ids []fleet.NodeID) {
	there := make(map[fleet.NodeID]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	for id := range l.sights.all {
		if !there[id] {
			delete(l.sights.all, id)
		}
	}
	l.forgetQuiet(there)
}

// Observe reads a node's power once, unless a plan is at work on it, and records what changed. What nobody of us changed is believed when it is seen
// twice, a few seconds apart, and is an event and a fault then.
func (l *Loop) Observe(ctx context.Context, id fleet.NodeID) error {
	was, busy, err := l.recorded(ctx, id)
	if err != nil {
		return err
	}
	if busy {
		l.postpone(id, l.ObserveEvery)
		return nil
	}
	power, doubt, err := l.glance(ctx, id)
	if err != nil || power == "" || power == was {
		return err
	}
	if was != "" && doubt != power {
		l.sights.mu.Lock()
		l.sights.all[id].doubt = power
		l.sights.mu.Unlock()
		l.postpone(id, l.ObserveEvery/6)
		return nil
	}
	return l.update(ctx, id, func(v *view) error {
		if v.op.v == nil && v.node.v.Power != power {
			v.powerSeen(power)
		}
		return nil
	})
}

// glance reads a node's power, within ObserveLimit, and remembers the answer or that there was none. doubt is the change that was seen before and
// not believed yet.
func (l *Loop) glance(ctx context.Context, id fleet.NodeID) (power, doubt string, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.ObserveLimit)
	defer cancel()
	state, err := l.Machine.PowerState(ctx, id)
	now := l.Mono()
	l.sights.mu.Lock()
	defer l.sights.mu.Unlock()
	x := l.sights.of(id, now, l.ObserveEvery)
	x.count++
	if err != nil {
		x.fails++
		// A dead BMC is asked ever less often, down to once in sixteen times.
		x.due = now + l.ObserveEvery<<min(x.fails-1, 4)
		return "", "", err
	}
	x.fails, x.due = 0, now+l.ObserveEvery+spread(id, x.count, l.ObserveEvery/20)
	doubt, x.doubt = x.doubt, ""
	if state = lowerPower(state); state == "" {
		return "", doubt, nil // on its way
	}
	x.power, x.at = state, l.Now().UTC()
	return state, doubt, nil
}

// powerSeen records a power that no plan of ours made.
func (v *view) powerSeen(power string) {
	n := v.node.v
	was := n.Power
	n.Power = power
	if power == "on" {
		n.ClearFault(faultPower, powerComponent)
	}
	if was == "" {
		return
	}
	v.event("node.power", "%s: its power is %s, and no plan made it so", n.Name, power)
	switch {
	case power == "off" && (n.State == fleet.Available || n.State == fleet.Active):
		text := "the machine lost its power, or was switched off by somebody else"
		if n.State == fleet.Available {
			if !n.BurnedAt.IsZero() {
				text += "; its burn-in counts no longer"
			}
			n.BurnedAt = time.Time{}
		}
		v.fault(fleet.Fault{Code: faultPower, Component: powerComponent, Severity: fleet.Warning, Blocks: fleet.BlocksNothing, Evidence: text, Hint: "metalctl node timeline " + n.Name})
	case power == "on" && (n.State == fleet.Grace || n.State == fleet.Allocated):
		v.fault(fleet.Fault{Code: faultPower, Component: powerComponent, Severity: fleet.Critical, Blocks: fleet.BlocksNothing,
			Evidence: "the machine was switched on by somebody else, and may run what its last tenant left", Hint: "metalctl node power off " + n.Name})
	}
}

// powerSet records a power that a step of ours made and read back.
func (v *view) powerSet(name string) {
	switch name {
	case step.PowerOn:
		v.node.v.Power = "on"
	case step.PowerOff:
		v.node.v.Power = "off"
	default:
		return
	}
	v.node.v.ClearFault(faultPower, powerComponent)
}

const (
	faultPower     = "MC-FAULT-POWER"
	powerComponent = "power"
)
