package switchboard_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/provision/fabric"
	"github.com/metalctl/metalctl/provision/fabric/opensm"
)

// rig is a board with one emulated fabric, taken over, and a node on each host but the first.
type rig struct {
	*switchboard.Board
	t      *testing.T
	net    wires.Net
	fabric *wires.Emulated
	now    time.Time
}

func newRig(t *testing.T, hosts int) *rig {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "partitions.conf")
	r := &rig{t: t, net: wires.Net{Hosts: hosts, HCAs: 2, PerLeaf: 16, Spines: 1}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	r.fabric = wires.NewEmulated(r.net, path)
	station := fabric.NewStation(r.fabric, fabric.Options{Patience: 5 * time.Second})
	r.Board = &switchboard.Board{Store: contract.OpenStore(t), Now: func() time.Time { return r.now }, Every: time.Hour, Log: slog.New(slog.DiscardHandler),
		Drive: func(f fleet.Fabric) (switchboard.Driver, error) {
			return opensm.New(opensm.Options{Fabric: f, Path: path, Sweeper: station, Daemon: r.fabric, Settle: 60 * time.Second})
		}}
	if err := r.Declare(t.Context(), r.net.Fabric("ib0"), "somebody"); err != nil {
		t.Fatal(err)
	}
	if err := r.Adopt(t.Context(), "ib0", "somebody"); err != nil {
		t.Fatal(err)
	}
	r.put(fleet.SiteKey, fleet.Site{Isolation: fleet.IsolationInfiniBand})
	for h := 1; h < hosts; h++ {
		n := fleet.Node{ID: node(h), Name: string(node(h)), State: fleet.Available}
		l := fleet.Lease{ID: lease(h), State: fleet.LeaseActive, Members: []fleet.Member{{Node: n.ID, State: fleet.MemberReserved}}}
		for i := range r.net.HCAs {
			n.Ports = append(n.Ports, fleet.Port{GUID: r.net.GUID(h, i), Role: fleet.PortFabric, Fabric: "ib0"})
		}
		r.put(fleet.KeyOf(fleet.KindNode, n.ID), n)
		r.put(fleet.KeyOf(fleet.KindLease, l.ID), l)
	}
	r.Look(t.Context())
	return r
}

func node(h int) fleet.NodeID   { return fleet.NodeID(fmt.Sprintf("n%d", h)) }
func lease(h int) fleet.LeaseID { return fleet.LeaseID(fmt.Sprintf("l%d", h)) }

func (r *rig) put(key fleet.Key, v any) {
	r.t.Helper()
	if _, err := r.Store.Commit(r.t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: v}}}); err != nil {
		r.t.Fatal(err)
	}
}

