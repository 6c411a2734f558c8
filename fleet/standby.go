package fleet

import "time"

// Position is a point in the history of one store: its life, its revision, and the running digest over every batch that led there. Two stores at the same
// position hold the same.
type Position struct {
	Epoch    string   `json:"epoch"`
	Revision Revision `json:"revision"`
	// Chain is SHA-256 over the chain before and the batch, in hex.
	Chain string `json:"chain"`
}

// LogEntry is what a store hands to whoever follows it: a batch as it was committed, or the name of a file that was stored before the batch that names it.
type LogEntry struct {
	// Seq counts up by one within a process; it means nothing outside.
	Seq int64
	// Batch is as the store encodes it, and Chain the running digest after it; empty for a file.
	Batch []byte
	Chain string
	// File is a path as backups have it, blobs/KIND/xx/HEX; empty for a batch.
	File string
}

// RoleKind says what a server may do with the store that it has.
type RoleKind string

const (
	// RoleActs: it is the server. Every store is, where nothing else is written in it.
	RoleActs RoleKind = ""
	// RoleFollows: it repeats what another server commits.
	RoleFollows RoleKind = "follows"
	// RoleRetired: another server took over from it. It never acts again by itself.
	RoleRetired RoleKind = "retired"
)

// Word is the role as people read it.
func (k RoleKind) Word() string {
	if k == RoleActs {
		return "acts"
	}
	return string(k)
}

// StoreRole is kept in the store's own file, beside the records, and is never handed to a follower.
type StoreRole struct {
	Kind RoleKind `json:"kind"`
	// Peer is the https URL of the server that is followed, that took over, or that was taken over from.
	Peer  string    `json:"peer,omitempty"`
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since"`
	// HandsOff: the server before may have been speaking to BMCs when this one took over, so that the longest call is waited for first.
	HandsOff bool `json:"hands_off,omitempty"`
}

// FollowerKey holds the Follower that a store knows.
const FollowerKey Key = KindMeta + "/standby"

// Follower is the server that follows this one. It is recorded before it gets its first batch, so that no server that was followed begins to act again
// without having heard of it.
type Follower struct {
	// URL is where it answers, Nodes where agents reach it.
	URL   string    `json:"url"`
	Nodes string    `json:"nodes"`
	Since time.Time `json:"since"`
	// Primary and PrimaryNodes are the same of the server that is followed: it is the follower's partner once that has taken over.
	Primary      string `json:"primary,omitempty"`
	PrimaryNodes string `json:"primary_nodes,omitempty"`
}

// PartnerKey holds the Partner of a server that has taken over, until another server follows it.
const PartnerKey Key = KindMeta + "/partner"

// Partner is the other one of two servers while it does not follow: the one that was taken over from. Credentials name it, so that an agent that boots in
// the meantime finds it when it has taken over again.
type Partner struct {
	URL   string    `json:"url"`
	Nodes string    `json:"nodes"`
	Since time.Time `json:"since"`
}

// Succeeds reports whether s is what became of t: every life of t is one of s's, and s has more.
func (s StoreIdentity) Succeeds(t StoreIdentity) bool {
	if len(t.Lives) == 0 || len(s.Lives) <= len(t.Lives) {
		return false
	}
	for i, l := range t.Lives {
		if s.Lives[i].Epoch != l.Epoch {
			return false
		}
	}
	return true
}
