package allocate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Labels that say where a node is, where no wires are known.
const (
	LabelRack      = "rack"
	LabelRailGroup = "rail_group"
)

// Place is where a node is among the others. Nodes with the same Leaf have all their ports on the same leaf switches; "" where nobody knows.
type Place struct{ Leaf, Group string }

// PlaceOf reads a node's place from where its cables were seen to end, else from where its record says that they do, else from its labels. w may be nil.
func PlaceOf(n *fleet.Node, w *fleet.NodeWires) Place {
	seen := map[string]string{}
	if w != nil {
		for _, p := range w.Ports {
			if i := strings.LastIndexByte(p.Peer, '/'); i > 0 {
				seen[p.Port] = p.Peer[:i]
			}
		}
	}
	var leaves []string
	for _, role := range []string{fleet.PortFabric, "tenant"} {
		for _, p := range n.Ports {
			if p.Role != role {
				continue
			}
			leaf := p.Switch
			if at := seen[string(p.GUID)]; p.GUID != "" && at != "" {
				leaf = at
			}
			if leaf != "" && !slices.Contains(leaves, leaf) {
				leaves = append(leaves, leaf)
			}
		}
		if len(leaves) > 0 {
			break
		}
	}
	slices.Sort(leaves)
	at := Place{Leaf: strings.Join(leaves, " ")}
	if len(leaves) > 0 {
		at.Leaf = "leaf " + at.Leaf
	} else if rack := n.Labels[LabelRack]; rack != "" {
		at.Leaf = "rack " + rack
	}
	if at.Group = at.Leaf; n.Labels[LabelRailGroup] != "" {
		at.Group = "rail group " + n.Labels[LabelRailGroup]
	}
	return at
}

func (p Place) String() string {
	leaf, more, many := strings.Cut(strings.TrimPrefix(p.Leaf, "leaf "), " ")
	switch {
	case p.Leaf == "":
		return "nobody knows where"
	case !strings.HasPrefix(p.Leaf, "leaf ") || !many:
		return p.Leaf
	}
	return fmt.Sprintf("leaf %s and %d more", leaf, len(strings.Fields(more)))
}

// of is the part of the place that a topology looks at; "" is nowhere in particular.
func (p Place) of(t fleet.Topology) string {
	switch t {
	case fleet.TopologySameLeaf:
		return p.Leaf
	case fleet.TopologySameRailGroup:
		return p.Group
	}
	return ""
}

// near reports whether a node there can be with any others, and with those that the lease has.
func (p Place) near(r Request) bool {
	if r.Topology == fleet.TopologyAny {
		return true
	}
	at := p.of(r.Topology)
	return at != "" && (len(r.Beside) == 0 || slices.ContainsFunc(r.Beside, func(b Place) bool { return b.of(r.Topology) == at }))
}
