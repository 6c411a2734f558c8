package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// KindFreeze holds the freezes in force; a thaw deletes the record.
const KindFreeze = "freeze"

// FreezeID is a UUIDv7 in its text form.
type FreezeID string

// FreezeScope says which nodes a freeze stops.
type FreezeScope string

const (
	// FreezeAll: every node there is and every one that comes.
	FreezeAll FreezeScope = "all"
	// FreezeSite: the nodes whose label SiteLabel is the freeze's site.
	FreezeSite FreezeScope = "site"
	// FreezeLabels: the nodes that have all labels of the freeze.
	FreezeLabels FreezeScope = "labels"
	// FreezeNodes: the nodes that are named.
	FreezeNodes FreezeScope = "nodes"
)

// SiteLabel is the label that says where a node stands.
const SiteLabel = "site"

// FreezeSource says who or what froze.
type FreezeSource string

const (
	FrozenByPerson FreezeSource = "person"
	// FrozenByRestore: the store came from a backup and may know less than the world.
	FrozenByRestore FreezeSource = "restore"
	// FrozenByCheck: the store failed its own check.
	FrozenByCheck FreezeSource = "check"
	// FrozenByWitness: the store is older than what its witness outside saw.
	FrozenByWitness FreezeSource = "witness"
)

// Freeze stops every write to the outside for the nodes that it covers: BMCs, switches and fabrics, isolation included. Reads go on, a call that is
// under way ends, and what the agent does at that moment goes on to its end. It is more than a Hold, which lets the isolation of a release through.
type Freeze struct {
	ID    FreezeID    `json:"id"`
	Scope FreezeScope `json:"scope"`
	// Site is the site of FreezeSite, Labels the selector of FreezeLabels.
	Site   string            `json:"site,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Nodes are the nodes of FreezeNodes. For a site or labels they are the nodes that matched when it was frozen: a label that is changed later
	// takes no node out of a freeze, and may bring one in.
	Nodes []NodeID `json:"nodes,omitempty"`
	// Thawed are the nodes that were let out of it one by one.
	Thawed []NodeID     `json:"thawed,omitempty"`
	Reason string       `json:"reason"`
	By     string       `json:"by"`
	Since  time.Time    `json:"since"`
	Source FreezeSource `json:"source"`
}

// Covers reports whether the freeze stops writes for the node.
func (f Freeze) Covers(n Node) bool { return f.Matches(n) && !slices.Contains(f.Thawed, n.ID) }

// Matches is Covers without regard to nodes that were let out.
func (f Freeze) Matches(n Node) bool {
	switch f.Scope {
	case FreezeAll:
		return true
	case FreezeNodes:
		return slices.Contains(f.Nodes, n.ID)
	case FreezeSite:
		return n.Labels[SiteLabel] == f.Site || slices.Contains(f.Nodes, n.ID)
	case FreezeLabels:
		return hasLabels(n, f.Labels) || slices.Contains(f.Nodes, n.ID)
	}
	return true // what a newer program meant is not known: the safe side
}

func hasLabels(n Node, want map[string]string) bool {
	for k, v := range want {
		if got, ok := n.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Check says what is wrong with a freeze that is to be stored: kind Invalid with every field that is.
func (f Freeze) Check() error {
	e := Errorf(Invalid, "MC-FREEZE-INVALID", "this cannot be frozen")
	wrong := func(field, text string) { e.Fields = append(e.Fields, FieldError{Field: field, Message: text}) }
	if strings.TrimSpace(f.Reason) == "" {
		wrong("reason", "is empty: a freeze says why, for whoever finds it")
	}
	switch f.Source {
	case FrozenByPerson, FrozenByRestore, FrozenByCheck, FrozenByWitness:
	default:
		wrong("source", fmt.Sprintf("%q is none of person, restore, check, witness", f.Source))
	}
	switch f.Scope {
	case FreezeAll:
	case FreezeNodes:
		if len(f.Nodes) == 0 {
			wrong("nodes", "names no node")
		}
	case FreezeSite:
		if f.Site == "" {
			wrong("site", "is empty")
		}
	case FreezeLabels:
		if len(f.Labels) == 0 {
			wrong("labels", "selects by no label: to freeze everything say so")
		}
	default:
		wrong("scope", fmt.Sprintf("%q is none of all, site, labels, nodes", f.Scope))
	}
	if len(e.Fields) == 0 {
		return nil
	}
	return e.WithHint("metalctl freeze --all --reason TEXT, or name nodes, or -l LABEL=VALUE")
}

// What says in words what the freeze covers.
func (f Freeze) What() string {
	out := ""
	switch f.Scope {
	case FreezeAll:
		out = "everything"
	case FreezeSite:
		out = "site " + f.Site
	case FreezeLabels:
		keys := make([]string, 0, len(f.Labels))
		for k, v := range f.Labels {
			keys = append(keys, k+"="+v)
		}
		slices.Sort(keys)
		out = "nodes with " + strings.Join(keys, ",")
	default:
		out = fmt.Sprintf("%d nodes", len(f.Nodes))
	}
	if len(f.Thawed) > 0 {
		out += fmt.Sprintf(", less %d that were thawed", len(f.Thawed))
	}
	return out
}

// Why says in words why the node does not move, and the command that lets it out.
func (f Freeze) Why(n Node) string {
	if f.ID == "" {
		return fmt.Sprintf("held since %s, as %s: metalctl doctor --world; when it is resolved: %s", f.Since.UTC().Format(time.RFC3339), f.Reason, n.DoubtCommand())
	}
	return fmt.Sprintf("frozen since %s by %s (%s): metalctl thaw %s --reason TEXT", f.Since.UTC().Format(time.RFC3339), f.By, f.Reason, n.Name)
}

// FrozenBy returns the oldest of the freezes that covers the node, or nil. A node that a witness knows more of than the store, or of which none tells
// whether it does, is frozen by that fault alone, whatever is thawed: the freeze then has no id.
func FrozenBy(n Node, freezes []Freeze) *Freeze {
	var found *Freeze
	for i := range freezes {
		if f := &freezes[i]; f.Covers(n) && (found == nil || f.Since.Before(found.Since)) {
			found = f
		}
	}
	if found == nil {
		found = n.doubtFreeze()
	}
	return found
}

// Freezes are all freezes in force, by their ids, which is the order in which they began.
func Freezes(s Snapshot) ([]Freeze, error) { return List[Freeze](s, KindFreeze) }

// Frozen returns the freeze that covers a node, or nil. A node that does not exist is covered by what covers everything.
func Frozen(s Snapshot, id NodeID) (Node, *Freeze, error) {
	freezes, err := Freezes(s)
	if err != nil {
		return Node{ID: id}, nil, err
	}
	n, _, err := Get[Node](s, KeyOf(KindNode, id))
	if err != nil {
		if KindOf(err) != NotFound {
			return Node{ID: id}, nil, err
		}
		n = Node{ID: id, Name: string(id)}
	}
	return n, FrozenBy(n, freezes), nil
}

// Writable is the gate that everybody asks immediately before a write to the outside of a node. It returns nil where the write may be made, and
// MC-FROZEN where the node is frozen. Where the store cannot be read, nothing is written either.
func Writable(s Snapshot, id NodeID) error {
	n, f, err := Frozen(s, id)
	if err != nil || f == nil {
		return err
	}
	return f.Refuse(n, "write to")
}

// CodeFrozen is the code of what a freeze refuses.
const CodeFrozen = "MC-FROZEN"

// Refuse makes the error of something that is not done to a node because of the freeze; what is a verb, such as "write to" or "release".
func (f Freeze) Refuse(n Node, what string) *Error {
	if f.ID == "" {
		text := "the store is older than its witness"
		if f.Source == FrozenByRestore {
			text = "the store may be older than what was done with it"
		}
		return Errorf(Refused, CodeFrozen, "%s %s: %s: %s", what, n.Name, text, f.Reason).WithHint("metalctl doctor --world; when it is resolved: %s", n.DoubtCommand())
	}
	return Errorf(Refused, CodeFrozen, "%s %s: it is frozen since %s by %s (%s): %s", what, n.Name, f.Since.UTC().Format(time.RFC3339), f.By, f.Source, f.Reason).
		WithHint("metalctl freeze status; when the reason is gone: metalctl thaw %s --reason TEXT", n.Name)
}

// IsFrozen reports whether a freeze stands anywhere in err's chain.
func IsFrozen(err error) bool {
	switch x := err.(type) {
	case nil:
		return false
	case *Error:
		return x.Code == CodeFrozen || IsFrozen(x.Err)
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(x.Unwrap(), IsFrozen)
	case interface{ Unwrap() error }:
		return IsFrozen(x.Unwrap())
	}
	return false
}
