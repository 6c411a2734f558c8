package server

import (
	"context"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Power by hand and a plan do not meet: not one that runs, not one that waits, not one that begins meanwhile.
func TestPowerByHandBesidePlans(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error {
		n.Wish = &fleet.Wish{Verb: fleet.VerbInspect, Operation: "x"}
		return nil
	}))
	_, err := w.client.SetPower(ctx, "n1", "off")
	wantCode(t, err, fleet.Conflict, "MC-NODE-BUSY")
	must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error { n.Wish = nil; return nil }))

	began := make(chan struct{})
	w.bmcs.during = func() {
		close(began)
		// A second hand has to wait.
		_, err := w.client.SetPower(ctx, "n1", "on")
		if fleet.CodeOf(err) != "MC-NODE-BUSY" {
			t.Errorf("a second hand got %v", err)
		}
		if _, err := w.engine.Ask(ctx, n.ID, "inspect", api.NodeVerb{}, "tester"); err != nil {
			t.Error(err)
		}
	}
	_, err = w.client.SetPower(ctx, "n1", "off")
	<-began
	wantCode(t, err, fleet.Conflict, "MC-NODE-BUSY")
	must(t, w.engine.finish(ctx, n.ID, fleet.OperationDone))

	// A hold keeps plans away; it is how a person gets the machine's power for himself.
	_, err = w.client.NodeVerb(ctx, "n1", "hold", api.NodeVerb{Reason: "looking"})
	must(t, err)
	w.bmcs.during = nil
	_, err = w.client.SetPower(ctx, "n1", "off")
	must(t, err)
}
