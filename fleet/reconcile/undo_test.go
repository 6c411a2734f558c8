package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// broken fails a step for good when it is next run.
func broken(w *contract.World, name string) {
	w.Machine.Deny(name, fleet.Errorf(fleet.Broken, "MC-TEST-BROKEN", "%s is broken", name))
}

func askOnly(t *testing.T, w *contract.World, verb string, p api.NodeVerb) {
	t.Helper()
	if _, err := w.Loop.Ask(t.Context(), w.Node, verb, p, "tester"); err != nil {
		t.Fatal(err)
	}
}

// TestRetryGoesOnWhileTheAgentIsUp: medium and override go at once, the machine stays on for a while, and a retry does not repeat what was done.
func TestRetryGoesOnWhileTheAgentIsUp(t *testing.T) {
	for name, c := range map[string]struct {
		after   time.Duration
		resumes bool
	}{"at once": {0, true}, "within the time": {10 * time.Minute, true}, "too late": {time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			w := contract.NewWorld(t)
			ask(t, w, "inspect", api.NodeVerb{})
			broken(w, step.CleanBoot)
			askOnly(t, w, "accept", api.NodeVerb{Devices: contract.Disks()})
			w.Settle(time.Minute)
			n := wantState(t, w, fleet.Managed)
			if left := w.Machine.Left(); left != "power On" || n.Undo == nil || n.Undo.Medium || n.Undo.Override || !strings.Contains(w.Loop.Waits(w.Node), "node retry") {
				t.Fatalf("left at the BMC: %q; undo %s; waits %q", left, n.Undo, w.Loop.Waits(w.Node))
			}
			w.Clock = w.Clock.Add(c.after)
			w.Settle(time.Minute)
			if left := w.Machine.Left(); (left == "") == c.resumes {
				t.Fatalf("after %s left at the BMC: %q", c.after, left)
			}
			w.Machine.Log = nil
			ask(t, w, "retry", api.NodeVerb{})
			if n := wantState(t, w, fleet.Available); n.Undo != nil || len(n.Faults) > 0 {
				t.Errorf("undo %s, faults %+v", n.Undo, n.Faults)
			}
			if again := slices.Contains(w.Machine.Log, "agent: "+step.EraseDisks); again == c.resumes {
				t.Errorf("the retry did %q", w.Machine.Log)
			}
			if n, _ := w.Read(); w.Machine.Left() == "" || n.Undo != nil {
				t.Errorf("an available node was switched off: %q", w.Machine.Left())
			}
		})
	}
}

// TestFirstContactStaysHarmless: what no plan of ours had booted is not switched off, whatever fails.
func TestFirstContactStaysHarmless(t *testing.T) {
	for _, name := range []string{step.BMCIdentify, step.PowerOff} {
		t.Run(name, func(t *testing.T) {
			w := contract.NewWorld(t)
			w.Machine.Reboot()
			broken(w, name)
			ask(t, w, "inspect", api.NodeVerb{AllowReboot: true})
			n := wantState(t, w, fleet.Enrolled)
			if w.Machine.Running() == "" || n.Undo != nil {
				t.Errorf("the machine runs %q, undo %s", w.Machine.Running(), n.Undo)
			}
		})
	}
}

// TestFailedRebuild: medium and override go; the tenant's machine is left as it is, and a retry goes on.
func TestFailedRebuild(t *testing.T) {
	for name, wantOn := range map[string]bool{step.MediaInsert: false, step.VerifyImage: true} {
		t.Run(name, func(t *testing.T) {
			w := available(t)
			leased(t, w, nil)
			broken(w, name)
			w.Machine.Log = nil
			ask(t, w, "rebuild", api.NodeVerb{})
			n := wantState(t, w, fleet.Active)
			left := w.Machine.Left()
			if n.Undo != nil || (left == "power On") != wantOn || left != "" && left != "power On" || n.Fault("MC-FAULT-REBUILD", "plan/rebuild") == nil {
				t.Fatalf("left at the BMC: %q; undo %s; faults %+v", left, n.Undo, n.Faults)
			}
			if i := slices.Index(w.Machine.Log, "power off"); i >= 0 && slices.Contains(w.Machine.Log[i+1:], "power off") {
				t.Errorf("the tenant's machine was switched off for a clean-up: %q", w.Machine.Log)
			}
			ask(t, w, "retry", api.NodeVerb{})
			if n := wantState(t, w, fleet.Active); len(n.Faults) > 0 || w.Machine.Running() != "debian" {
				t.Errorf("faults %+v, runs %q", n.Faults, w.Machine.Running())
			}
		})
	}
}

