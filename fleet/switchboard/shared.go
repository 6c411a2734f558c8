package switchboard

import (
	"errors"
	"slices"

	"github.com/metalctl/metalctl/fleet"
)

// ownPorts are those of the wires that may be switched off for the node: not one that another node names and has, nor one that another node names and this one
// never had. The error names them.
func ownPorts(s fleet.Snapshot, n fleet.Node, w *fleet.NodeWires, wires []fleet.Wire) (own []fleet.Wire, others, err error) {
	shared, err := fleet.SharedPorts(s, n)
	if err != nil || len(shared) == 0 {
		return wires, nil, err
	}
	own = slices.Clone(wires)
	for _, p := range shared {
		theirs, _, err := maybe[fleet.NodeWires](s, wiresKey(p.With.ID))
		if err != nil {
			return nil, nil, err
		}
		if had(w, p.Wire) && !has(theirs, p.Wire) {
			continue
		}
		if i := slices.IndexFunc(own, p.Wire.Same); i >= 0 {
			own = slices.Delete(own, i, i+1)
			others = errors.Join(others, p.Err(n.Name))
		}
	}
	return own, others, nil
}

// has reports whether the record has the port in a network or partition, or on the way there.
func has(w *fleet.NodeWires, x fleet.Wire) bool {
	return holds(w, x, func(p fleet.WireProof) bool { return p.Where != "" })
}

// had reports that, or that it is not proven yet that the port has left.
func had(w *fleet.NodeWires, x fleet.Wire) bool {
	return holds(w, x, func(p fleet.WireProof) bool { return p.Where != "" || p.Was != "" })
}

func holds(w *fleet.NodeWires, x fleet.Wire, where func(fleet.WireProof) bool) bool {
	return w != nil && slices.ContainsFunc(w.Ports, func(p fleet.WireProof) bool {
		return x.Same(fleet.Wire{Device: p.Device(), Port: p.Port, Fabric: p.Fabric != ""}) && where(p)
	})
}
