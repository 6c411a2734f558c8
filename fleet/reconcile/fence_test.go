package reconcile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// crowd puts n further nodes into the world, m1, m2 and so on, each active for a lease of its own, l1, l2 and so on, that ends at until.
func crowd(t *testing.T, n int, until time.Time) *contract.World {
	t.Helper()
	w := contract.NewWorld(t)
	for i := 1; i <= n; i++ {
		node := fleet.Node{ID: member(i), Name: fmt.Sprintf("m%d", i), Class: "plain", State: fleet.Active, StateSince: w.Clock, Lease: leaseOf(i), Dirty: fleet.Dirty(leaseOf(i)), CreatedAt: w.Clock}
		lease := fleet.Lease{ID: leaseOf(i), Name: fmt.Sprintf("l%d", i), State: fleet.LeaseActive, Since: w.Clock, CreatedAt: w.Clock, CreatedBy: "tester",
			Request: fleet.LeaseRequest{Nodes: []string{node.Name}, Image: "debian", GraceSeconds: 3600, Until: until},
			Members: []fleet.Member{{Node: node.ID, Name: node.Name, Hostname: node.Name, State: fleet.MemberReady}}}
		_, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, node.ID), Value: node}, {Key: fleet.KeyOf(fleet.KindLease, lease.ID), Value: lease}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func member(i int) fleet.NodeID { return fleet.NodeID(fmt.Sprintf("01950000-0000-7000-8000-%012d", i)) }
func leaseOf(i int) fleet.LeaseID {
	return fleet.LeaseID(fmt.Sprintf("01960000-0000-7000-8000-%012d", i))
}

func release(t *testing.T, w *contract.World, i int) error {
	t.Helper()
	_, err := w.Loop.Ask(t.Context(), member(i), "release", api.NodeVerb{}, "ann")
	return err
}

