package reconcile_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/step"
)

func TestLeaseRefuses(t *testing.T) {
	w := available(t)
	for name, c := range map[string]struct {
		change func(*fleet.LeaseRequest)
		code   string
	}{
		"no node":            {func(r *fleet.LeaseRequest) { r.Nodes = nil }, "MC-LEASE-INVALID"},
		"unknown node":       {func(r *fleet.LeaseRequest) { r.Nodes = []string{"n2"} }, "MC-LEASE-INVALID"},
		"node named twice":   {func(r *fleet.LeaseRequest) { r.Nodes = []string{"n1", string(w.Node)} }, "MC-LEASE-INVALID"},
		"unknown image":      {func(r *fleet.LeaseRequest) { r.Image = "x" }, "MC-LEASE-INVALID"},
		"not a readiness":    {func(r *fleet.LeaseRequest) { r.Ready = "x" }, "MC-LEASE-INVALID"},
		"over already":       {func(r *fleet.LeaseRequest) { r.Until = w.Clock }, "MC-LEASE-INVALID"},
		"more than all":      {func(r *fleet.LeaseRequest) { r.MinReady = 2 }, "MC-LEASE-INVALID"},
		"not a host name":    {func(r *fleet.LeaseRequest) { r.HostnameTemplate = "-{node}" }, "MC-LEASE-INVALID"},
		"phone-home, nobody": {func(r *fleet.LeaseRequest) { r.Ready = fleet.ReadyPhoneHome }, "MC-LEASE-PHONE-HOME"},
	} {
		if _, err := w.Loop.CreateLease(t.Context(), request(c.change), "tester"); fleet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := request(nil)
	big.UserData = make([]byte, fleet.MaxUserData+1)
	if _, err := w.Loop.CreateLease(t.Context(), big, "tester"); fleet.CodeOf(err) != "MC-LEASE-USERDATA" {
		t.Errorf("too much user-data: %v", err)
	}
	leased(t, w, nil)
	if _, err := w.Loop.CreateLease(t.Context(), request(nil), "tester"); fleet.CodeOf(err) != "MC-LEASE-TAKEN" {
		t.Errorf("a second lease of one node: %v", err)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Active)
}

// TestTwoLeasesOneNode: of many that ask at once, one gets it.
func TestTwoLeasesOneNode(t *testing.T) {
	w := available(t)
	const askers = 8
	errs := make(chan error, askers)
	// Everybody has looked before anybody commits.
	all := &sync.WaitGroup{}
	all.Add(askers)
	for range askers {
		l := loop(w, "a", func(l *reconcile.Loop) { l.Store = &gate{Store: w.Store, all: all} })
		go func() {
			_, err := l.CreateLease(context.Background(), request(nil), "tester")
			errs <- err
		}()
	}
	won := 0
	for range askers {
		switch err := <-errs; {
		case err == nil:
			won++
		case fleet.CodeOf(err) != "MC-LEASE-TAKEN":
			t.Errorf("a loser was told: %v", err)
		}
	}
	if won != 1 {
		t.Fatalf("%d leases hold the node", won)
	}
}

// gate is a store whose first commit waits until all are at theirs.
type gate struct {
	fleet.Store
	all    *sync.WaitGroup
	passed bool
}

func (g *gate) Commit(ctx context.Context, c fleet.Change) (fleet.Revision, error) {
	if !g.passed {
		g.passed = true
		g.all.Done()
		g.all.Wait()
	}
	return g.Store.Commit(ctx, c)
}

func TestReleaseEndsADeployment(t *testing.T) {
	w := available(t)
	l, err := w.Loop.CreateLease(t.Context(), request(func(r *fleet.LeaseRequest) { r.GraceSeconds = 3600 }), "tester")
	if err != nil {
		t.Fatal(err)
	}
	w.Between = func() {
		if _, op := w.Read(); op != nil && op.Use == "deploy" && op.Current() >= 0 && op.Steps[op.Current()].Name == step.VerifyImage {
			w.Between = nil
			if _, err := w.Loop.ReleaseLease(t.Context(), l.ID, "tester"); err != nil {
				t.Error(err)
			}
		}
	}
	w.Settle(30 * time.Minute)
	n := wantState(t, w, fleet.Grace)
	if got := readLease(t, w, l.ID); got.State != fleet.LeaseReleased || got.Members[0].State != fleet.MemberReleased {
		t.Fatalf("lease %+v", got)
	}
	if n.Dirty != fleet.Dirty(l.ID) {
		t.Errorf("dirty %q", n.Dirty)
	}
	w.Settle(3 * time.Hour)
	if n = wantState(t, w, fleet.Available); w.Machine.Holds("ROOT-1") != "" {
		t.Error("after the grace time the disk still holds the tenant's data")
	}
}

func TestHeldNodeIsReleasedAllTheSame(t *testing.T) {
	w := available(t)
	id := leased(t, w, nil)
	ask(t, w, "hold", api.NodeVerb{Reason: "evidence"})
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Cleaning)
	if l := readLease(t, w, id); l.State != fleet.LeaseReleased || w.Machine.Running() != "" {
		t.Fatalf("lease %s, machine runs %q", l.State, w.Machine.Running())
	}
	if w.Machine.Holds("ROOT-1") != "debian" || !strings.Contains(w.Loop.Waits(w.Node), "evidence") {
		t.Errorf("a held node was cleaned, or does not say what it waits for: %q", w.Loop.Waits(w.Node))
	}
	ask(t, w, "unhold", api.NodeVerb{})
	wantState(t, w, fleet.Available)
}