// TestAbortWhileTheAgentIsSilent: a rebuild whose agent says nothing can be aborted, which says that the agent may go on; a retry ends well.
func TestAbortWhileTheAgentIsSilent(t *testing.T) {
	w := available(t)
	leased(t, w, nil)
	askOnly(t, w, "rebuild", api.NodeVerb{})
	w.Between = func() {
		if _, op := w.Read(); op.Current() >= 0 && op.Steps[op.Current()].Name == step.WriteImage && op.Steps[op.Current()].State == fleet.StepStarted {
			w.Between, w.Machine.Silent, w.Machine.Log = nil, true, nil
			askOnly(t, w, "abort", api.NodeVerb{})
		}
	}
	w.Settle(time.Hour)
	n := wantState(t, w, fleet.Active)
	_, op := w.Read()
	if op.State != fleet.OperationAborted || !strings.Contains(op.Error.Detail, "agent was silent") || n.Fault("MC-FAULT-REBUILD", "plan/rebuild") == nil || slices.Contains(w.Machine.Log, "power off") {
		t.Fatalf("operation %s: %+v; faults %+v; %q", op.State, op.Error, n.Faults, w.Machine.Log)
	}
	w.Machine.Silent = false
	w.Machine.Reboot() // somebody followed the advice
	ask(t, w, "retry", api.NodeVerb{AllowReboot: true})
	if n := wantState(t, w, fleet.Active); len(n.Faults) > 0 || w.Machine.Running() != "debian" {
		t.Errorf("faults %+v, runs %q, %q", n.Faults, w.Machine.Running(), w.Machine.Log)
	}
}

// TestUndoAndPeople: a hold stops it, protection keeps the machine on, an abort of it is refused.
func TestUndoAndPeople(t *testing.T) {
	failed := func(t *testing.T, first func(w *contract.World)) *contract.World {
		w := contract.NewWorld(t)
		broken(w, step.AwaitAgent)
		askOnly(t, w, "inspect", api.NodeVerb{})
		w.Between = func() {
			if n, _ := w.Read(); n.Undo != nil {
				w.Between = nil
				first(w)
			}
		}
		w.Settle(time.Hour)
		return w
	}
	t.Run("hold", func(t *testing.T) {
		w := failed(t, func(w *contract.World) { askOnly(t, w, "hold", api.NodeVerb{Reason: "mine"}) })
		if left := w.Machine.Left(); !strings.Contains(left, "medium") || !strings.Contains(left, "power") || !strings.Contains(w.Loop.Waits(w.Node), "unhold") {
			t.Fatalf("left %q, waits %q", left, w.Loop.Waits(w.Node))
		}
		ask(t, w, "unhold", api.NodeVerb{})
		if left := w.Machine.Left(); left != "" {
			t.Errorf("left %q", left)
		}
	})
	t.Run("hold in the middle", func(t *testing.T) {
		w := failed(t, func(w *contract.World) {
			w.AtStep(step.BMCIdentify, fleet.StepStarted, fleet.StepFinished, func(bool) contract.Blow {
				w.Journalled = nil
				askOnly(t, w, "hold", api.NodeVerb{Reason: "mine"})
				return contract.Spared
			})
		})
		if left := w.Machine.Left(); !strings.Contains(left, "power") {
			t.Fatalf("a held machine was switched off; left %q", left)
		}
		ask(t, w, "unhold", api.NodeVerb{})
		if left := w.Machine.Left(); left != "" {
			t.Errorf("left %q", left)
		}
	})
	t.Run("protected", func(t *testing.T) {
		w := failed(t, func(w *contract.World) { askOnly(t, w, "protect", api.NodeVerb{}) })
		if left := w.Machine.Left(); left != "power On" || !strings.Contains(w.Loop.Waits(w.Node), "unprotect") {
			t.Fatalf("left %q, waits %q", left, w.Loop.Waits(w.Node))
		}
		ask(t, w, "unprotect", api.NodeVerb{})
		if left := w.Machine.Left(); left != "" {
			t.Errorf("left %q", left)
		}
	})
	t.Run("abort", func(t *testing.T) {
		w := failed(t, func(w *contract.World) {
			if _, err := w.Loop.Once(t.Context(), w.Node); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Loop.Ask(t.Context(), w.Node, "abort", api.NodeVerb{}, "tester"); fleet.CodeOf(err) != "MC-ABORT-UNDO" {
				t.Errorf("abort of a clean-up: %v", err)
			}
		})
		if left := w.Machine.Left(); left != "" {
			t.Errorf("left %q", left)
		}
	})
}