func approvals(t *testing.T, w *contract.World) []fleet.Approval {
	t.Helper()
	var out []fleet.Approval
	err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
		out, err = fleet.List[fleet.Approval](s, fleet.KindApproval)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pass lets time pass while the server runs, which notes it once a minute.
func pass(t *testing.T, w *contract.World, d time.Duration) {
	t.Helper()
	w.Clock = w.Clock.Add(d)
	if err := w.Loop.TickLeases(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestFenceOfSingleRequests: the fifth node within an hour needs a second person, however it is asked: alone, by its lease, after a restart, or with a
// clock that is set; the hour is one that the server ran.
func TestFenceOfSingleRequests(t *testing.T) {
	w := crowd(t, 8, time.Time{})
	pass(t, w, time.Minute)
	for i := 1; i <= 4; i++ {
		if err := release(t, w, i); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	held := func(when string) {
		t.Helper()
		err := release(t, w, 5)
		if fleet.CodeOf(err) != "MC-FENCE" || !strings.Contains(fleet.HintOf(err), "metalctl approve grant ") {
			t.Errorf("%s: %v (%s)", when, err, fleet.HintOf(err))
		}
	}
	held("the fifth")
	if _, err := w.Loop.ReleaseLease(t.Context(), leaseOf(6), "ann"); fleet.CodeOf(err) != "MC-FENCE" {
		t.Errorf("by its lease: %v", err)
	}
	w.Set = 50 * time.Hour
	held("the clock was set ahead")
	w.Restart()
	held("and the server started anew")
	w.Set = -50 * time.Hour
	held("the clock was set back")
	w.Set = 0
	w.Clock = w.Clock.Add(5 * time.Hour)
	w.Restart()
	held("after five hours without a server")
	// One for the node, one for the lease, and one for the node when the clock said that the first was too old.
	if got := approvals(t, w); len(got) != 3 {
		t.Errorf("%d requests for what was asked again and again: %+v", len(got), got)
	}
	// What is done to the same node in another way counts for itself.
	if err := w.Loop.Harm(t.Context(), member(5), fleet.HarmPower, "power off", "ann"); err != nil {
		t.Errorf("another harm: %v", err)
	}
	pass(t, w, 30*time.Minute)
	held("after half an hour")
	pass(t, w, 31*time.Minute)
	if err := release(t, w, 5); err != nil {
		t.Errorf("after an hour: %v", err)
	}
}

// TestFenceOfABatch: one request is made for all, nothing is done before, and the grant lets exactly that happen, once.
func TestFenceOfABatch(t *testing.T) {
	w := crowd(t, 8, time.Time{})
	names := []string{"m1", "m2", "m3", "m4", "m5", "m6"}
	if err := w.Loop.Leave(t.Context(), api.Leave{Verb: "release", Nodes: names[:4]}, "ann"); err != nil {
		t.Errorf("four at once: %v", err)
	}
	if err := w.Loop.Leave(t.Context(), api.Leave{Verb: "inspect", Nodes: names}, "ann"); err != nil {
		t.Errorf("what does no harm: %v", err)
	}
	if err := w.Loop.Leave(t.Context(), api.Leave{Verb: "release", Nodes: names}, "ann"); fleet.CodeOf(err) != "MC-FENCE" {
		t.Fatalf("six at once: %v", err)
	}
	all := approvals(t, w)
	if len(all) != 1 || len(all[0].Nodes) != 6 || all[0].AskedBy != "ann" || all[0].Act != "node release" {
		t.Fatalf("asked for %+v", all)
	}
	id := all[0].ID
	if _, err := w.Loop.Decide(t.Context(), id, "grant", api.Approver{Name: "ann"}, ""); fleet.CodeOf(err) != "MC-APPROVAL-SELF" {
		t.Errorf("granted by who asked: %v", err)
	}
	if _, err := w.Loop.Decide(t.Context(), id, "grant", api.Approver{Name: "eve", Since: w.Clock.Add(time.Second)}, ""); fleet.CodeOf(err) != "MC-APPROVAL-SELF" {
		t.Errorf("granted with a token made for it: %v", err)
	}
	if _, err := w.Loop.Decide(t.Context(), id, "grant", api.Approver{Name: "eve", MadeBy: "ann"}, ""); fleet.CodeOf(err) != "MC-APPROVAL-SELF" {
		t.Errorf("a token that the asker made grants: %v", err)
	}
	if _, err := w.Loop.Decide(t.Context(), "x", "grant", api.Approver{Name: "bob"}, ""); fleet.CodeOf(err) != "MC-APPROVAL-UNKNOWN" {
		t.Errorf("an unknown request: %v", err)
	}
	if a, err := w.Loop.Decide(t.Context(), id, "grant", api.Approver{Name: "bob"}, "planned"); err != nil || a.State != fleet.ApprovalGranted {
		t.Fatalf("grant: %+v, %v", a, err)
	}
	if _, err := w.Loop.Decide(t.Context(), id, "deny", api.Approver{Name: "bob"}, ""); fleet.CodeOf(err) != "MC-APPROVAL-STATE" {
		t.Errorf("decided twice: %v", err)
	}
	if err := w.Loop.Leave(t.Context(), api.Leave{Verb: "release", Nodes: names}, "ann"); err != nil {
		t.Errorf("granted: %v", err)
	}
	w.Restart()
	for i := 1; i <= 6; i++ {
		if err := release(t, w, i); err != nil {
			t.Errorf("granted, node %d: %v", i, err)
		}
	}
	if a := approvals(t, w)[0]; a.State != fleet.ApprovalUsed || len(a.Used) != 6 {
		t.Errorf("after its use: %s, used for %d", a.State, len(a.Used))
	}
	// What two people looked at leaves one person's share as it was.
	if err := release(t, w, 7); err != nil {
		t.Errorf("one more: %v", err)
	}
}

// TestGrantIsForWhatWasAsked: another act on the same nodes, and anything after its time, is not covered.
func TestGrantIsForWhatWasAsked(t *testing.T) {
	w := crowd(t, 6, time.Time{})
	names := []string{"m1", "m2", "m3", "m4", "m5", "m6"}
	ask := func(l api.Leave) error {
		l.Nodes = names
		return w.Loop.Leave(t.Context(), l, "ann")
	}
	if err := ask(api.Leave{Verb: "rebuild", Image: "debian"}); fleet.CodeOf(err) != "MC-FENCE" {
		t.Fatal(err)
	}
	if _, err := w.Loop.Decide(t.Context(), approvals(t, w)[0].ID, "grant", api.Approver{Name: "bob"}, ""); err != nil {
		t.Fatal(err)
	}
	if err := ask(api.Leave{Verb: "rebuild", Image: "debian"}); err != nil {
		t.Errorf("what was granted: %v", err)
	}
	for _, l := range []api.Leave{{Verb: "rebuild", Image: "another"}, {Verb: "rebuild"}, {Verb: "release"}, {Verb: "power-off"}} {
		if err := ask(l); fleet.CodeOf(err) != "MC-FENCE" {
			t.Errorf("%+v by another's grant: %v", l, err)
		}
	}
	pass(t, w, fleet.GrantLife)
	if err := ask(api.Leave{Verb: "rebuild", Image: "debian"}); fleet.CodeOf(err) != "MC-FENCE" {
		t.Errorf("after its time: %v", err)
	}
}

// TestFenceOfLeaseEnds: where many leases end at once, four end, the others go on and say what they wait for; a denial holds, a grant ends one.
func TestFenceOfLeaseEnds(t *testing.T) {
	end := time.Date(2026, 1, 2, 6, 0, 0, 0, time.UTC)
	w := crowd(t, 7, end)
	w.Clock = end.Add(time.Second)
	tick := func() (ended, goOn []fleet.Lease) {
		t.Helper()
		for range 3 {
			if err := w.Loop.TickLeases(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for i := 1; i <= 7; i++ {
			if l := readLease(t, w, leaseOf(i)); l.State == fleet.LeaseActive {
				goOn = append(goOn, l)
			} else {
				ended = append(ended, l)
			}
		}
		return ended, goOn
	}
	ended, goOn := tick()
	if len(ended) != 4 || len(goOn) != 3 {
		t.Fatalf("%d leases ended, %d go on", len(ended), len(goOn))
	}
	asked := approvals(t, w)
	if len(asked) != 3 {
		t.Fatalf("%d requests: %+v", len(asked), asked)
	}
	for i, l := range goOn {
		if !strings.Contains(l.Overdue, "metalctl approve grant "+string(asked[i].ID)) || asked[i].Lease != l.ID || asked[i].AskedBy != "the loop" {
			t.Errorf("lease %s: %q", l.Name, l.Overdue)
		}
	}
	if got := events(t, w, "lease.overdue"); len(got) != 3 {
		t.Errorf("warned %d times", len(got))
	}
	if _, err := w.Loop.Decide(t.Context(), asked[0].ID, "deny", api.Approver{Name: "admin"}, "the clock is wrong"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Loop.Decide(t.Context(), asked[1].ID, "grant", api.Approver{Name: "admin"}, "it is really over"); err != nil {
		t.Fatal(err)
	}
	if ended, goOn = tick(); len(ended) != 5 || len(goOn) != 2 {
		t.Fatalf("after the decisions %d leases ended, %d go on", len(ended), len(goOn))
	}
	if !strings.Contains(goOn[0].Overdue, "admin denied it") || !strings.Contains(goOn[0].Overdue, "the clock is wrong") {
		t.Errorf("denied, the lease says %q", goOn[0].Overdue)
	}
	if got := approvals(t, w); len(got) != 3 {
		t.Errorf("a decided request was asked again: %d", len(got))
	}
}

// TestFenceRaised: a site may say that more is usual there.
func TestFenceRaised(t *testing.T) {
	w := crowd(t, 6, time.Time{})
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.SiteKey, Value: fleet.Site{Isolation: "none", FenceNodes: 6}}}}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 6; i++ {
		if err := release(t, w, i); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	}
}
