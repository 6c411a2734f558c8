package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
)

// alike puts further nodes into the store that are available as n1 is, on leaves of two, and returns the class.
func alike(t *testing.T, w *contract.World, names ...string) string {
	t.Helper()
	n, _ := w.Read()
	c := fleet.Change{}
	for i, name := range names {
		x := n
		x.ID, x.Name, x.Operation, x.LastOperation = fleet.NodeID("node-"+name), name, "", ""
		x.Ports = slices.Clone(n.Ports)
		for j := range x.Ports {
			x.Ports[j].Port += "-" + name
		}
		x.Labels = map[string]string{"rack": fmt.Sprintf("r%d", i/2), "kind": "copy"}
		c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindNode, x.ID), Value: x})
	}
	if _, err := w.Store.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return n.Class
}

func counting(class string, count int, change func(*fleet.LeaseRequest)) api.LeaseCreate {
	r := api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Count: count, Class: class, Image: "debian"}}
	if change != nil {
		change(&r.LeaseRequest)
	}
	return r
}

func memberNodes(l fleet.Lease) []string {
	var out []string
	for _, m := range l.Members {
		out = append(out, m.Name)
	}
	slices.Sort(out)
	return out
}

func TestLeaseByCount(t *testing.T) {
	w := available(t)
	class := alike(t, w, "a1", "a2", "b1")
	plan, err := w.Loop.PlanLease(t.Context(), counting(class, 2, func(r *fleet.LeaseRequest) { r.Topology = fleet.TopologySameLeaf }), "tester")
	if err != nil || !plan.Fits || plan.Considered != 4 || len(plan.Chosen) != 2 {
		t.Fatalf("plan: %+v, %v", plan, err)
	}
	l, err := w.Loop.CreateLease(t.Context(), counting(class, 2, func(r *fleet.LeaseRequest) { r.Topology = fleet.TopologySameLeaf }), "tester")
	if err != nil {
		t.Fatal(err)
	}
	if got := memberNodes(l); !slices.Equal(got, []string{"a1", "a2"}) || l.Members[1].Index != 1 || !strings.Contains(l.Members[0].Chosen, "rack r0 (2 of 2 free there)") {
		t.Errorf("got %v: %+v", got, l.Members)
	}
	_, err = w.Loop.CreateLease(t.Context(), counting(class, 2, func(r *fleet.LeaseRequest) { r.Topology = fleet.TopologySameLeaf }), "tester")
	var e *fleet.Error
	if !errors.As(err, &e) || e.Code != "MC-LEASE-NOFIT" || e.Kind != fleet.Conflict || e.Hint != "with --topology any 2 would do" {
		t.Fatalf("no two are left on a leaf: %v, hint %q", err, fleet.HintOf(err))
	}
	if !strings.Contains(e.Msg, "2 are not available (2 claimed by a lease)") || len(e.Fields) != 2 || e.Fields[0].Field != "state" || e.Fields[1].Field != "topology" {
		t.Errorf("got %q %+v", e.Msg, e.Fields)
	}
	if _, err := w.Loop.CreateLease(t.Context(), counting("nothing", 1, nil), "tester"); fleet.CodeOf(err) != "MC-LEASE-INVALID" {
		t.Errorf("an unknown class: %v", err)
	}
}

// TestCountsRace: those who ask at once never get one node twice, whichever process they ask.
func TestCountsRace(t *testing.T) {
	w := available(t)
	class := alike(t, w, "a", "b", "c", "d", "e", "f")
	const askers = 6
	all := &sync.WaitGroup{}
	all.Add(askers)
	type answer struct {
		lease fleet.Lease
		err   error
	}
	answers := make(chan answer, askers)
	for i := range askers {
		l := loop(w, fmt.Sprint("p", i), func(l *reconcile.Loop) { l.Store = &gate{Store: w.Store, all: all} })
		go func() {
			x, err := l.CreateLease(context.Background(), counting(class, 2, nil), "tester")
			answers <- answer{x, err}
		}()
	}
	held, won := map[fleet.NodeID]bool{}, 0
	for range askers {
		a := <-answers
		if a.err != nil {
			if fleet.CodeOf(a.err) != "MC-LEASE-NOFIT" {
				t.Errorf("a loser was told: %v", a.err)
			}
			continue
		}
		won++
		for _, m := range a.lease.Members {
			if held[m.Node] {
				t.Errorf("%s is in two leases", m.Name)
			}
			held[m.Node] = true
		}
	}
	if won != 3 || len(held) != 6 {
		t.Errorf("%d leases hold %d of 7 nodes, want 3 with 6", won, len(held))
	}
}

// TestFailedMemberIsReplaced: a node that cannot be reserved any more makes way for another, and the lease goes on.
func TestFailedMemberIsReplaced(t *testing.T) {
	w := available(t)
	class := alike(t, w, "a", "b", "c")
	l, err := w.Loop.CreateLease(t.Context(), counting(class, 1, func(r *fleet.LeaseRequest) { r.Selector = "kind=copy"; r.HostnameTemplate = "gpu-{index}" }), "tester")
	if err != nil {
		t.Fatal(err)
	}
	hold(t, w, l.Members[0].Node)
	tickLeases(t, w)
	l = readLease(t, w, l.ID)
	if got := strings.Join(memberNodes(l), " "); got != "a c" {
		t.Fatalf("members %s: %+v", got, l.Members)
	}
	old, in := l.Members[0], l.Members[1]
	if old.State != fleet.MemberReplaced || old.ReplacedBy != in.Node || old.Unreplaced != "" || in.Hostname != "gpu-0" || in.Chosen == "" || in.State != fleet.MemberReserved {
		t.Errorf("got %+v", l.Members)
	}
	if n := readNode(t, w, in.Node); n.State != fleet.Allocated || n.Lease != l.ID {
		t.Errorf("%s is %s for %q", n.Name, n.State, n.Lease)
	}
	if l.State != fleet.LeaseDeploying {
		t.Errorf("the lease is %s: %s", l.State, l.Fault)
	}
}