// TestUndoMakesRoom: what is asked for while the clean-up runs, or waits for a BMC, comes first, with all that was asked with it.
func TestUndoMakesRoom(t *testing.T) {
	for name, c := range map[string]struct {
		verb string
		body api.NodeVerb
		use  step.Use
		left string
	}{
		"inspect":             {"inspect", api.NodeVerb{AllowReboot: true}, step.Inspect, "medium 1 inserted, power On"},
		"retry":               {"retry", api.NodeVerb{AllowReboot: true}, step.Inspect, "medium 1 inserted, power On"},
		"out of band changes": {"inspect", api.NodeVerb{OutOfBand: true}, step.Inspect, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := contract.NewWorld(t)
			broken(w, step.AwaitAgent)
			askOnly(t, w, "inspect", api.NodeVerb{})
			w.Between = func() {
				if _, op := w.Read(); op.Use == string(step.Undo) {
					w.Between = nil
					w.Machine.Deny(step.BMCIdentify, fleet.Errorf(fleet.Unavailable, "MC-TEST-AWAY", "the BMC does not answer"))
					if m, err := w.Loop.Once(t.Context(), w.Node); err != nil || m.Use != step.Undo {
						t.Fatalf("%+v, %v", m, err)
					}
					askOnly(t, w, c.verb, c.body)
				}
			}
			w.Settle(time.Hour)
			n := wantState(t, w, fleet.Managed)
			if _, op := w.Read(); op.Use != string(c.use) || op.State != fleet.OperationDone || n.Undo != nil || len(n.Faults) > 0 || w.Machine.Left() != c.left {
				t.Errorf("last %s %s, undo %s, faults %+v, left %q", op.Use, op.State, n.Undo, n.Faults, w.Machine.Left())
			}
		})
	}
}

// TestReleaseTakesEverythingBack: a release in the middle of a boot leaves neither medium nor override, and nothing is left to be put right.
func TestReleaseTakesEverythingBack(t *testing.T) {
	w := available(t)
	w.Machine.Reboot() // the agent is gone, so that deploying boots anew
	w.Machine.Deny(step.PowerOn, fleet.Errorf(fleet.Unavailable, "MC-TEST-AWAY", "the BMC does not answer"))
	id := leasedWhen(t, w, step.PowerOn)
	if _, err := w.Loop.ReleaseLease(t.Context(), id, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Between = func() {
		n, op := w.Read()
		if n.State == fleet.Cleaning && op.Use == string(step.Release) {
			w.Between = nil
			if left := w.Machine.Left(); left != "" || n.Undo != nil || n.Boot.MediaID != "" {
				t.Errorf("released, and left %q, undo %s", left, n.Undo)
			}
		}
	}
	w.Settle(time.Hour)
	if w.Between != nil {
		t.Error("the release was not seen to end")
	}
	wantState(t, w, fleet.Available)
}

// leasedWhen asks for a lease and returns when its deployment is about to begin that step.
func leasedWhen(t *testing.T, w *contract.World, name string) fleet.LeaseID {
	t.Helper()
	l, err := w.Loop.CreateLease(t.Context(), request(nil), "tester")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := w.Loop.TickLeases(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, op := w.Read(); n.State == fleet.Deploying && op.Current() >= 0 && op.Steps[op.Current()].Name == name {
			return l.ID
		}
		if _, err := w.Loop.Once(t.Context(), w.Node); err != nil {
			t.Fatal(err)
		}
		w.Poll()
	}
	t.Fatalf("the deployment did not come to %s", name)
	return ""
}
