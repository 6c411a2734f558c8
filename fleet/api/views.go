package api

import "github.com/metalctl/metalctl/fleet"

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
	// Profile is the burn-in profile in place of the one that is due.
	Profile string
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
