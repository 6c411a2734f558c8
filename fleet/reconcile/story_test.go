package reconcile_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

func available(t *testing.T) *contract.World {
	t.Helper()
	w := contract.NewWorld(t)
	ask(t, w, "inspect", api.NodeVerb{})
	ask(t, w, "accept", api.NodeVerb{Devices: contract.Disks()})
	wantState(t, w, fleet.Available)
	return w
}

func request(change func(*fleet.LeaseRequest)) api.LeaseCreate {
	r := api.LeaseCreate{Name: "l1", LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "debian"}}
	if change != nil {
		change(&r.LeaseRequest)
	}
	return r
}

func leased(t *testing.T, w *contract.World, change func(*fleet.LeaseRequest)) fleet.LeaseID {
	t.Helper()
	l, err := w.Loop.CreateLease(t.Context(), request(change), "tester")
	if err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Active)
	return l.ID
}

func readLease(t *testing.T, w *contract.World, id fleet.LeaseID) fleet.Lease {
	t.Helper()
	var l fleet.Lease
	err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
		l, _, err = fleet.Get[fleet.Lease](s, fleet.KeyOf(fleet.KindLease, id))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func refused(t *testing.T, w *contract.World, verb string, v api.NodeVerb, code string) {
	t.Helper()
	before, _ := w.Read()
	_, err := w.Loop.Ask(t.Context(), w.Node, verb, v, "tester")
	if fleet.CodeOf(err) != code {
		t.Errorf("%s: %v with code %q, want %s", verb, err, fleet.CodeOf(err), code)
	}
	if after, _ := w.Read(); after.State != before.State || after.Wish != nil || after.Operation != before.Operation || len(after.Accepted) != len(before.Accepted) {
		t.Errorf("a refused %s changed the node: %+v", verb, after)
	}
}

func TestVerbsRefuse(t *testing.T) {
	w := contract.NewWorld(t)
	refused(t, w, "accept", api.NodeVerb{}, "MC-INVENTORY-NONE")
	refused(t, w, "clean", api.NodeVerb{}, "MC-NODE-VERB")
	refused(t, w, "dance", api.NodeVerb{}, "MC-NODE-VERB")
	refused(t, w, "retry", api.NodeVerb{}, "MC-NODE-RETRY")
	refused(t, w, "abort", api.NodeVerb{}, "MC-NODE-IDLE")
	refused(t, w, "hold", api.NodeVerb{}, "MC-NODE-HOLD-REASON")
	refused(t, w, "clear-fault", api.NodeVerb{FaultCode: "MC-X"}, "MC-NODE-FAULT")
	refused(t, w, "adopt", api.NodeVerb{}, "MC-NODE-GUARD")
	refused(t, w, "inspect", api.NodeVerb{Plan: "sha256:another"}, "MC-PLAN-DIGEST")
	w.Machine.Reboot()
	refused(t, w, "inspect", api.NodeVerb{}, "MC-NODE-RUNNING")
	ask(t, w, "inspect", api.NodeVerb{OutOfBand: true})
	if n := wantState(t, w, fleet.Managed); n.Inventory != "" || w.Machine.Running() == "" {
		t.Error("a look through the BMC alone restarted the machine or made an inventory")
	}
	ask(t, w, "inspect", api.NodeVerb{AllowReboot: true})
	wantState(t, w, fleet.Managed)
	refused(t, w, "accept", api.NodeVerb{}, "MC-ACCEPT-DEVICES")
	refused(t, w, "accept", api.NodeVerb{Devices: []string{"ROOT-1", "CD"}}, "MC-ACCEPT-SERIAL")
	refused(t, w, "accept", api.NodeVerb{Devices: []string{"ROOT-1", "ROOT-1"}}, "MC-ACCEPT-SERIAL")
	ask(t, w, "hold", api.NodeVerb{Reason: "looking at it"})
	refused(t, w, "accept", api.NodeVerb{Devices: contract.Disks()}, "MC-NODE-HELD")
	ask(t, w, "unhold", api.NodeVerb{})
	ask(t, w, "protect", api.NodeVerb{})
	refused(t, w, "accept", api.NodeVerb{Devices: contract.Disks()}, "MC-NODE-PROTECTED")
	ask(t, w, "unprotect", api.NodeVerb{})
	refused(t, w, "retire", api.NodeVerb{}, "MC-NODE-GUARD")
	if w.Machine.Holds("DATA-1") == "" {
		t.Fatal("a disk was erased before anybody accepted")
	}
}

func TestPlanDigestIsKept(t *testing.T) {
	w := contract.NewWorld(t)
	p, err := w.Loop.Plan(t.Context(), w.Node, api.PlanQuery{Use: "inspect"})
	if err != nil || p.Reboots != 1 {
		t.Fatalf("plan %+v, %v", p, err)
	}
	ask(t, w, "inspect", api.NodeVerb{Plan: p.Digest})
	if _, op := w.Read(); op.Plan != p.Digest {
		t.Errorf("ran %s, shown was %s", op.Plan, p.Digest)
	}
	wantState(t, w, fleet.Managed)
}

// TestAcceptRunsWhatWasShown: the first plan that is shown for accept names the devices, and its digest is the one that accept takes.
func TestAcceptRunsWhatWasShown(t *testing.T) {
	for name, c := range map[string]struct {
		devices []string
		erases  int
	}{"all that are listed": {nil, 2}, "one of them": {[]string{"ROOT-1"}, 1}} {
		t.Run(name, func(t *testing.T) {
			w := contract.NewWorld(t)
			ask(t, w, "inspect", api.NodeVerb{})
			p, err := w.Loop.Plan(t.Context(), w.Node, api.PlanQuery{Use: "clean", Devices: c.devices})
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Erases) != c.erases {
				t.Errorf("the plan names %v, want %d devices", p.Erases, c.erases)
			}
			if n, _ := w.Read(); len(n.Accepted) > 0 {
				t.Fatal("showing a plan accepted devices")
			}
			refused(t, w, "accept", api.NodeVerb{Devices: []string{"DATA-1"}, Plan: p.Digest}, "MC-PLAN-DIGEST")
			_, err = w.Loop.Ask(t.Context(), w.Node, "accept", api.NodeVerb{Devices: []string{"DATA-1"}, Plan: p.Digest}, "tester")
			if err == nil || !strings.Contains(err.Error(), "erases: ROOT-1") {
				t.Errorf("the refusal does not name the disk that differs: %v", err)
			}
			ask(t, w, "accept", api.NodeVerb{Devices: c.devices, Plan: p.Digest})
			if _, op := w.Read(); op.Plan != p.Digest {
				t.Errorf("ran %s, shown was %s", op.Plan, p.Digest)
			}
		})
	}
	w := contract.NewWorld(t)
	ask(t, w, "inspect", api.NodeVerb{})
	if _, err := w.Loop.Plan(t.Context(), w.Node, api.PlanQuery{Use: "clean", Devices: []string{"CD"}}); fleet.CodeOf(err) != "MC-ACCEPT-SERIAL" {
		t.Errorf("a plan for a device that accept refuses: %v", err)
	}
}

