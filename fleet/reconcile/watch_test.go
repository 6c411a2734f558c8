package reconcile_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/store"
)

// see observes the world's node.
func see(t *testing.T, w *contract.World) fleet.Node {
	t.Helper()
	if err := w.Loop.Observe(t.Context(), w.Node); err != nil {
		t.Fatal(err)
	}
	n, _ := w.Read()
	return n
}

func revision(t *testing.T, w *contract.World) (rev fleet.Revision) {
	t.Helper()
	if err := w.Store.View(t.Context(), func(s fleet.Snapshot) error { rev = s.Revision(); return nil }); err != nil {
		t.Fatal(err)
	}
	return rev
}

// TestUnexpectedPower: a change that no plan made is believed at the second look, is an event and a fault, and ends the freshness of a burn-in. What does not
// change is not written.
func TestUnexpectedPower(t *testing.T) {
	w := available(t)
	n, _ := w.Read()
	if n.Power != "on" {
		t.Fatalf("after its plans the node's power is %q", n.Power)
	}
	n.BurnedAt = w.Clock
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
	before := revision(t, w)
	for range 3 {
		see(t, w)
	}
	if revision(t, w) != before {
		t.Error("looking wrote to the store though nothing changed")
	}
	w.Machine.SwitchOff()
	if n = see(t, w); n.Power != "on" || revision(t, w) != before {
		t.Errorf("the first look was believed: %q", n.Power)
	}
	n = see(t, w)
	if f := n.Fault("MC-FAULT-POWER", "power"); n.Power != "off" || f == nil || f.Blocks != fleet.BlocksNothing || !n.BurnedAt.IsZero() {
		t.Fatalf("power %q, faults %+v, burned in %s", n.Power, n.Faults, n.BurnedAt)
	}
	if power, at := w.Loop.Observed(w.Node); power != "off" || !at.Equal(w.Clock) {
		t.Errorf("observed %q at %s", power, at)
	}
	w.Machine.Reboot()
	see(t, w)
	if n = see(t, w); n.Power != "on" || len(n.Faults) > 0 {
		t.Errorf("power %q, faults %+v", n.Power, n.Faults)
	}
}

// TestPowerThatPlansMake is never a fault, and a glitch of the BMC neither.
func TestPowerThatPlansMake(t *testing.T) {
	w := available(t)
	w.Between = func() {
		if n := see(t, w); n.Fault("MC-FAULT-POWER", "power") != nil {
			t.Fatalf("a plan's own doing: %+v", n.Faults)
		}
	}
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.GraceSeconds = 3600 })
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(30 * time.Minute)
	wantState(t, w, fleet.Grace)
	w.Between = nil
	w.Machine.Reboot() // somebody switches on what may run the tenant's system
	see(t, w)
	if n := see(t, w); n.Fault("MC-FAULT-POWER", "power") == nil || n.Fault("MC-FAULT-POWER", "power").Severity != fleet.Critical {
		t.Errorf("a machine in grace was switched on: %+v", n.Faults)
	}
	w.Machine.SwitchOff()
	see(t, w)
	w.Machine.Reboot()
	if n := see(t, w); n.Power != "on" {
		t.Errorf("one answer was believed: %q", n.Power)
	}
}