// TestNobodyTakesThePlace: where no other fits, or enough were tried, the lease fails, gives back what it had, and says why.
func TestNobodyTakesThePlace(t *testing.T) {
	for name, c := range map[string]struct {
		// replaced is how many of its nodes were replaced before.
		replaced int
		spare    bool
		why      string
	}{
		"none fits":            {why: "1 of class"},
		"too many have failed": {replaced: 2, spare: true, why: "2 nodes were replaced already"},
	} {
		t.Run(name, func(t *testing.T) {
			w := available(t)
			class := alike(t, w, "a", "b")
			l, err := w.Loop.CreateLease(t.Context(), counting(class, 1, func(r *fleet.LeaseRequest) { r.Selector = "kind=copy" }), "tester")
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.replaced {
				l.Members = append(l.Members, fleet.Member{Node: fleet.NodeID(fmt.Sprint("gone", i)), Name: "gone", State: fleet.MemberReplaced, ReplacedBy: "x"})
			}
			if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLease, l.ID), Value: l}}}); err != nil {
				t.Fatal(err)
			}
			hold(t, w, l.Members[0].Node)
			if !c.spare {
				hold(t, w, "node-b")
			}
			tickLeases(t, w)
			l = readLease(t, w, l.ID)
			if l.State != fleet.LeaseFailed || !strings.Contains(l.Fault, "no other node takes its place: ") || !strings.Contains(l.Fault, c.why) {
				t.Errorf("the lease is %s: %s", l.State, l.Fault)
			}
			// It holds nothing.
			if n := readNode(t, w, "node-b"); n.Lease != "" {
				t.Errorf("%s belongs to lease %s", n.Name, n.Lease)
			}
		})
	}
}

// TestReplaceNode: a person takes a node out of a lease that is in use; the other waits with its identity until that is given back.
func TestReplaceNode(t *testing.T) {
	w := available(t)
	alike(t, w, "a", "b")
	id := leased(t, w, nil)
	dry, err := w.Loop.PlanReplace(t.Context(), id, w.Node, api.LeaseReplace{KeepIdentity: true}, "tester")
	if err != nil || dry.Out != "n1" || dry.In != "a" || dry.Hostname != "n1" {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	for name, c := range map[string]struct {
		with, code string
	}{
		"an unknown node":          {"z", "MC-NODE-UNKNOWN"},
		"the node itself":          {"n1", "MC-LEASE-NOFIT"},
		"a node that was held":     {"b", "MC-LEASE-NOFIT"},
		"a protected lease":        {"a", "MC-LEASE-PROTECTED"},
		"a node of another's list": {"a", "MC-LEASE-MEMBER"},
	} {
		out := w.Node
		switch name {
		case "a node that was held":
			hold(t, w, "node-b")
		case "a protected lease":
			if _, err := w.Loop.ProtectLease(t.Context(), id, api.VerbProtect, "tester"); err != nil {
				t.Fatal(err)
			}
		case "a node of another's list":
			out = "node-b"
		}
		if _, err := w.Loop.ReplaceNode(t.Context(), id, out, api.LeaseReplace{With: c.with}, "tester"); fleet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.Loop.ProtectLease(t.Context(), id, api.VerbUnprotect, "tester"); err != nil {
			t.Fatal(err)
		}
	}
	l, err := w.Loop.ReplaceNode(t.Context(), id, w.Node, api.LeaseReplace{With: "a", KeepIdentity: true}, "tester")
	if err != nil {
		t.Fatal(err)
	}
	if m := l.Members[1]; m.Identity != "n1" || m.Hostname != "n1" || m.Index != 0 || l.Members[0].Replaced == "" {
		t.Fatalf("got %+v", l.Members)
	}
	tickLeases(t, w)
	if n := readNode(t, w, "node-a"); n.State != fleet.Allocated || n.Wish != nil {
		t.Errorf("a is %s and wished %+v while n1 may still run", n.State, n.Wish)
	}
	wantState(t, w, fleet.Active)
	if n, _ := w.Read(); n.Wish == nil || n.Wish.Verb != fleet.VerbRelease {
		t.Errorf("n1: wish %+v", n.Wish)
	}
	w.Settle(time.Hour)
	if n := readNode(t, w, "node-a"); n.Wish == nil && n.Operation == "" {
		t.Errorf("n1 is gone, and nobody deploys a")
	}
	if m := readLease(t, w, id).Members[0]; m.State != fleet.MemberReplaced {
		t.Errorf("n1 is %+v", m)
	}
}

func hold(t *testing.T, w *contract.World, id fleet.NodeID) {
	t.Helper()
	if _, err := w.Loop.Ask(t.Context(), id, "hold", api.NodeVerb{Reason: "a reason"}, "tester"); err != nil {
		t.Fatal(err)
	}
}

func tickLeases(t *testing.T, w *contract.World) {
	t.Helper()
	if err := w.Loop.TickLeases(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func readNode(t *testing.T, w *contract.World, id fleet.NodeID) (n fleet.Node) {
	t.Helper()
	err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
		n, _, err = fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, id))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
