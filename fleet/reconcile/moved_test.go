package reconcile_test

import (
	"slices"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// TestBootsAgainFromTheActingServer: a server takes over while a machine boots from the medium of the one before, at each step of that boot.
func TestBootsAgainFromTheActingServer(t *testing.T) {
	for _, name := range []string{step.MediaInsert, step.BootFromMedia} {
		t.Run("after "+name, func(t *testing.T) {
			w := contract.NewWorld(t)
			w.Machine.Origin = "https://mc1:8443"
			w.Restart()
			w.AtStep(name, fleet.StepStarted, fleet.StepFinished, func(done bool) contract.Blow {
				if !done {
					return contract.Spared
				}
				w.Journalled = nil
				w.Machine.Origin = "https://mc2:8443"
				return contract.KilledBefore // before anything else
			})
			askOnly(t, w, "inspect", api.NodeVerb{})
			w.Settle(8 * time.Hour)
			n := wantState(t, w, fleet.Managed)
			_, op := w.Read()
			if op.State != fleet.OperationDone || len(n.Faults) > 0 || n.Inventory == "" {
				t.Fatalf("%s is %s, faults %+v", op.Use, op.State, n.Faults)
			}
			if n.Boot.Generation != 2 || n.Boot.Origin != "https://mc2:8443" {
				t.Errorf("the agent came with boot generation %d of %q", n.Boot.Generation, n.Boot.Origin)
			}
			again := slices.Index(w.Machine.Log, "insert 2")
			off := slices.Index(w.Machine.Log, "power off")
			if off < 0 || again < off || !slices.Contains(w.Machine.Log[again:], "boots generation 2 from the medium") {
				t.Errorf("what became of the machine: %q", w.Machine.Log)
			}
		})
	}
}

// TestBootsAgainThroughCrashes: the server that took over is killed in its turn, at each write of the boot that it begins anew.
func TestBootsAgainThroughCrashes(t *testing.T) {
	run := func(t *testing.T, blow func(n int) contract.Blow) (writes int) {
		w := contract.NewWorld(t)
		w.Machine.Origin = "https://mc1:8443"
		w.Restart()
		w.AtStep(step.MediaInsert, fleet.StepStarted, fleet.StepFinished, func(done bool) contract.Blow {
			if !done {
				return contract.Spared
			}
			w.Journalled = nil
			w.Machine.Origin = "https://mc2:8443"
			w.Write = func(n int) contract.Blow {
				writes = n
				return blow(n)
			}
			return contract.KilledBefore
		})
		askOnly(t, w, "inspect", api.NodeVerb{})
		w.Settle(8 * time.Hour)
		if n := wantState(t, w, fleet.Managed); len(n.Faults) > 0 || n.Inventory == "" || n.Boot.Origin != "https://mc2:8443" {
			t.Errorf("faults %+v, boot %+v; %q", n.Faults, n.Boot, w.Machine.Log)
		}
		return writes
	}
	writes := run(t, func(int) contract.Blow { return contract.Spared })
	if writes < 8 {
		t.Fatalf("%d writes", writes)
	}
	for at := 1; at <= writes; at++ {
		for _, b := range []contract.Blow{contract.KilledBefore, contract.KilledAfter} {
			run(t, func(n int) contract.Blow {
				if n == at {
					return b
				}
				return contract.Spared
			})
		}
	}
}

// TestBootThatArrivedStays: an agent that came up before its server went is used as it is.
func TestBootThatArrivedStays(t *testing.T) {
	w := contract.NewWorld(t)
	w.Machine.Origin = "https://mc1:8443"
	w.Restart()
	w.AtStep(step.AwaitAgent, fleet.StepPending, fleet.StepStarted, func(done bool) contract.Blow {
		if !done {
			return contract.Spared
		}
		w.Journalled = nil
		w.Machine.Origin = "https://mc2:8443"
		return contract.KilledBefore
	})
	askOnly(t, w, "inspect", api.NodeVerb{})
	w.Settle(8 * time.Hour)
	if n := wantState(t, w, fleet.Managed); n.Boot.Generation != 1 || slices.Contains(w.Machine.Log, "power off") {
		t.Errorf("boot generation %d; %q", n.Boot.Generation, w.Machine.Log)
	}
}