func get[T any](r *rig, key fleet.Key) (v T) {
	r.t.Helper()
	err := r.Store.View(r.t.Context(), func(s fleet.Snapshot) (err error) {
		v, _, err = fleet.Get[T](s, key)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *rig) trusted(want string) {
	r.t.Helper()
	if err := r.Trusted([]string{"ib0"}); fleet.CodeOf(err) != want {
		r.t.Errorf("trusted: %v, want code %q", err, want)
	}
}

func key(n int) fleet.Carries {
	return fleet.InPartitions(fleet.Membership{PKey: fleet.PKey(n), Full: true})
}

// shows fails unless the node's ports carry that, as the device says.
func (r *rig) shows(h int, want fleet.Carries) {
	r.t.Helper()
	sweep, err := fabric.NewStation(r.fabric, fabric.Options{Patience: 5 * time.Second}).Sweep(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range sweep.Ends {
		if e.GUID == r.net.GUID(h, 0) || e.GUID == r.net.GUID(h, 1) {
			if c := opensm.Carries(e); !c.Equal(want) {
				r.t.Errorf("n%d: port %s carries %s, want %s", h, e.GUID, c, want)
			}
		}
	}
}

func TestAttachAndQuarantine(t *testing.T) {
	r := newRig(t, 4)
	ctx := t.Context()
	if n := get[fleet.Node](r, "node/n1"); !n.Isolated {
		t.Error("a node at rest whose ports were read in quarantine is not called isolated")
	}
	r.put(fleet.SiteKey, fleet.Site{Isolation: fleet.IsolationRequired})
	r.Look(ctx)
	if n := get[fleet.Node](r, "node/n1"); n.Isolated {
		t.Error("a node whose Ethernet ports nobody proved is called isolated where the site requires that")
	}
	r.put(fleet.SiteKey, fleet.Site{Isolation: fleet.IsolationInfiniBand})
	r.Look(ctx)
	for h := 1; h <= 2; h++ {
		w, err := r.Attach(ctx, node(h), lease(h))
		if err != nil || !w.Proven() || w.Partition != fleet.LeasePartition(lease(h)) {
			t.Fatalf("attach n%d: %+v, %v", h, w, err)
		}
	}
	r.shows(1, key(0x100))
	r.shows(2, key(0x101))
	r.shows(3, fleet.InPartitions())
	r.Look(ctx)
	r.trusted("")
	if v, err := r.Verdict(ctx); err != nil || !v.Proven {
		t.Errorf("verdict: %+v, %v", v, err)
	}
	w, err := r.Quarantine(ctx, node(1))
	if err != nil || !w.Proven() || w.Partition != "" || w.Leaving {
		t.Fatalf("quarantine: %+v, %v", w, err)
	}
	r.shows(1, fleet.InPartitions())
	r.shows(2, key(0x101))
	if pool := get[fleet.TagPool](r, "pkeys/ib0"); len(pool.Used) != 1 || len(pool.Resting) != 1 || pool.Resting[0].Tag != 0x100 {
		t.Errorf("the key of the lease does not rest: %+v", pool)
	}
	r.now = r.now.Add(time.Minute)
	r.Look(ctx)
	if pool := get[fleet.TagPool](r, "pkeys/ib0"); len(pool.Resting[0].Unread) != 0 {
		t.Errorf("the key was read clean and is still unread: %+v", pool)
	}
}

// TestNamesOfLeases: a partition of a person's cannot be taken for the one that a lease gets of its own.
func TestNamesOfLeases(t *testing.T) {
	r := newRig(t, 2)
	p := fleet.TenantPartition{Name: fleet.LeasePartition(lease(1)), Keys: []fleet.FabricKey{{Fabric: "ib0", PKey: 0x105}}}
	if err := r.Create(t.Context(), p, "somebody"); fleet.CodeOf(err) != "MC-NET-INVALID" {
		t.Errorf("created: %v", err)
	}
}

// TestAttachFails: without a subnet manager nothing is given, the node is noted as leaving, and the next try of quarantine ends that.
func TestAttachFails(t *testing.T) {
	r := newRig(t, 4)
	find, err := r.fabric.Find()
	if err != nil {
		t.Fatal(err)
	}
	r.fabric.MoveSM(-1, find.Partitions)
	if w, err := r.Attach(t.Context(), node(1), lease(1)); err == nil {
		t.Fatalf("attached without a subnet manager: %+v", w)
	}
	if w := get[fleet.NodeWires](r, "wires/n1"); !w.Leaving || w.Proven() {
		t.Errorf("what was not proven is not leaving: %+v", w)
	}
	r.fabric.MoveSM(0, find.Partitions)
	w, err := r.Quarantine(t.Context(), node(1))
	if err != nil || !w.Proven() || w.Partition != "" {
		t.Fatalf("quarantine: %+v, %v", w, err)
	}
	r.shows(1, fleet.InPartitions())
}

// TestDriftOfOthers: a release does not wait for a port of somebody else that drifts, and a hand-over does.
func TestDriftOfOthers(t *testing.T) {
	r := newRig(t, 4)
	if _, err := r.Attach(t.Context(), node(1), lease(1)); err != nil {
		t.Fatal(err)
	}
	r.fabric.SetTable(r.net.GUID(3, 0), key(0x100))
	if _, err := r.Attach(t.Context(), node(2), lease(2)); fleet.CodeOf(err) != "MC-FABRIC-DRIFT" {
		t.Errorf("attach beside a port that drifts: %v", err)
	}
	if w, err := r.Quarantine(t.Context(), node(1)); err != nil || !w.Proven() {
		t.Errorf("quarantine beside a port that drifts: %+v, %v", w, err)
	}
	r.shows(1, fleet.InPartitions())
}

// TestManyAtOnce: changes that wait for their turn are one, so that the subnet manager is not told once for each.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t, 9)
	before := r.fabric.Reloads()
	var all sync.WaitGroup
	errs := make([]error, 9)
	for h := 1; h < 9; h++ {
		all.Go(func() { _, errs[h] = r.Attach(t.Context(), node(h), lease(h)) })
	}
	all.Wait()
	for h := 1; h < 9; h++ {
		if errs[h] != nil {
			t.Fatalf("attach n%d: %v", h, errs[h])
		}
	}
	if n := r.fabric.Reloads() - before; n > 8 {
		t.Errorf("the subnet manager read its file %d times for eight nodes", n)
	}
	r.Look(t.Context())
	r.trusted("")
}

// TestMassDrift: when far too much has changed at once nothing is believed, and nothing handed out, until the next reading says the same.
func TestMassDrift(t *testing.T) {
	r := newRig(t, 9)
	find, err := r.fabric.Find()
	if err != nil {
		t.Fatal(err)
	}
	r.fabric.MoveSM(-1, find.Partitions) // so that nobody puts it back
	for _, g := range r.net.Nodes() {
		r.fabric.SetTable(g, key(0x100))
	}
	r.Look(t.Context())
	r.trusted("MC-NET-STOPPED")
	if n := get[fleet.Node](r, "node/n1"); !n.Isolated {
		t.Error("a reading that is not believed changed what is known of a node")
	}
	if events := eventsOf(r); !slices.ContainsFunc(events, func(s string) bool { return strings.Contains(s, "MC-FABRIC-MASS") }) {
		t.Errorf("no event tells of it: %q", events)
	}
	r.Look(t.Context())
	r.trusted("MC-NET-STOPPED") // as there is no subnet manager
	if n := get[fleet.Node](r, "node/n1"); n.Isolated {
		t.Error("two readings agree that its ports are in a partition, and it is called isolated")
	}
}

func eventsOf(r *rig) (out []string) {
	r.t.Helper()
	all, err := r.Store.Events(context.Background(), 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range all {
		out = append(out, e.Text)
	}
	return out
}

// TestPlan: what differs from the books is told with who reaches whom by it, and done only as it was told.
func TestPlan(t *testing.T) {
	r := newRig(t, 4)
	if err := r.Create(t.Context(), fleet.TenantPartition{Name: "team", Keys: []fleet.FabricKey{{Fabric: "ib0"}}}, "somebody"); err != nil {
		t.Fatal(err)
	}
	p, err := r.Plan(t.Context())
	if err != nil || p.Digest != "" {
		t.Fatalf("a plan of what is there: %+v, %v", p, err)
	}
	for h := 1; h <= 2; h++ {
		r.put(fleet.KeyOf(fleet.KindWires, node(h)), fleet.NodeWires{Node: node(h), Partition: "team", Lease: lease(h), Since: r.now})
	}
	if p, err = r.Plan(t.Context()); err != nil || p.Digest == "" || len(p.Devices[0].Changes) != 4 || len(p.Lost) != 0 {
		t.Fatalf("plan: %+v, %v", p, err)
	}
	if !slices.Contains(p.Gained, "n1 and n2 in partition 0x0100 of ib0") {
		t.Errorf("gained: %q", p.Gained)
	}
	if err := r.Apply(t.Context(), "sha256:0", "somebody"); fleet.CodeOf(err) != "MC-PLAN-DIGEST" {
		t.Errorf("apply another plan: %v", err)
	}
	r.shows(1, fleet.InPartitions())
	if err := r.Apply(t.Context(), p.Digest, "somebody"); err != nil {
		t.Fatal(err)
	}
	r.shows(1, key(0x100))
	r.shows(3, fleet.InPartitions())
}
