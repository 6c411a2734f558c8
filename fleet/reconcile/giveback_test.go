package reconcile_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
)

// write puts a record as it is.
func write(t *testing.T, w *contract.World, key fleet.Key, v any) {
	t.Helper()
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: v}}}); err != nil {
		t.Fatal(err)
	}
}

// shared adds a second node, which works for the tenant, to a lease.
func shared(t *testing.T, w *contract.World, id fleet.LeaseID) {
	t.Helper()
	l := readLease(t, w, id)
	l.Members = append(l.Members, fleet.Member{Node: "b", Name: "b", Hostname: "b", State: fleet.MemberReady, Since: w.Clock})
	write(t, w, fleet.KeyOf(fleet.KindLease, id), l)
	write(t, w, fleet.KeyOf(fleet.KindNode, "b"), fleet.Node{ID: "b", Name: "b", State: fleet.Active, StateSince: w.Clock, Lease: id, Dirty: fleet.Dirty(id), CreatedAt: w.Clock})
}

// TestGivingOneNodeBack: the lease goes on without it, and it does not come back by itself.
func TestGivingOneNodeBack(t *testing.T) {
	w := available(t)
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.GraceSeconds = 3600 })
	shared(t, w, id)
	if _, err := w.Loop.Ask(t.Context(), w.Node, "release", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Between = func() {
		if n, _ := w.Read(); n.State == fleet.Resuming {
			t.Fatal("a node that was given back went to its tenant again")
		}
	}
	w.Settle(30 * time.Minute)
	wantState(t, w, fleet.Grace)
	if l := readLease(t, w, id); l.State != fleet.LeaseActive || l.Members[0].State != fleet.MemberReleased || l.Members[1].State != fleet.MemberReady {
		t.Fatalf("lease %+v", l)
	}
	w.Settle(3 * time.Hour)
	if n := wantState(t, w, fleet.Available); n.Lease != "" || w.Machine.Holds("ROOT-1") != "" {
		t.Errorf("lease %q, disk %q", n.Lease, w.Machine.Holds("ROOT-1"))
	}
}

// TestRetireByDestruction: destroyed media count as proof only where they are all the media of the node.
func TestRetireByDestruction(t *testing.T) {
	w := contract.NewWorld(t)
	ask(t, w, "inspect", api.NodeVerb{})
	n := wantState(t, w, fleet.Managed)
	n.Accepted = []fleet.AcceptedDevice{{Serial: "GONE-1"}}
	n.Dirty = "l0"
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
	for _, serials := range [][]string{{"ANYTHING"}, {"ROOT-1", "DATA-1"}, {"ROOT-1", "GONE-1"}} {
		_, err := w.Loop.Ask(t.Context(), w.Node, "retire", api.NodeVerb{Destroyed: serials}, "tester")
		if fleet.CodeOf(err) != "MC-RETIRE-MEDIA" || fleet.KindOf(err) != fleet.Invalid {
			t.Errorf("retired by %v: %v", serials, err)
		}
	}
	_, err := w.Loop.Ask(t.Context(), w.Node, "retire", api.NodeVerb{Destroyed: []string{"ROOT-1"}}, "tester")
	if err == nil || !strings.Contains(err.Error(), "GONE-1") || !strings.Contains(err.Error(), "DATA-1") {
		t.Errorf("what is missing is not named: %v", err)
	}
	all := api.NodeVerb{Destroyed: []string{"ROOT-1", "DATA-1", "GONE-1"}}
	ask(t, w, "protect", api.NodeVerb{})
	if _, err := w.Loop.Ask(t.Context(), w.Node, "retire", all, "tester"); fleet.CodeOf(err) != "MC-NODE-PROTECTED" {
		t.Errorf("a protected node: %v", err)
	}
	ask(t, w, "unprotect", api.NodeVerb{})
	if _, err := w.Loop.Ask(t.Context(), w.Node, "forget", api.NodeVerb{}, "tester"); fleet.CodeOf(err) != "MC-NODE-GUARD" {
		t.Errorf("a node with a tenant's data was forgotten: %v", err)
	}
	ask(t, w, "retire", all)
	wantState(t, w, fleet.Retired)
	if _, err := w.Loop.Ask(t.Context(), w.Node, "forget", api.NodeVerb{}, "tester"); err != nil {
		t.Errorf("a node whose media are destroyed cannot be forgotten: %v", err)
	}
}

// refusing is a store that takes no change of one record.
type refusing struct {
	fleet.Store
	key fleet.Key
}

func (r refusing) Commit(ctx context.Context, c fleet.Change) (fleet.Revision, error) {
	for _, w := range c.Writes {
		if w.Key == r.key {
			return 0, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "this record is refused")
		}
	}
	return r.Store.Commit(ctx, c)
}

