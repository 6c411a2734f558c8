// Package term decides which of two servers may act: the one that a third party, the arbiter, lends the term, or that the one which follows has promised to leave alone.
package term

import "time"

const (
	// Length is for how long nobody else gets the term after a renewal, and for how long a promise binds, by the clock of whoever gave it.
	Length = 10 * time.Second
	// Margin is how much earlier whoever holds it stops, so that clocks may run apart by a tenth.
	Margin = time.Second
	// RenewEvery leaves two more tries.
	RenewEvery = Length / 3
	// Late is how much of what was acknowledged may be lost in a takeover that nobody ordered.
	Late = time.Second
)

// State is what an arbiter keeps in its file. Its zero value is a new arbiter's, but for the ID.
type State struct {
	// ID is made with the file: an arbiter that has lost it is another one.
	ID string `json:"id"`
	// Number counts the servers that got the term, one after the other.
	Number uint64 `json:"number"`
	// Holder is the URL of the one that has it, Standby of the one that may claim it.
	Holder  string `json:"holder,omitempty"`
	Standby string `json:"standby,omitempty"`
	// Even says that the standby has all that the holder acknowledged, but for Late at most.
	Even bool `json:"even,omitempty"`
	// Claimed: the holder got it by a claim, or was handed it, and has not been heard of as a server that acts yet.
	Claimed bool `json:"claimed,omitempty"`
}

// Kind says what a server wants of an arbiter.
type Kind string

const (
	// Look changes nothing.
	Look Kind = "look"
	// Renew is said by a server that acts, or waits for the right to.
	Renew Kind = "renew"
	// Claim is said by the one that follows and takes over.
	Claim Kind = "claim"
	// Yield is said by one that steps down, in favour of Standby.
	Yield Kind = "yield"
)

// Request is what a server asks an arbiter. It is granted only where Mark is the mark of the newest answer, so that one that comes late, twice or out of order changes nothing.
type Request struct {
	Kind    Kind   `json:"kind"`
	Server  string `json:"server"`
	Mark    string `json:"mark"`
	Standby string `json:"standby,omitempty"`
	Even    bool   `json:"even,omitempty"`
	// Over: the term is recorded as the standby's, which has promised since that mark was seen that it does not act.
	Over bool `json:"over,omitempty"`
	// Force: a person orders the takeover, whatever is lost.
	Force bool `json:"force,omitempty"`
}

// Reply is an arbiter's answer: whether it was granted, and how things stand now.
type Reply struct {
	Granted bool   `json:"granted"`
	Why     Why    `json:"why,omitempty"`
	Mark    string `json:"mark"`
	State   State  `json:"state"`
	// SilentMS is how long the holder was not heard of, WaitMS when to ask again where time alone stands against it; in milliseconds.
	SilentMS int64 `json:"silent_ms"`
	WaitMS   int64 `json:"wait_ms,omitempty"`
}

// Why is why something was not granted.
type Why string

const (
	// Stale: the mark is not the newest. Ask again at once, with the one that came.
	Stale Why = "stale"
	// Held: another server has the term.
	Held Why = "held"
	// Early: the holder's term, or what may be left of one from before the arbiter began, is not over.
	Early Why = "early"
	// Unnamed: the holder has not named the one that claims as its standby.
	Unnamed Why = "unnamed"
	// Behind: the one that claims lacks more than Late of what was acknowledged. A person may order it all the same.
	Behind Why = "behind"
)
