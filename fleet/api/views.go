package api

import (
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// NodeCreated is the answer of POST nodes: the node, and what enrolment found worth saying.
type NodeCreated struct {
	Node
	// Notes are what a person should know about the BMC: a missing licence, a quirk, a key that was pinned at first use.
	Notes []string `json:"notes,omitempty"`
}

// VerbAccepted is the answer of POST nodes/{id}/{verb}. Operation is "" for verbs that change facts and start nothing.
type VerbAccepted struct {
	Operation fleet.OperationID `json:"operation,omitempty"`
	Node      Node              `json:"node"`
}

// PlanQuery says what to plan for. Devices, OutOfBand and AllowReboot are what the verb would be asked with: the plan's digest covers them.
type PlanQuery struct {
	Use string
	// Devices are the serials that accept would agree to; empty means all. They count for a clean of a managed node, which is what accept begins.
	Devices                []string
	OutOfBand, AllowReboot bool
	// Image replaces the lease's image at a rebuild.
	Image string
}

// Explain says what a node waits for, since when, until when, and what unsticks it.
type Explain struct {
	Node  string      `json:"node"`
	State fleet.State `json:"state"`
	Since time.Time   `json:"since"`
	// Waits says in words what the node waits for, or "".
	Waits string `json:"waits_for,omitempty"`
	// Until is when the running step's time is over; zero where nothing runs.
	Until     time.Time         `json:"until,omitzero"`
	Operation fleet.OperationID `json:"operation,omitempty"`
	Step      string            `json:"step,omitempty"`
	Try       int               `json:"try,omitempty"`
	// Next are the commands that a person can type now, each with its reason.
	Next   []Advice        `json:"next"`
	Faults []fleet.Fault   `json:"faults,omitempty"`
	Hold   *fleet.Hold     `json:"hold,omitempty"`
	Agent  string          `json:"agent"`
	Last   *fleet.Progress `json:"progress,omitempty"`
}

// Advice is a command and why one would type it.
type Advice struct {
	Command string `json:"command"`
	Why     string `json:"why"`
}

// ImageVerified is the answer of POST images/{name}/verify.
type ImageVerified struct {
	fleet.Image
	// Read is how many bytes were read and digested.
	Read int64 `json:"read_bytes"`
}

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status string `json:"status"` // ok, or what is wrong
}