// TestInspectRunsWhatWasShown: what is allowed to the verb is shown with it.
func TestInspectRunsWhatWasShown(t *testing.T) {
	for name, q := range map[string]api.PlanQuery{"through the BMC": {OutOfBand: true}, "with a restart": {AllowReboot: true}} {
		t.Run(name, func(t *testing.T) {
			w := contract.NewWorld(t)
			w.Machine.Reboot()
			q.Use = "inspect"
			p, err := w.Loop.Plan(t.Context(), w.Node, q)
			if err != nil {
				t.Fatal(err)
			}
			ask(t, w, "inspect", api.NodeVerb{OutOfBand: q.OutOfBand, AllowReboot: q.AllowReboot, Plan: p.Digest})
			if _, op := w.Read(); op == nil || op.Plan != p.Digest || len(op.Steps) != len(p.Steps) {
				t.Errorf("ran %+v, shown was %+v", op, p)
			}
		})
	}
}

// TestAcceptOfOneDevice: the other is not touched, is a fault, and keeps the node from being handed out.
func TestAcceptOfOneDevice(t *testing.T) {
	w := contract.NewWorld(t)
	ask(t, w, "inspect", api.NodeVerb{})
	ask(t, w, "accept", api.NodeVerb{Devices: []string{"ROOT-1"}})
	n := wantState(t, w, fleet.Available)
	if w.Machine.Holds("ROOT-1") != "" || w.Machine.Holds("DATA-1") == "" {
		t.Fatal("not exactly the accepted device was erased")
	}
	if n.Fault("MC-DEVICE-UNEXPECTED", "disk/DATA-1") == nil {
		t.Fatalf("faults %+v", n.Faults)
	}
	if _, err := w.Loop.CreateLease(t.Context(), request(nil), "tester"); fleet.CodeOf(err) != "MC-NODE-GUARD" || !strings.Contains(err.Error(), "DATA-1") {
		t.Fatalf("lease of such a node: %v", err)
	}
	ask(t, w, "inspect", api.NodeVerb{})
	wantState(t, w, fleet.Managed)
	ask(t, w, "accept", api.NodeVerb{Devices: contract.Disks()})
	if n = wantState(t, w, fleet.Available); len(n.Faults) > 0 || w.Machine.Holds("DATA-1") != "" {
		t.Fatalf("faults %+v", n.Faults)
	}
}