// A protected node is not handed out, and says so to whoever asks why; unprotected it is.
func TestProtectedNodeIsNotHandedOut(t *testing.T) {
	w := available(t)
	ask(t, w, "protect", api.NodeVerb{})
	request := api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{string(w.Node)}, Image: "debian", Ready: fleet.ReadyNow}}
	_, err := w.Loop.CreateLease(t.Context(), request, "tester")
	if fleet.CodeOf(err) != "MC-NODE-GUARD" || !strings.Contains(err.Error(), "it is protected") || !strings.Contains(fleet.HintOf(err), "unprotect") {
		t.Fatalf("a lease of a protected node: %v, hint %q", err, fleet.HintOf(err))
	}
	x, err := w.Loop.Explain(t.Context(), w.Node)
	if err != nil || len(x.Reasons) == 0 || x.Reasons[0].Kind != "protect" || !strings.Contains(x.Reasons[0].Text, "no lease may have it") {
		t.Errorf("explained as %+v, %v", x.Reasons, err)
	}
	wantState(t, w, fleet.Available)
	ask(t, w, "unprotect", api.NodeVerb{})
	leased(t, w, nil)
	wantState(t, w, fleet.Active)
}

func TestProtectedLeaseIsNotReleased(t *testing.T) {
	w := available(t)
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.Until = w.Clock.Add(48 * time.Hour) })
	ask(t, w, "protect", api.NodeVerb{})
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); fleet.CodeOf(err) != "MC-NODE-PROTECTED" {
		t.Fatalf("release: %v", err)
	}
	refused(t, w, "release", api.NodeVerb{}, "MC-NODE-PROTECTED")
	refused(t, w, "rebuild", api.NodeVerb{}, "MC-NODE-PROTECTED")
	w.Clock = w.Clock.Add(72 * time.Hour)
	w.Settle(time.Hour)
	wantState(t, w, fleet.Active)
	ask(t, w, "unprotect", api.NodeVerb{})
	wantState(t, w, fleet.Available)
}

