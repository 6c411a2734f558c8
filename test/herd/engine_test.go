package herd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/store"
)

// fake is hardware that does nothing and always succeeds, as Ironic's fake-hardware driver is: the engine and its store do all that they do otherwise.
type fake struct {
	db   *store.DB
	loop *reconcile.Loop
	ctx  context.Context

	mu    sync.Mutex // guards the rest
	nodes map[fleet.NodeID]*fakeNode
}

type fakeNode struct {
	on, cd, system bool
	generation     int64 // of the agent that is up, or 0
	medium         int64
	wake           chan struct{}
}

func (f *fake) with(id fleet.NodeID, do func(*fakeNode)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(f.nodes[id])
}

func (f *fake) Up(id fleet.NodeID, generation int64) (up bool, since time.Time) {
	f.with(id, func(n *fakeNode) { up = n.generation != 0 && n.generation == generation })
	return up, time.Time{}
}

func (f *fake) Wake(id fleet.NodeID) {
	f.with(id, func(n *fakeNode) {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	})
}

func (f *fake) PowerState(_ context.Context, id fleet.NodeID) (state string, err error) {
	state = "off"
	f.with(id, func(n *fakeNode) {
		if n.on {
			state = "on"
		}
	})
	return state, nil
}

func (f *fake) BootProgress(_ context.Context, id fleet.NodeID) (p string, err error) {
	f.with(id, func(n *fakeNode) {
		if n.system {
			p = "OSRunning"
		}
	})
	return p, nil
}

// insert begins a boot generation, as the registry of boot media does.
func (f *fake) insert(ctx context.Context, c step.Call) (step.Outcome, error) {
	key := fleet.KeyOf(fleet.KindNode, c.Node)
	for {
		var n fleet.Node
		var rev fleet.Revision
		err := f.db.View(ctx, func(s fleet.Snapshot) (err error) {
			n, rev, err = fleet.Get[fleet.Node](s, key)
			return err
		})
		if err != nil {
			return step.Outcome{}, err
		}
		n.Boot = fleet.BootRecord{Generation: n.Boot.Generation + 1, TokenHash: "hash", MediaID: "medium", IssuedAt: time.Now()}
		_, err = f.db.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key, Value: n}}})
		if fleet.CodeOf(err) == "MC-STORE-STALE" {
			continue
		}
		f.with(c.Node, func(x *fakeNode) { x.medium = n.Boot.Generation })
		return step.Outcome{Evidence: map[string]bool{"server_verified": true}}, err
	}
}

func (f *fake) funcs() step.Funcs {
	do := func(change func(*fakeNode)) step.Func {
		return func(_ context.Context, c step.Call) (step.Outcome, error) {
			f.with(c.Node, change)
			return step.Outcome{Evidence: map[string]string{"step": c.Step}}, nil
		}
	}
	off := func(n *fakeNode) { n.on, n.system, n.generation = false, false, 0 }
	return step.Funcs{
		step.BMCIdentify: do(func(*fakeNode) {}), step.MediaInsert: f.insert, step.MediaEject: do(func(n *fakeNode) { n.medium = 0 }),
		step.BootFromMedia: do(func(n *fakeNode) { n.cd = true }), step.BootFromDisk: do(func(n *fakeNode) { n.cd = false }), step.PowerOff: do(off),
		step.PowerOn: do(func(n *fakeNode) {
			off(n)
			if n.on = true; n.cd && n.medium != 0 {
				n.generation = n.medium
			} else {
				n.system = true
			}
			n.cd = false
		}),
	}
}

// agent takes tasks and reports them done until ctx ends.
func (f *fake) agent(id fleet.NodeID, n *fakeNode, inventory json.RawMessage) {
	for {
		select {
		case <-n.wake:
		case <-f.ctx.Done():
			return
		}
		for {
			var generation int64
			f.with(id, func(n *fakeNode) { generation = n.generation })
			if generation == 0 {
				break
			}
			t, err := f.loop.TaskFor(f.ctx, id, generation)
			if err != nil || t == nil {
				break
			}
			r := api.Result{Operation: t.Operation, Index: t.Index, Try: t.Try, Step: t.Step, Evidence: json.RawMessage(`{"serial":"ROOT-1"}`)}
			switch t.Step {
			case step.Inventory:
				r.Attachment = inventory
			case step.AgentPowerOff:
				f.with(id, func(n *fakeNode) { n.on, n.generation = false, 0 })
			}
			if f.loop.Report(f.ctx, id, generation, r) != nil {
				break
			}
		}
	}
}