// TestAvailableStaysAvailable: looking again costs nothing and changes nothing.
// Cleaning would begin with ports that are another node's, too.
func TestAcceptRefusesAPortOfTwoNodes(t *testing.T) {
	w := contract.NewWorld(t)
	n := asked(t, w, "inspect")
	if len(n.Faults) > 0 || len(n.Ports) == 0 {
		t.Fatalf("before: %+v", n)
	}
	write(t, w, fleet.KeyOf(fleet.KindNode, "other"), fleet.Node{ID: "other", Name: "other", State: fleet.Available, StateSince: w.Clock, CreatedAt: w.Clock, Ports: n.Ports})
	_, err := w.Loop.Ask(t.Context(), w.Node, "accept", api.NodeVerb{Devices: contract.Disks()}, "tester")
	if fleet.CodeOf(err) != "MC-NET-PORT" || !strings.Contains(err.Error(), "other") {
		t.Errorf("accept: %v", err)
	}
	n = asked(t, w, "inspect")
	if f := n.Fault("MC-NET-PORT", "port/leaf-1/swp1"); f == nil || f.Blocks != fleet.BlocksAllocate {
		t.Errorf("after an inspection: %+v", n.Faults)
	}
}

func TestAvailableStaysAvailable(t *testing.T) {
	w := available(t)
	boots := strings.Count(strings.Join(w.Machine.Log, "\n"), "boots")
	ask(t, w, "inspect", api.NodeVerb{})
	wantState(t, w, fleet.Available)
	if got := strings.Count(strings.Join(w.Machine.Log, "\n"), "boots"); got != boots {
		t.Errorf("inspecting an available node restarted it")
	}
}

func TestAbort(t *testing.T) {
	w := contract.NewWorld(t)
	ask(t, w, "inspect", api.NodeVerb{})
	if _, err := w.Loop.Ask(t.Context(), w.Node, "accept", api.NodeVerb{Devices: contract.Disks()}, "tester"); err != nil {
		t.Fatal(err)
	}
	tried := false
	w.Between = func() {
		_, op := w.Read()
		i := op.Current()
		if op.State != fleet.OperationRunning || i < 0 || op.Steps[i].Name != step.EraseDisks || op.Steps[i].State != fleet.StepStarted {
			return
		}
		tried, w.Between = true, nil
		if _, err := w.Loop.Ask(t.Context(), w.Node, "abort", api.NodeVerb{}, "tester"); fleet.CodeOf(err) != "MC-ABORT-STEP" {
			t.Errorf("abort of an erase: %v", err)
		}
		w.Between = func() {
			_, op := w.Read()
			if i := op.Current(); i >= 0 && op.Steps[i].Name == step.VerifyErase && op.Steps[i].State == fleet.StepStarted {
				w.Between = nil
				if _, err := w.Loop.Ask(t.Context(), w.Node, "abort", api.NodeVerb{Reason: "enough"}, "tester"); err != nil {
					t.Error(err)
				}
			}
		}
	}
	w.Settle(time.Hour)
	n := wantState(t, w, fleet.Managed)
	if _, op := w.Read(); !tried || op.State != fleet.OperationAborted || n.Dirty == "" || n.Fault("MC-FAULT-CLEAN", "plan/clean") == nil {
		t.Fatalf("tried %v, operation %s, dirty %q, faults %+v", tried, op.State, n.Dirty, n.Faults)
	}
	ask(t, w, "retry", api.NodeVerb{})
	if n = wantState(t, w, fleet.Available); len(n.Faults) > 0 {
		t.Errorf("faults %+v", n.Faults)
	}
}