func TestLeaseEndsByItself(t *testing.T) {
	w := available(t)
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.Until, r.GraceSeconds = w.Clock.Add(48*time.Hour), 3600 })
	w.Clock = w.Clock.Add(30 * time.Hour)
	w.Settle(time.Minute)
	if l := readLease(t, w, id); l.WarnedAt.IsZero() || l.State != fleet.LeaseActive {
		t.Fatalf("a day before its end: %+v", l)
	}
	w.Clock = w.Clock.Add(18 * time.Hour)
	w.Settle(time.Minute)
	wantState(t, w, fleet.Grace)
	if _, err := w.Loop.ExtendLease(t.Context(), id, api.LeaseExtend{Until: w.Clock.Add(-time.Hour)}, "tester"); fleet.CodeOf(err) != "MC-LEASE-UNTIL" {
		t.Errorf("extended into the past: %v", err)
	}
	if _, err := w.Loop.ExtendLease(t.Context(), id, api.LeaseExtend{Until: w.Clock.Add(time.Hour)}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Minute)
	wantState(t, w, fleet.Active)
	if l := readLease(t, w, id); l.State != fleet.LeaseActive || w.Machine.Running() != "debian" {
		t.Fatalf("lease %s, machine runs %q", l.State, w.Machine.Running())
	}
	w.Clock = w.Clock.Add(2 * time.Hour)
	w.Settle(3 * time.Hour)
	wantState(t, w, fleet.Available)
	if _, err := w.Loop.ExtendLease(t.Context(), id, api.LeaseExtend{Until: w.Clock.Add(time.Hour)}, "tester"); fleet.CodeOf(err) != "MC-LEASE-GRACE" {
		t.Errorf("extended after the grace time: %v", err)
	}
}

func TestFailedDeploymentFailsTheLease(t *testing.T) {
	w := available(t)
	w.Machine.Deny(step.VerifyImage, fleet.Errorf(fleet.Broken, "MC-DISK-READBACK", "the disk holds something else"))
	l, err := w.Loop.CreateLease(t.Context(), request(func(r *fleet.LeaseRequest) { r.GraceSeconds = 3600 }), "tester")
	if err != nil {
		t.Fatal(err)
	}
	w.Settle(10 * time.Minute)
	n := wantState(t, w, fleet.Available)
	if got := readLease(t, w, l.ID); got.State != fleet.LeaseFailed || !strings.Contains(got.Fault, "something else") {
		t.Fatalf("lease %+v", got)
	}
	if x := n.Fault("MC-FAULT-DEPLOY", "plan/deploy"); x == nil || x.Blocks != fleet.BlocksAllocate || n.Lease != "" {
		t.Fatalf("node %+v", n)
	}
	if _, err := w.Loop.CreateLease(t.Context(), request(nil), "tester"); fleet.CodeOf(err) != "MC-NODE-GUARD" {
		t.Fatalf("the node that failed was handed out again: %v", err)
	}
	ask(t, w, "clear-fault", api.NodeVerb{FaultCode: "MC-FAULT-DEPLOY", FaultComponent: "plan/deploy"})
	leased(t, w, nil)
}

// silentBMC follows no boot.
type silentBMC struct{}

func (silentBMC) BootProgress(context.Context, fleet.NodeID) (string, error) { return "", nil }

// TestReadyByPowerAlone: where the BMC does not tell, the proof says how weak it is, and of nothing that nobody looks at.
func TestReadyByPowerAlone(t *testing.T) {
	w := available(t)
	w.Loop.Evidence, w.Loop.PowerOnFor = silentBMC{}, 0
	id := leased(t, w, nil)
	if proof := readLease(t, w, id).Members[0].Proof; !strings.Contains(proof, "power stayed on") || strings.Contains(proof, "console") {
		t.Errorf("the proof is %q", proof)
	}
}

// TestDataDisksAreWipedOnlyWhenAsked: deploying touches the root disk alone, unless the lease says so; a rebuild never touches more.
func TestDataDisksAreWipedOnlyWhenAsked(t *testing.T) {
	for name, wipe := range map[string]bool{"not asked": false, "asked": true} {
		t.Run(name, func(t *testing.T) {
			w := available(t)
			w.Machine.Put("DATA-1", "somebody's data")
			leased(t, w, func(r *fleet.LeaseRequest) { r.WipeData = wipe })
			if got := w.Machine.Holds("DATA-1"); (got == "") != wipe {
				t.Errorf("after deploying the data disk holds %q", got)
			}
			if got := w.Machine.Holds("ROOT-1"); got != "debian" {
				t.Errorf("the root disk holds %q", got)
			}
			w.Machine.Put("DATA-1", "the tenant's data")
			ask(t, w, "rebuild", api.NodeVerb{})
			wantState(t, w, fleet.Active)
			if got := w.Machine.Holds("DATA-1"); got != "the tenant's data" {
				t.Errorf("after a rebuild the data disk holds %q", got)
			}
		})
	}
}

