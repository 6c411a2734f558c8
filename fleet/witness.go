package fleet

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// StoreLife is a stretch of a store's history that one line of commits belongs to. A new one begins when a store is made and when a backup is restored,
// so that two histories which went different ways from one revision are told apart.
type StoreLife struct {
	// Epoch is random.
	Epoch string `json:"epoch"`
	// From is the revision at which the life began.
	From Revision  `json:"from"`
	At   time.Time `json:"at"`
}

// StoreIdentity says which store it is, and how far.
type StoreIdentity struct {
	// Lives are oldest first; their number is the store's generation, which only rises.
	Lives    []StoreLife `json:"lives"`
	Revision Revision    `json:"revision"`
}

// Epoch is the present life's, "" where there is none.
func (s StoreIdentity) Epoch() string {
	if len(s.Lives) == 0 {
		return ""
	}
	return s.Lives[len(s.Lives)-1].Epoch
}

// Generation is how many lives the store has had.
func (s StoreIdentity) Generation() int { return len(s.Lives) }

// Knows reports whether what was written at that revision of that life is part of this store's history. It is the question that a witness is for.
func (s StoreIdentity) Knows(epoch string, rev Revision) bool {
	for i, l := range s.Lives {
		if l.Epoch != epoch {
			continue
		}
		end := s.Revision
		if i+1 < len(s.Lives) {
			end = s.Lives[i+1].From
		}
		return rev <= end
	}
	return false
}

// WitnessTag is what is written into the BMC of a node, to testify against a store that is older than what was done to the node. It counts what the
// store counts: a node is handed to nobody and wiped by nobody without one of both rising.
type WitnessTag struct {
	// Mark is the beginning of the epoch of the store that wrote it.
	Mark string
	// Boots is the node's boot generation, Handovers how often it was handed to a tenant.
	Boots, Handovers int64
}

// witnessMark is how many letters of an epoch stand in a tag: some BMCs keep no more than ten characters in all.
const witnessMark = 4

// TagOf is what the BMC of a node shall show.
func TagOf(epoch string, n *Node) WitnessTag {
	return WitnessTag{Mark: epoch[:min(len(epoch), witnessMark)], Boots: n.Boot.Generation, Handovers: n.Handovers}
}

// String is the tag as it stands in a BMC, such as mcq7ra.17.3.
func (t WitnessTag) String() string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("mc%s.%d.%d", t.Mark, t.Boots, t.Handovers)
}

// IsZero reports whether there is no tag.
func (t WitnessTag) IsZero() bool { return t == WitnessTag{} }

var witnessTag = regexp.MustCompile(`(?:^|\s)mc([a-z2-7]{4})\.([0-9]{1,12})\.([0-9]{1,12})$`)

// ParseWitnessTag finds the tag at the end of an asset tag; rest is what somebody else wrote before it. There may be none.
func ParseWitnessTag(asset string) (tag WitnessTag, rest string) {
	asset = strings.TrimSpace(asset)
	m := witnessTag.FindStringSubmatchIndex(asset)
	if m == nil {
		return WitnessTag{}, asset
	}
	boots, err1 := strconv.ParseInt(asset[m[4]:m[5]], 10, 64)
	handovers, err2 := strconv.ParseInt(asset[m[6]:m[7]], 10, 64)
	if err1 != nil || err2 != nil {
		return WitnessTag{}, asset
	}
	return WitnessTag{Mark: asset[m[2]:m[3]], Boots: boots, Handovers: handovers}, strings.TrimSpace(asset[:m[0]])
}

// WithWitnessTag is an asset tag with ours behind what somebody else wrote.
func WithWitnessTag(rest string, tag WitnessTag) string {
	return strings.TrimSpace(rest + " " + tag.String())
}

// Testimony is what a witness says about a store.
type Testimony string

const (
	// Agrees: the store knows everything that the witness does.
	Agrees Testimony = "agrees"
	// Stale: the witness knows of something that the store does not.
	Stale Testimony = "stale"
	// Silent: there is no witness where there should be one, or it cannot be asked, so that nobody can tell.
	Silent Testimony = "silent"
)

// Judge compares a node's tag as its BMC shows it with the node's record. Known is the tag that the record says was written last or found at enrolment.
func (t WitnessTag) Judge(s StoreIdentity, n *Node) (Testimony, string) {
	known, _ := ParseWitnessTag(n.BMC.Witness)
	switch {
	case t.IsZero() && known.IsZero():
		return Agrees, ""
	case t.IsZero():
		return Silent, fmt.Sprintf("the BMC does not show the mark %s that was written to it any more", known)
	case t == known && !s.wrote(t.Mark):
		return Agrees, "" // another installation's, found at enrolment
	case !s.wrote(t.Mark):
		return Stale, fmt.Sprintf("the BMC bears the mark %s of a store that this one does not descend from", t)
	case t.Boots > max(n.Boot.Generation, n.Boot.Witnessed):
		return Stale, fmt.Sprintf("the BMC names boot generation %d and the store %d", t.Boots, n.Boot.Generation)
	case t.Handovers > n.Handovers:
		return Stale, fmt.Sprintf("the BMC names %d handovers to tenants and the store %d", t.Handovers, n.Handovers)
	}
	return Agrees, ""
}

// wrote reports whether a life of the store has an epoch that begins so.
func (s StoreIdentity) wrote(mark string) bool {
	for _, l := range s.Lives {
		if strings.HasPrefix(l.Epoch, mark) {
			return true
		}
	}
	return false
}

// FaultStaleStore: an outside witness names something that was done with the node and that the store does not know.
const FaultStaleStore = "MC-FAULT-STALE-STORE"

// StaleComponent is the component of FaultStaleStore.
const StaleComponent = "store"

// MarkStale records that a witness knows more of the node than the store: a critical fault that blocks everything, until a person clears it.
func (n *Node) MarkStale(seen WitnessTag, why string, now time.Time) {
	if s := seen.String(); s != "" {
		n.BMC.WitnessSeen = s
	}
	n.ClearFault(FaultUnwitnessed, StaleComponent)
	n.Doubt = nil
	n.RaiseFault(Fault{Code: FaultStaleStore, Component: StaleComponent, Severity: Critical, Since: now.UTC(), Blocks: BlocksEverything,
		Evidence: why, Hint: "metalctl doctor --world"})
}

// TakeOverWitness accepts what the witness named, once a person has looked: what the store counts goes on from there, and a node that nobody has by
// the store is cleaned before anybody gets it.
func (n *Node) TakeOverWitness() {
	n.mistrustDisks()
	seen, _ := ParseWitnessTag(n.BMC.WitnessSeen)
	n.BMC.WitnessSeen = ""
	if seen.IsZero() {
		return
	}
	n.Boot.Witnessed = max(n.Boot.Witnessed, seen.Boots)
	n.Handovers = max(n.Handovers, seen.Handovers)
	n.BMC.Witness = seen.String()
}