// TestIsolationRequired: where the site requires isolation and no driver is bound, nothing is handed out, and a release says why it waits.
func TestIsolationRequired(t *testing.T) {
	w := available(t)
	site := func(s fleet.Site) {
		if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.SiteKey, Value: s}}}); err != nil {
			t.Fatal(err)
		}
	}
	id := leased(t, w, nil)
	site(fleet.Site{Isolation: "required"})
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	n := wantState(t, w, fleet.Releasing)
	if x := n.Fault("MC-FAULT-RELEASE", "plan/release"); x == nil || !strings.Contains(x.Evidence, "MC-NET-NO-DRIVER") || n.Isolated {
		t.Fatalf("node %+v", n)
	}
	if l := readLease(t, w, id); l.State != fleet.LeaseReleasing {
		t.Fatalf("the lease is %s though nothing was isolated", l.State)
	}
	if !strings.Contains(w.Loop.Waits(w.Node), "retry") {
		t.Errorf("waits %q", w.Loop.Waits(w.Node))
	}
	site(fleet.Site{Isolation: "none"})
	ask(t, w, "retry", api.NodeVerb{})
	wantState(t, w, fleet.Available)
	site(fleet.Site{})
	if _, err := w.Loop.CreateLease(t.Context(), request(nil), "tester"); err == nil || !strings.Contains(err.Error(), "isolation is not proven") {
		t.Fatalf("lease without isolation: %v", err)
	}
}

// TestDeadBMCDoesNotDelayIsolation: the lease is released when its member's wires are proven, though the machine cannot be switched off.
func TestDeadBMCDoesNotDelayIsolation(t *testing.T) {
	w := available(t)
	id := leased(t, w, nil)
	w.Loop.Funcs[step.Isolate] = func(context.Context, step.Call) (step.Outcome, error) {
		return step.Outcome{Evidence: map[string]any{"isolated": true}}, nil
	}
	w.Machine.Deny(step.PowerOff, fleet.Errorf(fleet.Denied, "MC-BMC-AUTH", "the BMC refuses"))
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Releasing)
	if l := readLease(t, w, id); l.State != fleet.LeaseReleased {
		t.Fatalf("lease %s", l.State)
	}
	ask(t, w, "retry", api.NodeVerb{})
	wantState(t, w, fleet.Available)
}

func TestAnotherMachineIsNotErased(t *testing.T) {
	w := contract.NewWorld(t)
	ask(t, w, "inspect", api.NodeVerb{})
	n := wantState(t, w, fleet.Managed)
	n.Expect.Serial = "ANOTHER"
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}}}); err != nil {
		t.Fatal(err)
	}
	ask(t, w, "accept", api.NodeVerb{Devices: contract.Disks()})
	n = wantState(t, w, fleet.Managed)
	if n.Fault("MC-NODE-IDENTITY", "system/serial") == nil || w.Machine.Holds("ROOT-1") == "" {
		t.Fatalf("faults %+v, disk %q", n.Faults, w.Machine.Holds("ROOT-1"))
	}
}

func TestRetireAndForget(t *testing.T) {
	w := available(t)
	var asked []fleet.NodeID
	w.Loop.ForgetKeys = func(n fleet.Node) []fleet.Key {
		asked = append(asked, n.ID)
		return nil
	}
	ask(t, w, "retire", api.NodeVerb{})
	wantState(t, w, fleet.Retired)
	if _, err := w.Loop.Ask(t.Context(), w.Node, "forget", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(asked, w.Node) {
		t.Error("what goes with the node was not asked for")
	}
	if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); fleet.CodeOf(err) != "MC-NODE-UNKNOWN" {
		t.Errorf("a forgotten node: %v", err)
	}
}