// TestLeaseNamesAreUnique: a name leads to one lease that lives; it is free when that is over, and a lease that comes back without it goes by its id.
func TestLeaseNamesAreUnique(t *testing.T) {
	w := available(t)
	second := fleet.Node{ID: "01940000-0000-7000-8000-000000000002", Name: "n2", Class: "plain", State: fleet.Enrolled, StateSince: w.Clock, CreatedAt: w.Clock}
	first, _ := w.Read()
	second.Compared, second.Erased = first.Compared, first.Erased
	second.State, second.Inventory, second.InventoryAt, second.Accepted = first.State, first.Inventory, first.InventoryAt, first.Accepted
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, second.ID), Value: second}}}); err != nil {
		t.Fatal(err)
	}
	onSecond := request(func(r *fleet.LeaseRequest) { r.Nodes = []string{"n2"} })
	id := leased(t, w, func(r *fleet.LeaseRequest) { r.GraceSeconds = 3600 })
	if _, err := w.Loop.CreateLease(t.Context(), onSecond, "tester"); fleet.CodeOf(err) != "MC-LEASE-NAME" || !strings.Contains(err.Error(), string(id)) {
		t.Fatalf("a second lease of that name: %v", err)
	}
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Minute)
	wantState(t, w, fleet.Grace)
	w.NoLeases = true
	l, err := w.Loop.CreateLease(t.Context(), onSecond, "tester")
	if err != nil {
		t.Fatalf("a name that is free again: %v", err)
	}
	back, err := w.Loop.ExtendLease(t.Context(), id, api.LeaseExtend{Until: w.Clock.Add(10 * time.Hour)}, "tester")
	if err != nil || back.Name != "" {
		t.Fatalf("the lease that comes back is named %q, %v", back.Name, err)
	}
	err = w.Store.View(t.Context(), func(s fleet.Snapshot) error {
		owner, _, err := fleet.Get[string](s, "unique/lease-name/l1")
		if owner != string(l.ID) {
			t.Errorf("the name leads to %q, want %s", owner, l.ID)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRebuildWithAnotherImage: the named image is what is shown, written, written again at a retry, and on record; without a name it is the lease's own.
func TestRebuildWithAnotherImage(t *testing.T) {
	w := available(t)
	id := leased(t, w, nil)
	refused(t, w, "rebuild", api.NodeVerb{Image: "none"}, "MC-IMAGE-UNKNOWN")
	other := fleet.Image{Name: "other", Format: "raw", SHA256: strings.Repeat("0", 64), SizeBytes: 1 << 20, CreatedAt: w.Clock}
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindImage, "other"), Value: other}}}); err != nil {
		t.Fatal(err)
	}
	p, err := w.Loop.Plan(t.Context(), w.Node, api.PlanQuery{Use: "rebuild", Image: "other"})
	if err != nil {
		t.Fatal(err)
	}
	w.Machine.Deny(step.VerifyImage, fleet.Errorf(fleet.Broken, "MC-DISK-READBACK", "the disk holds something else"))
	ask(t, w, "rebuild", api.NodeVerb{Image: "other", Plan: p.Digest})
	w.Machine.Reboot() // so that the retry plans anew
	ask(t, w, "retry", api.NodeVerb{AllowReboot: true})
	wantState(t, w, fleet.Active)
	if l := readLease(t, w, id); w.Machine.Running() != "other" || l.Members[0].Image != "other" || l.Request.Image != "debian" {
		t.Errorf("the machine runs %q, the lease is %+v", w.Machine.Running(), l)
	}
	ask(t, w, "rebuild", api.NodeVerb{})
	if l := readLease(t, w, id); w.Machine.Running() != "debian" || l.Members[0].Image != "" {
		t.Errorf("the machine runs %q, the lease is %+v", w.Machine.Running(), l)
	}
}
