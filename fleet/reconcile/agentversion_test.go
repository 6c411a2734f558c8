package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// newStep lets a step of the catalogue need a newer agent than the machines of these tests have.
func newStep(t *testing.T, name string) {
	t.Helper()
	i := slices.IndexFunc(step.Catalogue, func(s step.Step) bool { return s.Name == name })
	step.Catalogue[i].Agent = api.AgentVersion + 1
	t.Cleanup(func() { step.Catalogue[i].Agent = 0 })
}

// TestStepThatTheAgentDoesNotKnow: it is never handed out, the plan fails in words, and trying again boots the node anew.
func TestStepThatTheAgentDoesNotKnow(t *testing.T) {
	w := contract.NewWorld(t)
	ask := func(verb string) {
		t.Helper()
		if _, err := w.Loop.Ask(t.Context(), w.Node, verb, api.NodeVerb{}, "tester"); err != nil {
			t.Fatal(err)
		}
		w.Settle(time.Minute)
	}
	newStep(t, step.Inventory)
	ask("inspect")
	n, op := w.Read()
	r := op.Steps[op.Current()]
	if op.State != fleet.OperationFailed || r.Name != step.Inventory || r.Error == nil || r.Error.Code != "MC-AGENT-OLD" || !strings.Contains(r.Error.Hint, "metalctl node retry n1") {
		t.Fatalf("the plan ended %s at %s: %+v", op.State, r.Name, r.Error)
	}
	if r.Try != 1 {
		t.Errorf("it was tried %d times", r.Try)
	}
	if f := n.Fault("MC-FAULT-INSPECT", "plan/inspect"); f == nil || !strings.Contains(f.Evidence, fmt.Sprintf("needs an agent that speaks version %d", api.AgentVersion+1)) {
		t.Errorf("faults %+v", n.Faults)
	}

	// Now the medium has an agent that knows it: the one that is up is not gone on with.
	boots := n.Boot.Generation
	if up, _ := w.Machine.Up(w.Node, boots); !up {
		t.Fatal("the agent went away, so that this shows nothing")
	}
	w.Machine.Speaks = api.AgentVersion + 1
	ask(api.VerbRetry)
	if n, op = w.Read(); op.State != fleet.OperationDone || n.Boot.Generation != boots+1 || n.Boot.Speaks() != api.AgentVersion+1 {
		t.Errorf("tried again: %s, boot %d that speaks %d", op.State, n.Boot.Generation, n.Boot.Speaks())
	}
	if n.Fault("MC-FAULT-INSPECT", "plan/inspect") != nil {
		t.Errorf("faults %+v", n.Faults)
	}
}

// TestRefusedAgentIsNotWaitedFor: an agent that came and was turned away ends the wait for it at once, and is not tried again by itself.
func TestRefusedAgentIsNotWaitedFor(t *testing.T) {
	w := contract.NewWorld(t)
	w.Machine.Refused = "the agent speaks version 1 of the protocol and the server 3 and 2: the ramdisk is too old for this server"
	if _, err := w.Loop.Ask(t.Context(), w.Node, "inspect", api.NodeVerb{}, "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	n, op := w.Read()
	r := op.Steps[op.Current()]
	if op.State != fleet.OperationFailed || r.Name != step.AwaitAgent || r.Error == nil || r.Error.Code != "MC-AGENT-VERSION" || r.Try != 1 {
		t.Fatalf("the plan ended %s at %s, try %d: %+v", op.State, r.Name, r.Try, r.Error)
	}
	if f := n.Fault("MC-FAULT-INSPECT", "plan/inspect"); f == nil || !strings.Contains(f.Evidence, "too old for this server") {
		t.Errorf("faults %+v", n.Faults)
	}
}
