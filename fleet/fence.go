package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"
)

// Kinds of records of the fence, and of named tokens.
const (
	KindHarm     = "harm"
	KindApproval = "approval"
	// KindToken holds named tokens under the hex SHA-256 of the token.
	KindToken = "token"
)

// Harm is what can be done to a tenant's node by mistake, and to many at once. Each is counted for itself.
type Harm string

const (
	// HarmRelease: the node is taken from its tenant, or a tenant's disks are erased before their grace time is over.
	HarmRelease Harm = "release"
	// HarmPower: it is switched off or restarted by hand.
	HarmPower Harm = "power"
	// HarmRebuild: its root disk is written anew.
	HarmRebuild Harm = "rebuild"
	// HarmQuarantine and HarmRepair are what a network driver does: ports into quarantine, and drifted ports put back.
	HarmQuarantine Harm = "quarantine"
	HarmRepair     Harm = "repair"
)

const (
	// FenceNodes is how many nodes may be harmed within FenceTime without approval, whatever the size of the fleet.
	FenceNodes = 4
	// FencePercent of the nodes in use may be, where that is more.
	FencePercent = 2
	// FenceTime is the sliding time that is counted over: time that a server ran, so that neither a clock that is set nor a restart shortens it.
	FenceTime = time.Hour
	// ApprovalLife is how long a request waits for an answer, GrantLife how long what was granted may be done.
	ApprovalLife = 24 * time.Hour
	GrantLife    = 2 * time.Hour
)

// FenceLimit is how many of the nodes in use may be harmed in one way within FenceTime without a second person.
func FenceLimit(inUse int, s Site) int {
	return max(FenceNodes, s.FenceNodes, inUse*FencePercent/100)
}

// InUse reports whether a tenant has the node and may lose something by what is done to it. A node that waits in grace counts: its disks are its
// tenant's still.
func InUse(n Node) bool {
	if n.Lease == "" {
		return false
	}
	switch n.State {
	case Active, Rebuilding, Rescuing, Rescued, Unrescuing, Servicing, Resuming, Grace:
		return true
	}
	return false
}

// HarmRecord counts one kind of harm; it is written in the commit that begins the harm, or before it where nothing is committed.
type HarmRecord struct {
	Harm Harm     `json:"harm"`
	Done []Harmed `json:"done"`
	// Folded counts by the minute what was done before, where it is more than HarmsNamed nodes: which ones is not known any more, so that one of them that is
	// harmed again counts again.
	Folded []FoldedHarm `json:"folded,omitempty"`
}

// Harmed is one node that harm was begun to.
type Harmed struct {
	Node NodeID `json:"node"`
	// Ran is how long servers had run on this store, in all.
	Ran time.Duration `json:"ran"`
	At  time.Time     `json:"at"`
	By  string        `json:"by"`
}

// FoldedHarm is how many nodes harm was begun to in the minute that ended at Ran.
type FoldedHarm struct {
	Ran   time.Duration `json:"ran"`
	Nodes int           `json:"nodes"`
}

const (
	// HarmsNamed is how many nodes a HarmRecord names at most, so that it stays small where very many may be harmed in an hour.
	HarmsNamed = 256
	// harmsFolded is how many minutes it counts at most: those of FenceTime, and some that seem to lie ahead.
	harmsFolded = 128
)

// Recent is h without what is older than FenceTime. What seems to lie ahead stays: a server that crashed forgets its last minute.
func (h HarmRecord) Recent(ran time.Duration) HarmRecord {
	h.Done = slices.DeleteFunc(slices.Clone(h.Done), func(x Harmed) bool { return ran-x.Ran >= FenceTime })
	h.Folded = slices.DeleteFunc(slices.Clone(h.Folded), func(x FoldedHarm) bool { return ran-x.Ran >= FenceTime })
	return h
}

// Nodes is how many nodes it counts.
func (h HarmRecord) Nodes() int {
	n := len(h.Done)
	for _, x := range h.Folded {
		n += x.Nodes
	}
	return n
}