// TestOneBrokenLeaseStopsNoOther goes on with the leases behind one that cannot be moved, and says which that is.
func TestOneBrokenLeaseStopsNoOther(t *testing.T) {
	w := contract.NewWorld(t)
	for _, id := range []fleet.LeaseID{"l1", "l2"} {
		write(t, w, fleet.KeyOf(fleet.KindLease, id), fleet.Lease{ID: id, State: fleet.LeasePending, CreatedAt: w.Clock})
	}
	l := loop(w, "a", func(l *reconcile.Loop) { l.Store = refusing{w.Store, "lease/l1"} })
	err := l.TickLeases(t.Context())
	if err == nil || !strings.Contains(err.Error(), "l1") {
		t.Errorf("the error does not name the lease: %v", err)
	}
	if x := readLease(t, w, "l2"); x.State == fleet.LeasePending {
		t.Error("the lease behind a broken one was not moved")
	}
}

// TestReleasedMeansSeparated: where nothing but the power switch separates a node from others, its lease is released when the machine is off.
func TestReleasedMeansSeparated(t *testing.T) {
	w := available(t)
	id := leased(t, w, nil)
	w.Machine.Deny(step.PowerOff, fleet.Errorf(fleet.Denied, "MC-BMC-AUTH", "the BMC refuses"))
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	n := wantState(t, w, fleet.Releasing)
	l := readLease(t, w, id)
	if l.State != fleet.LeaseReleasing || l.Members[0].State != fleet.MemberReleasing || w.Machine.Running() == "" {
		t.Fatalf("lease %s, member %s, machine runs %q", l.State, l.Members[0].State, w.Machine.Running())
	}
	if x := n.Fault("MC-FAULT-RELEASE", "plan/release"); x == nil || !strings.Contains(x.Evidence, "may still run") || !strings.Contains(x.Evidence, "MC-BMC-AUTH") {
		t.Errorf("faults %+v", n.Faults)
	}
	ask(t, w, "retry", api.NodeVerb{})
	wantState(t, w, fleet.Available)
	if l := readLease(t, w, id); l.State != fleet.LeaseReleased {
		t.Errorf("lease %s", l.State)
	}
}

// TestClassChanged: what was never compared with the class as it is now is not handed out.
func TestClassChanged(t *testing.T) {
	w := available(t)
	class := fleet.Class{Name: "plain", BurnIn: "none", EraseLevel: "clear", Expect: fleet.ClassExpect{Disks: 2}}
	denied := func(when, why string) {
		t.Helper()
		if _, err := w.Loop.CreateLease(t.Context(), request(nil), "tester"); fleet.CodeOf(err) != "MC-NODE-GUARD" || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", when, err)
		}
	}
	class.Expect.CPUs = 4096
	write(t, w, "class/plain", class)
	denied("the class wants more CPUs", "compared")
	class.Expect.CPUs = 0
	write(t, w, "class/plain", class)
	class.EraseLevel = "purge"
	write(t, w, "class/plain", class)
	denied("the class wants a better erase", "purge")
	class.EraseLevel, class.BurnIn = "clear", "acceptance"
	write(t, w, "class/plain", class)
	denied("the class wants a burn-in", "burn-in")
	class.BurnIn = "none"
	write(t, w, "class/plain", class)
	write(t, w, "class/other", fleet.Class{Name: "other", BurnIn: "none", EraseLevel: "clear"})
	n, _ := w.Read()
	n.Class = "other"
	write(t, w, fleet.KeyOf(fleet.KindNode, n.ID), n)
	denied("the node has another class", "compared")
	ask(t, w, "inspect", api.NodeVerb{})
	wantState(t, w, fleet.Available)
	leased(t, w, nil)
}

// TestFailedMemberGoesBack: a lease that can do without a member gives its node back at once, off, isolated and without grace, and goes on.
func TestFailedMemberGoesBack(t *testing.T) {
	w := available(t)
	broken(w, step.VerifyImage)
	l, err := w.Loop.CreateLease(t.Context(), request(func(r *fleet.LeaseRequest) { r.GraceSeconds, r.MinReady = 3600, 1 }), "tester")
	if err != nil {
		t.Fatal(err)
	}
	shared(t, w, l.ID)
	off, graced := false, false
	w.Between = func() {
		n, op := w.Read()
		off = off || n.State == fleet.Cleaning && op != nil && op.Use == string(step.Release) && w.Machine.Left() == ""
		graced = graced || n.State == fleet.Grace
	}
	w.Settle(30 * time.Minute)
	n := wantState(t, w, fleet.Available)
	if n.Lease != "" || n.Dirty != "" || w.Machine.Holds("ROOT-1") != "" || !off || graced || n.Fault("MC-FAULT-DEPLOY", "plan/deploy") == nil {
		t.Errorf("lease %q, dirty %q, disk %q; off before it was cleaned: %v, in grace: %v, faults %+v", n.Lease, n.Dirty, w.Machine.Holds("ROOT-1"), off, graced, n.Faults)
	}
	if l := readLease(t, w, l.ID); l.State != fleet.LeaseActive || l.Members[0].State != fleet.MemberReleased || l.Members[1].State != fleet.MemberReady {
		t.Errorf("lease %+v", l)
	}
}