// TestLooksAreSpread: a server that starts does not ask all BMCs at once, and each is asked about once a minute.
func TestLooksAreSpread(t *testing.T) {
	w := contract.NewWorld(t)
	const nodes, minutes = 600, 10
	var mono time.Duration
	l := loop(w, "a", func(l *reconcile.Loop) {
		l.Mono = func() time.Duration { return mono }
		l.Store, l.Machine = w.Store, powers(func(context.Context, fleet.NodeID) (string, error) { return "off", nil })
	})
	var ids []fleet.NodeID
	for i := range nodes {
		id := fleet.NodeID(fmt.Sprintf("n%d", i))
		ids = append(ids, id)
		write(t, w, fleet.KeyOf(fleet.KindNode, id), fleet.Node{ID: id, Name: string(id), State: fleet.Available, Power: "off"})
	}
	asked, most := map[fleet.NodeID]int{}, 0
	for ; mono < minutes*time.Minute; mono += time.Second {
		due := l.DueToObserve(ids)
		most = max(most, len(due))
		for _, id := range due {
			asked[id]++
			if err := l.Observe(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if most > nodes/10 {
		t.Errorf("%d of %d BMCs were asked in one second", most, nodes)
	}
	for _, id := range ids {
		if n := asked[id]; n < minutes-1 || n > minutes+1 {
			t.Errorf("%s was asked %d times in %d minutes", id, n, minutes)
		}
	}
}

// TestEveryNodeIsLookedAt: more nodes than can be looked at in a period still all have their turn, one after the other.
func TestEveryNodeIsLookedAt(t *testing.T) {
	w := contract.NewWorld(t)
	const nodes = 200
	for i := range nodes {
		id := fleet.NodeID(fmt.Sprintf("m%d", i))
		write(t, w, fleet.KeyOf(fleet.KindNode, id), fleet.Node{ID: id, Name: string(id), State: fleet.Available, Power: "off"})
	}
	asked := make(chan fleet.NodeID, nodes)
	ctx, cancel := context.WithCancel(t.Context())
	l := loop(w, "a", func(l *reconcile.Loop) {
		// Twenty looks a period would be made by the tick alone.
		l.Observers, l.ObserveEvery = 1, time.Second
		l.Machine = powers(func(ctx context.Context, id fleet.NodeID) (string, error) {
			select {
			case asked <- id:
			case <-ctx.Done():
			}
			return "off", nil
		})
	})
	over := make(chan struct{})
	go func() {
		defer close(over)
		l.Run(ctx) //nolint:errcheck // it ends with its context
	}()
	defer func() { cancel(); <-over }()
	deadline := time.NewTimer(90 * time.Second)
	defer deadline.Stop()
	seen := map[fleet.NodeID]bool{}
	for len(seen) < nodes {
		select {
		case id := <-asked:
			if id[0] == 'm' {
				seen[id] = true
			}
		case <-deadline.C:
			t.Fatalf("%d of %d nodes were looked at", len(seen), nodes)
		}
	}
}

type powers func(context.Context, fleet.NodeID) (string, error)

func (f powers) PowerState(ctx context.Context, id fleet.NodeID) (string, error) { return f(ctx, id) }

// TestDeadStarveNobody: more BMCs that do not answer than there are places do not keep the others from being worked on.
func TestDeadStarveNobody(t *testing.T) {
	db := contract.OpenStoreIn(t, t.TempDir(), store.Options{})
	const each = 6
	dead := func(id fleet.NodeID) bool { return id[0] == 'd' }
	changes := fleet.Change{Writes: []fleet.Write{{Key: fleet.SiteKey, Value: fleet.Site{Isolation: "none"}}}}
	for i := range each {
		for _, kind := range []string{"d", "a"} {
			id := fleet.NodeID(fmt.Sprintf("%s%d", kind, i))
			changes.Writes = append(changes.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindNode, id),
				Value: fleet.Node{ID: id, Name: string(id), State: fleet.Releasing, Dirty: fleet.DirtyUnknown, CreatedAt: time.Now()}})
		}
	}
	if _, err := db.Commit(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	silent := func(ctx context.Context) error {
		<-ctx.Done()
		return fleet.Errorf(fleet.Timeout, "MC-BMC-TIMEOUT", "no answer: %w", ctx.Err())
	}
	l := reconcile.New(&reconcile.Loop{Store: db, Blobs: db, Agents: nobody{}, Parallel: 2, Observers: 2, ObserveLimit: 20 * time.Millisecond, Period: 50 * time.Millisecond,
		Machine: powers(func(ctx context.Context, id fleet.NodeID) (string, error) {
			if dead(id) {
				return "", silent(ctx)
			}
			return "on", nil
		}),
		Funcs: step.Funcs{step.PowerOff: func(ctx context.Context, c step.Call) (step.Outcome, error) {
			if dead(c.Node) {
				return step.Outcome{}, silent(ctx)
			}
			return step.Outcome{}, nil
		}}})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		l.Run(ctx) //nolint:errcheck // it ends with its context
	}()
	defer func() { cancel(); <-over }()
	deadline := time.NewTimer(90 * time.Second)
	defer deadline.Stop()
	for {
		changed := db.Changed()
		waiting := 0
		if err := db.View(t.Context(), func(s fleet.Snapshot) error {
			all, err := fleet.List[fleet.Node](s, fleet.KindNode)
			for _, n := range all {
				if !dead(n.ID) && n.State == fleet.Releasing {
					waiting++
				}
				if dead(n.ID) && n.State != fleet.Releasing {
					t.Errorf("%s is %s", n.ID, n.State)
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if waiting == 0 {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("%d nodes with a good BMC wait behind dead ones", waiting)
		}
	}
}

type nobody struct{}

func (nobody) Up(fleet.NodeID, int64) (bool, time.Time) { return false, time.Time{} }
func (nobody) Wake(fleet.NodeID)                        {}

// TestLooksBeforeItWrites: a server that was started anew reads a machine's power before it does the first step at its BMC.
func TestLooksBeforeItWrites(t *testing.T) {
	w := contract.NewWorld(t)
	looked := false
	w.Loop.Machine = powers(func(ctx context.Context, id fleet.NodeID) (string, error) {
		looked = true
		return w.Machine.PowerState(ctx, id)
	})
	askOnly(t, w, "inspect", api.NodeVerb{})
	looked = false
	identify := w.Loop.Funcs[step.BMCIdentify]
	w.Loop.Funcs[step.BMCIdentify] = func(ctx context.Context, c step.Call) (step.Outcome, error) {
		if !looked {
			t.Error("the first step came before the first look")
		}
		return identify(ctx, c)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Managed)
}