// Add enters harm, and folds the oldest where too many nodes would be named.
func (h *HarmRecord) Add(done ...Harmed) {
	h.Done = append(h.Done, done...)
	if len(h.Done) <= HarmsNamed {
		return
	}
	old := len(h.Done) - HarmsNamed/2
	for _, x := range h.Done[:old] {
		h.fold(x.Ran)
	}
	h.Done = slices.Clone(h.Done[old:])
	for len(h.Folded) > harmsFolded { // the later time holds for both
		h.Folded[1].Nodes += h.Folded[0].Nodes
		h.Folded = h.Folded[1:]
	}
}

func (h *HarmRecord) fold(ran time.Duration) {
	end := ran.Truncate(time.Minute) + time.Minute
	i, found := slices.BinarySearchFunc(h.Folded, end, func(x FoldedHarm, at time.Duration) int { return cmp.Compare(x.Ran, at) })
	if !found {
		h.Folded = slices.Insert(h.Folded, i, FoldedHarm{Ran: end})
	}
	h.Folded[i].Nodes++
}

// Has reports whether the node is among them.
func Has(done []Harmed, id NodeID) bool {
	return slices.ContainsFunc(done, func(x Harmed) bool { return x.Node == id })
}

// ApprovalID is a UUIDv7 in its text form.
type ApprovalID string

// ApprovalState is where a request for approval is.
type ApprovalState string

const (
	ApprovalAsked   ApprovalState = "asked"
	ApprovalGranted ApprovalState = "granted"
	ApprovalDenied  ApprovalState = "denied"
	// ApprovalUsed: all that was granted was done.
	ApprovalUsed ApprovalState = "used"
	// ApprovalExpired is shown, and not stored, of a request or a grant whose time is over.
	ApprovalExpired ApprovalState = "expired"
)

// Approval is a request to do more harm at once than one person may, and what became of it. It covers exactly Act on Nodes, once each.
type Approval struct {
	ID   ApprovalID `json:"id"`
	Harm Harm       `json:"harm"`
	// Act says what is to be done, with everything that matters about it, such as "node rebuild, image debian-12".
	Act   string   `json:"act"`
	Lease LeaseID  `json:"lease,omitempty"`
	Nodes []NodeID `json:"nodes"`
	// Names are the nodes' names when it was asked.
	Names []string `json:"names"`
	// Digest is "sha256:" over act and nodes.
	Digest string `json:"digest"`
	// Why says which limit it is above.
	Why     string        `json:"why"`
	State   ApprovalState `json:"state"`
	AskedBy string        `json:"asked_by"`
	AskedAt time.Time     `json:"asked_at"`
	// Expires is when the request, or what was granted, is void.
	Expires   time.Time `json:"expires"`
	DecidedBy string    `json:"decided_by,omitempty"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
	Reason    string    `json:"reason,omitempty"`
	// Used are the nodes that it was used for.
	Used []NodeID `json:"used,omitempty"`
}

// ApprovalDigest is over what an approval covers.
func ApprovalDigest(harm Harm, act string, nodes []NodeID) string {
	sorted := slices.Clone(nodes)
	slices.Sort(sorted)
	b, err := json.Marshal([]any{harm, act, sorted})
	if err != nil {
		return "" // strings always encode
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Now is the state as of a time: the later of all clocks, so that nothing is valid for longer than it should be. What was asked or decided on a clock
// that was ahead, and has been set right since, is void.
func (a Approval) Now(now time.Time) ApprovalState {
	began := a.AskedAt
	if !a.DecidedAt.IsZero() {
		began = a.DecidedAt
	}
	if a.State != ApprovalUsed && (!now.Before(a.Expires) || now.Before(began.Add(-time.Minute))) {
		return ApprovalExpired
	}
	return a.State
}

// Allows reports whether act may be done to the node by this approval.
func (a Approval) Allows(harm Harm, act string, id NodeID, now time.Time) bool {
	return a.Now(now) == ApprovalGranted && a.Harm == harm && a.Act == act && slices.Contains(a.Nodes, id) && !slices.Contains(a.Used, id)
}

// Token is a named token of a person; the token itself is shown once and kept nowhere.
type Token struct {
	Name      string    `json:"name"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
	// Role is RoleStandby for a token that a second server follows with, and is good for nothing else; "" for a person's.
	Role string `json:"role,omitempty"`
}

// RoleStandby is the role of a token that a second server follows with: it reads the whole store, secrets sealed, and asks the server to step down.
const RoleStandby = "standby"