// TestLateResults: what an agent says of an older try, another boot or a plan that is over changes nothing.
func TestLateResults(t *testing.T) {
	w := contract.NewWorld(t)
	if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Between = func() {
		n, op := w.Read()
		i := op.Current()
		if i < 0 || op.Steps[i].Name != step.Inventory || op.Steps[i].State != fleet.StepStarted {
			return
		}
		w.Between = nil
		good := api.Result{Operation: op.ID, Index: i, Try: op.Steps[i].Try, Step: step.Inventory, Error: &fleet.Problem{Detail: "late"}}
		for name, change := range map[string]func(*api.Result, *int64){
			"older try":         func(r *api.Result, _ *int64) { r.Try-- },
			"another step":      func(r *api.Result, _ *int64) { r.Index-- },
			"no such step":      func(r *api.Result, _ *int64) { r.Index = 99 },
			"another operation": func(r *api.Result, _ *int64) { r.Operation = "x" },
			"older boot":        func(_ *api.Result, g *int64) { *g-- },
		} {
			r, g := good, n.Boot.Generation
			change(&r, &g)
			if err := w.Loop.Report(t.Context(), w.Node, g, r); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, now := w.Read(); now.Steps[i].State != fleet.StepStarted {
				t.Errorf("%s: the step is %s", name, now.Steps[i].State)
			}
		}
		if _, err := w.Loop.TaskFor(t.Context(), w.Node, n.Boot.Generation-1); fleet.CodeOf(err) != "MC-AGENT-GENERATION" {
			t.Errorf("a task for an older boot: %v", err)
		}
	}
	w.Settle(time.Hour)
	wantState(t, w, fleet.Managed)
	if w.Between != nil {
		t.Fatal("the test did not come to its point")
	}
}

// TestInventoryThatIsNone: what an agent sends is checked before it replaces what was known.
func TestInventoryThatIsNone(t *testing.T) {
	w := contract.NewWorld(t)
	if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Between = func() {
		n, op := w.Read()
		if i := op.Current(); i >= 0 && op.Steps[i].Name == step.Inventory && op.Steps[i].State == fleet.StepStarted {
			w.Between = nil
			r := api.Result{Operation: op.ID, Index: i, Try: op.Steps[i].Try, Step: step.Inventory, Attachment: []byte(`{"system":{}}`)}
			if err := w.Loop.Report(t.Context(), w.Node, n.Boot.Generation, r); err != nil {
				t.Error(err)
			}
		}
	}
	w.Settle(time.Hour)
	n := wantState(t, w, fleet.Enrolled)
	if x := n.Fault("MC-FAULT-INSPECT", "plan/inspect"); n.Inventory != "" || x == nil || !strings.Contains(x.Evidence, "MC-INVENTORY-IDENTITY") {
		t.Fatalf("node %+v", n)
	}
}

// TestBootPathOfATrustingBMC: a medium from a server that nobody verified may have been anything, also over https. It is on record before the machine starts.
func TestBootPathOfATrustingBMC(t *testing.T) {
	for name, trusting := range map[string]bool{"verifies the server": false, "verifies nothing": true} {
		t.Run(name, func(t *testing.T) {
			w := contract.NewWorld(t)
			w.Machine.Trusting = trusting
			if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
				t.Fatal(err)
			}
			seen := false
			w.AtStep(step.PowerOn, fleet.StepPending, fleet.StepStarted, func(done bool) contract.Blow {
				if n, _ := w.Read(); n.Boot.Unauthenticated != trusting {
					t.Errorf("before power-on: unauthenticated %v", n.Boot.Unauthenticated)
				}
				seen = done
				return contract.Spared
			})
			w.Settle(time.Hour)
			if n := wantState(t, w, fleet.Managed); !seen || n.Boot.Unauthenticated != trusting {
				t.Errorf("unauthenticated %v, power-on seen %v", n.Boot.Unauthenticated, seen)
			}
		})
	}
}
