package reconcile

import (
	"context"
	"fmt"

	"github.com/metalctl/metalctl/fleet"
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
	seen := map[string]any{"accepted": n.AcceptedAs, "inventory": n.Inventory, "differences_found": len(ds)}
	found, why := verdict.NewVariables(*inv, *accepted, v.class)
	if why != "" {
		seen["variables_unknown"] = why
	} else {
		remove, more := grouped(found)
		seen["remove_variables"] = remove
		if more > 0 {
			seen["variables_over"] = more
			faults = append(faults, fleet.Fault{Code: "MC-EFI-VARIABLE", Component: "firmware/variables", Severity: fleet.Critical, Since: v.now, Blocks: fleet.BlocksAllocate,
				Evidence: fmt.Sprintf("%d new variables of the firmware are more than one cleaning removes", len(found)), Hint: "metalctl node clean " + n.Name + " once more"})
		}
	}
	return step.Outcome{Faults: faults, Attachment: cleaning.Compared{Differences: ds}, Evidence: seen}, nil
}

// maxNamed bounds the names of variables in the evidence, in bytes: the journal takes 4 KiB of it.
const maxNamed = 2800

// grouped has variables by GUID, as many as the journal takes, and how many more there are.
func grouped(list []fleet.EFIVariable) (map[string][]string, int) {
	out, size := map[string][]string{}, 0
	for i, v := range list {
		cost := len(v.Name) + 3
		if out[v.GUID] == nil {
			cost += len(v.GUID) + 6
		}
		if size += cost; size > maxNamed {
			return out, len(list) - i
		}
		out[v.GUID] = append(out[v.GUID], v.Name)
	}
	return out, 0
}

// mostAcceptedFaults bounds the faults of one comparison: they stand beside those of the class, in 4 KiB.
const mostAcceptedFaults = 4