// TestBenchEngine prints what the engine does with hardware that is as fake as Ironic's: the same cycle, the same journal with an fsync before and after each
// step, the real store and the real loop, without BMCs, agents and the API.
func TestBenchEngine(t *testing.T) {
	needBench(t)
	nodes, seconds := setting("METALCTL_BENCH_CYCLERS", 200), setting("METALCTL_BENCH_CYCLE_SECONDS", 60)
	db, err := store.Open(t.TempDir(), store.Options{Key: make([]byte, store.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := &fake{db: db, ctx: ctx, nodes: map[fleet.NodeID]*fakeNode{}}
	f.loop = reconcile.New(&reconcile.Loop{Store: db, Blobs: db, Timeline: db, Funcs: f.funcs(), Agents: f, Machine: f, Evidence: f, Worker: "bench"})
	c := fleet.Change{Writes: []fleet.Write{{Key: fleet.SiteKey, Value: fleet.Site{Isolation: "none", FenceNodes: 1 << 20}},
		{Key: fleet.KeyOf(fleet.KindClass, "c"), Value: fleet.Class{Name: "c", BurnIn: "none", EraseLevel: "clear"}},
		{Key: fleet.KeyOf(fleet.KindImage, "small"), Value: fleet.Image{Name: "small", URL: "https://images.example/small.raw", Format: "raw", SHA256: fmt.Sprintf("%064d", 1), SizeBytes: 1 << 20}}}}
	if _, err := db.Commit(ctx, c); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var ids []fleet.NodeID
	for i := range nodes {
		id := fleet.NodeID(fmt.Sprintf("0199a000-0000-7000-8000-%012d", i))
		ids = append(ids, id)
		n := fleet.Node{ID: id, Name: fmt.Sprintf("fake-%05d", i), Class: "c", BMC: fleet.BMC{Address: fmt.Sprintf("https://10.0.%d.%d", i>>8, i&255), User: "u", Serial: fmt.Sprint("S", i)},
			State: fleet.Enrolled, Dirty: fleet.DirtyUnknown, CreatedAt: time.Now(), StateSince: time.Now()}
		if _, err := db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, id), Value: n}, {Key: fleet.Key("unique/node-name/" + n.Name), Value: id}}}); err != nil {
			t.Fatal(err)
		}
		inv, err := json.Marshal(fleet.Inventory{Version: 1, System: fleet.System{Serial: n.BMC.Serial}, Disks: []fleet.Disk{{Serial: "ROOT-1", Model: "disk", SizeBytes: 1 << 40, Transport: "nvme"}}})
		if err != nil {
			t.Fatal(err)
		}
		x := &fakeNode{wake: make(chan struct{}, 1)}
		f.nodes[id] = x
		group.Go(func() { f.agent(id, x, inv) })
	}
	group.Go(func() {
		if err := f.loop.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	defer func() {
		cancel()
		group.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	all := func(want fleet.State, verb string) {
		over := time.Now().Add(patience)
		for open := 1; open > 0; {
			changed := db.Changed()
			open = 0
			for _, n := range f.read(t) {
				if n.State != want {
					open++
				}
				if len(n.Faults) > 0 {
					t.Fatalf("%s: %+v", n.Name, n.Faults)
				}
			}
			if time.Now().After(over) {
				t.Fatalf("%d nodes are not %s after %s", open, want, verb)
			}
			if open > 0 {
				select {
				case <-changed:
				case <-time.After(time.Second):
				}
			}
		}
	}
	f.every(t, ids, func(ctx context.Context, id fleet.NodeID) error {
		_, err := f.loop.Ask(ctx, id, "inspect", api.NodeVerb{}, "bench")
		return err
	})
	all(fleet.Managed, "inspect")
	f.every(t, ids, func(ctx context.Context, id fleet.NodeID) error {
		_, err := f.loop.Ask(ctx, id, "accept", api.NodeVerb{Devices: []string{"ROOT-1"}}, "bench")
		return err
	})
	all(fleet.Available, "accept")

	begin, before, commits := time.Now(), ownCPU(t), f.revision(t)
	over := begin.Add(time.Duration(seconds) * time.Second)
	cycles := make([]int, nodes)
	var riders sync.WaitGroup
	for i, id := range ids {
		riders.Go(func() {
			for time.Now().Before(over) && ctx.Err() == nil {
				l, err := f.loop.CreateLease(ctx, api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{string(id)}, Image: "small", Ready: fleet.ReadyOS}}, "bench")
				if err == nil && f.until(ctx, id, fleet.Active) {
					if _, err = f.loop.ReleaseLease(ctx, l.ID, "bench"); err == nil && f.until(ctx, id, fleet.Available) {
						cycles[i]++
					}
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	riders.Wait()
	wall, cpu := time.Since(begin).Seconds(), (ownCPU(t) - before).Seconds()
	sum := 0
	for _, n := range cycles {
		sum += n
	}
	if sum == 0 {
		t.Fatal("no cycle was made")
	}
	fmt.Printf("cycles, %d nodes at once, fake hardware: %.1f commits a cycle\n", nodes, float64(f.revision(t)-commits)/float64(sum))
	fmt.Printf("cycles, %d nodes at once, fake hardware: %.1f a second (Ironic %.1f: %.0f times as many); %.1f ms of CPU a cycle, so %.0f a second and core\n", nodes, float64(sum)/wall,
		ironicCycles, float64(sum)/wall/ironicCycles, 1000*cpu/float64(sum), float64(sum)/cpu)
}

// until waits until a node is in a state; it reports false where ctx ended before. A look costs a microsecond or two: nothing is decoded for it.
func (f *fake) until(ctx context.Context, id fleet.NodeID, want fleet.State) bool {
	for ctx.Err() == nil {
		var got fleet.State
		err := f.db.View(ctx, func(s fleet.Snapshot) error {
			k, _, err := fleet.Peek[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
			if err == nil {
				got = k.Value.(*fleet.Node).State
			}
			return err
		})
		if err != nil {
			return false
		}
		if got == want {
			return true
		}
		pause(ctx, 50*time.Millisecond)
	}
	return false
}

func (f *fake) revision(t *testing.T) (rev fleet.Revision) {
	t.Helper()
	if err := f.db.View(f.ctx, func(s fleet.Snapshot) error {
		rev = s.Revision()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rev
}

func (f *fake) read(t *testing.T) (all []fleet.Node) {
	t.Helper()
	if err := f.db.View(f.ctx, func(s fleet.Snapshot) (err error) {
		all, err = fleet.List[fleet.Node](s, fleet.KindNode)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func (f *fake) every(t *testing.T, ids []fleet.NodeID, do func(context.Context, fleet.NodeID) error) {
	t.Helper()
	for _, id := range ids {
		if err := do(f.ctx, id); err != nil {
			t.Fatal(err)
		}
	}
}

// ownCPU is what this process has used.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
