package reconcile

import (
	"context"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// media lists what could hold data in a node: every disk that was accepted, also where it is gone by now, and every disk of the newest inventory by its
// serial number, or by its name where it has none.
func media(n fleet.Node, inv *fleet.Inventory) []string {
	var out []string
	add := func(s string) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, d := range n.Accepted {
		add(d.Serial)
	}
	if inv != nil {
		for _, d := range inv.Disks {
			if !d.BootMedium && !d.Removable {
				add(firstOf(d.Serial, d.Name))
			}
		}
	}
	return out
}

// destruction is what a person says was destroyed, and the inventory that it is compared with.
type destruction struct {
	serials   []string
	inventory *fleet.Inventory
	digest    string
}

// destroyed reads what the record of destroyed media is compared with; nil where none was given.
func (l *Loop) destroyed(ctx context.Context, id fleet.NodeID, verb fleet.Verb, serials []string) (*destruction, error) {
	if verb != fleet.VerbRetire || len(serials) == 0 {
		return nil, nil
	}
	v, err := l.look(ctx, id)
	if err != nil {
		return nil, err
	}
	d := &destruction{serials: serials, digest: v.node.v.Inventory}
	if d.digest != "" {
		d.inventory, err = l.inventory(ctx, v.node.v)
	}
	return d, err
}

// record takes the destroyed media as proof where they are all that the node has.
func (d *destruction) record(n *fleet.Node) error {
	if n.Inventory != d.digest {
		return fleet.Errorf(fleet.Conflict, "MC-RETIRE-MEDIA", "%s was inspected meanwhile", n.Name).WithHint("metalctl node show %s", n.Name)
	}
	if d.inventory == nil {
		return fleet.Errorf(fleet.Invalid, "MC-RETIRE-MEDIA", "nobody knows which media %s has: it was never inspected from inside", n.Name).
			WithHint("metalctl node inspect %s", n.Name)
	}
	all := media(*n, d.inventory)
	var missing []string
	var fields []fleet.FieldError
	for _, s := range all {
		if !slices.Contains(d.serials, s) {
			missing = append(missing, s)
			fields = append(fields, fleet.FieldError{Field: "destroyed", Message: s + " is not named"})
		}
	}
	if len(missing) == 0 {
		n.Destroyed = slices.Clone(d.serials)
		return nil
	}
	refused := fleet.Errorf(fleet.Invalid, "MC-RETIRE-MEDIA", "not every medium of %s is named as destroyed: %s", n.Name, strings.Join(missing, ", ")).
		WithHint("metalctl node retire %s --destroyed %s, when all of them are", n.Name, strings.Join(all, ","))
	refused.Fields = fields
	return refused
}
