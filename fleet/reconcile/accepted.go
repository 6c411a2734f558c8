package reconcile

import (
	"context"

	"github.com/metalctl/metalctl/fleet/cleaning"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// compareAccepted compares what outlives an erase with the inventory that a person accepted. A node that was accepted before that was kept is compared with
// nothing, and the evidence says so.
func (l *Loop) compareAccepted(ctx context.Context, c step.Call) (step.Outcome, error) {
	v, inv, err := l.inspected(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	n := v.node.v
	if n.AcceptedAs == "" {
		return step.Outcome{Evidence: map[string]string{"skipped": "the node was accepted before its inventory was kept; metalctl node accept " + n.Name + " keeps it"}}, nil
	}
	accepted, err := l.readInventory(ctx, n.Name, n.AcceptedAs)
	if err != nil {
		return step.Outcome{}, err
	}
	ds := verdict.Accepted(*inv, *accepted, v.class)
	faults := few(faultsOf(ds, n.Name), n.Name, "accepted", mostAcceptedFaults)
	for i := range faults {
		faults[i].Hint = "metalctl node cleaning " + n.Name + "; where it is meant to be so: metalctl node inspect " + n.Name + ", then: metalctl node accept " + n.Name
	}
	return step.Outcome{Faults: faults, Attachment: cleaning.Compared{Differences: ds}, Evidence: map[string]any{"accepted": n.AcceptedAs, "inventory": n.Inventory, "differences_found": len(ds)}}, nil
}

// mostAcceptedFaults bounds the faults of one comparison: they stand beside those of the class, in 4 KiB.
const mostAcceptedFaults = 4
