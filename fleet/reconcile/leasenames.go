package reconcile

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// nameKey is claimed by the one lease of that name that is not over.
func nameKey(name string) fleet.Key { return fleet.Key(fleet.KindUnique + "/lease-name/" + name) }

// nameTaken refuses a name that a lease has which is not over.
func nameTaken(s fleet.Snapshot, name string, refusal *error) error {
	if name == "" {
		return nil
	}
	owner, err := maybe[string](s, nameKey(name))
	if err == nil && owner.v != nil && *refusal == nil {
		*refusal = fleet.Errorf(fleet.Conflict, "MC-LEASE-NAME", "lease %s has the name %q", *owner.v, name).WithHint("choose another name; metalctl lease show %s", *owner.v)
	}
	return err
}

func namesOf(s fleet.Snapshot) (map[string]fleet.NodeID, error) {
	out := map[string]fleet.NodeID{}
	nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
	for _, n := range nodes {
		out[n.Name] = n.ID
		out[string(n.ID)] = n.ID
	}
	return out, err
}

// named finds a node by its id, or by its name: in the index of names, else among all nodes.
func named(s fleet.Snapshot, name string) (fleet.NodeID, bool, error) {
	_, err := s.Get(fleet.KeyOf(fleet.KindNode, name))
	if err == nil || fleet.KindOf(err) != fleet.NotFound {
		return fleet.NodeID(name), err == nil, err
	}
	owner, err := maybe[fleet.NodeID](s, fleet.Key(fleet.KindUnique+"/node-name/"+name))
	if err != nil {
		return "", false, err
	}
	if owner.v != nil {
		return *owner.v, true, nil
	}
	all, err := namesOf(s)
	id, ok := all[name]
	return id, ok, err
}

// validHost is RFC 1123 section 2.1 for one label or more, in lower case.
var validHost = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// hostname fills the template's {node}, {index} and {lease}; without a template the node's own name is used.
func hostname(l fleet.Lease, node string, index int) string {
	t := l.Request.HostnameTemplate
	if t == "" {
		t = "{node}"
	}
	return strings.ToLower(strings.NewReplacer("{node}", node, "{index}", fmt.Sprint(index), "{lease}", firstOf(l.Name, string(l.ID))).Replace(t))
}
