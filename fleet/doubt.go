package fleet

import (
	"fmt"
	"strings"
	"time"
)

// FaultUnwitnessed: the store may know less of the node than was done with it, and no witness has said yet that it does not. A restore gives it to every
// node, and so does a mark that is gone from a BMC.
const FaultUnwitnessed = "MC-FAULT-UNWITNESSED"

// Doubt is kept beside FaultUnwitnessed: what the store said when the doubt began, which later observations do not change.
type Doubt struct {
	Since time.Time `json:"since"`
	// Power is "on", "off", or "" where the store did not know.
	Power string `json:"power,omitempty"`
}

// Doubted reports whether nobody has vouched yet for what the store knows of the node.
func (n *Node) Doubted() bool { return n.Fault(FaultUnwitnessed, StaleComponent) != nil }

// DoubtStore holds the node by a critical fault that blocks everything and lets nothing be written to it, until a witness or a person vouches for it.
// A node that is known to be stale stays that.
func (n *Node) DoubtStore(why string, now time.Time) {
	if n.Fault(FaultStaleStore, StaleComponent) != nil {
		return
	}
	if n.Doubt == nil {
		n.Doubt = &Doubt{Since: now.UTC(), Power: n.Power}
	}
	if f := n.Fault(FaultUnwitnessed, StaleComponent); f != nil {
		f.Evidence = strings.ToValidUTF8(why[:min(len(why), 300)], "")
		return
	}
	n.RaiseFault(Fault{Code: FaultUnwitnessed, Component: StaleComponent, Severity: Critical, Since: now.UTC(), Blocks: BlocksEverything,
		Evidence: why, Hint: "metalctl doctor --world"})
}

// Sight is what is seen of a node's machine and heard of it, without anything being written.
type Sight struct {
	// Tag is the mark in the BMC, zero where there is none.
	Tag WitnessTag
	// Power is "on", "off", or "" where it could not be told.
	Power string
	// Medium: a boot medium of ours is in a drive.
	Medium bool
	// Logged: a log outside goes back to before the store's present life, could be read, and tells nothing of the node that the store does not know.
	Logged bool
}

// Vouch says whether a node that is doubted may be believed. Agrees needs a witness that says so, the mark or a log, and nothing that speaks against it.
// Silent keeps the node held, and the text says why; Stale is for MarkStale.
func (s Sight) Vouch(id StoreIdentity, n *Node) (Testimony, string) {
	testimony, why := s.Tag.Judge(id, n)
	known, _ := ParseWitnessTag(n.BMC.Witness)
	switch {
	case testimony == Stale:
		return Stale, why
	case testimony == Silent && !s.Logged:
		return Silent, why
	case s.Medium && n.Boot.MediaID == "":
		return Silent, "a boot medium is in the machine that the store says was taken out"
	case n.Doubt != nil && n.Doubt.Power != "" && s.Power != n.Doubt.Power:
		return Silent, fmt.Sprintf("the store says that the machine is %s, and it is %s", n.Doubt.Power, orUnknown(s.Power))
	case s.Logged:
		return Agrees, "a log outside knows of nothing that the store does not"
	case s.Tag.IsZero():
		return Silent, "no witness tells: the BMC bears no mark, and no log outside goes back far enough"
	case !id.wrote(s.Tag.Mark):
		return Silent, fmt.Sprintf("no witness tells: the mark %s in the BMC is another store's", s.Tag)
	case s.Tag.Boots < known.Boots || s.Tag.Handovers < known.Handovers:
		return Silent, fmt.Sprintf("the BMC bears the mark %s, and %s was written to it later", s.Tag, known)
	}
	return Agrees, fmt.Sprintf("the BMC bears the mark %s, which the store knows", s.Tag)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// Vouched ends the doubt because a witness agrees. The mark is written anew at the next boot where it was lost.
func (n *Node) Vouched(tag WitnessTag) {
	n.ClearFault(FaultUnwitnessed, StaleComponent)
	n.Doubt = nil
	if tag.IsZero() {
		n.BMC.Witness = ""
	}
}

// VouchedByPerson ends the doubt on a person's word. What a node holds that no lease of the store has is not known then: it is cleaned before anybody gets it.
func (n *Node) VouchedByPerson() {
	n.Doubt = nil
	n.BMC.Witness = ""
	n.mistrustDisks()
}

// mistrustDisks makes a node that nobody has dirty.
func (n *Node) mistrustDisks() {
	if n.Lease == "" && n.Dirty == "" {
		n.Dirty, n.Erased = DirtyUnknown, ""
	}
}

// heldByDoubt is the fault that holds a node against the world, or nil: what a witness knows, or that none is heard.
func (n *Node) heldByDoubt() *Fault {
	if f := n.Fault(FaultStaleStore, StaleComponent); f != nil {
		return f
	}
	return n.Fault(FaultUnwitnessed, StaleComponent)
}

// doubtFreeze is what such a fault means for writes to the outside: none. It has no id, and no thaw ends it.
func (n *Node) doubtFreeze() *Freeze {
	f := n.heldByDoubt()
	if f == nil {
		return nil
	}
	source := FrozenByWitness
	if f.Code == FaultUnwitnessed {
		source = FrozenByRestore
	}
	return &Freeze{Scope: FreezeNodes, Nodes: []NodeID{n.ID}, Reason: f.Evidence, By: "the server", Since: f.Since, Source: source}
}

// DoubtCommand is the command with which a person who has looked lets a node go that is held by a fault of StaleComponent.
func (n *Node) DoubtCommand() string {
	code := FaultStaleStore
	if f := n.heldByDoubt(); f != nil {
		code = f.Code
	}
	return fmt.Sprintf("metalctl node clear-fault %s --code %s --component %s --reason TEXT", n.Name, code, StaleComponent)
}
