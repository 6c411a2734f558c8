package api

import (
	"context"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Whom a node or lease waits for.
const (
	// OnNobody: it is where it should be.
	OnNobody = "nobody"
	// OnServer: the server is about to move it, or does.
	OnServer = "server"
	// OnMachine: a step runs on the machine, or its agent is awaited.
	OnMachine = "machine"
	// OnTime: it goes on by itself at Until.
	OnTime = "time"
	// OnPerson: nothing moves it but a person; Command says what to type.
	OnPerson = "person"
)

// Reason is one thing that keeps a node or a lease where it is.
type Reason struct {
	// Kind is a stable word for scripts: step, backoff, agent, claim, ask, hold, protect, freeze, overdue, breaker, bmc, clock, undo, approval, failed, fault, grace, moving, repair, trouble, unfit, power, load-stop, rest.
	Kind string `json:"kind"`
	// On is whom it waits for: nobody, server, machine, time or person.
	On string `json:"on"`
	// Text says it in words.
	Text string `json:"text"`
	// Since is when it began, Until when it ends by itself; zero where nobody knows.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Then says what happens at Until without anybody doing anything.
	Then string `json:"then,omitempty"`
	// Command is the exact next command that unsticks it, or hurries it; "" where there is nothing to type.
	Command string `json:"command,omitempty"`
	// Code has a page: metalctl help CODE.
	Code string `json:"code,omitempty"`
}

// Explain says what a node waits for, since when, until when, and what unsticks it.
type Explain struct {
	Node  string      `json:"node"`
	State fleet.State `json:"state"`
	Since time.Time   `json:"since"`
	// Reasons are what keeps it there, what counts most first; never empty.
	Reasons   []Reason          `json:"reasons"`
	Operation fleet.OperationID `json:"operation,omitempty"`
	Step      string            `json:"step,omitempty"`
	Try       int               `json:"try,omitempty"`
	// Next are the commands that the node takes now, each with its reason; those of Reasons come first.
	Next   []Advice      `json:"next"`
	Faults []fleet.Fault `json:"faults,omitempty"`
	Hold   *fleet.Hold   `json:"hold,omitempty"`
	Agent  string        `json:"agent"`
	// AgentHeard is when the agent of the newest boot last spoke; it does so at least every half minute.
	AgentHeard time.Time       `json:"agent_heard,omitzero"`
	Last       *fleet.Progress `json:"progress,omitempty"`
}

// Stuck reports whether nothing moves the node but a person.
func (e Explain) Stuck() bool { return len(e.Reasons) > 0 && e.Reasons[0].On == OnPerson }

// Advice is a command and why one would type it.
type Advice struct {
	Command string `json:"command"`
	Why     string `json:"why"`
}

// LeaseExplain says what a lease waits for, and for each member that is not where it should be what its node waits for.
type LeaseExplain struct {
	Lease   fleet.LeaseID    `json:"lease"`
	Name    string           `json:"name,omitempty"`
	State   fleet.LeaseState `json:"state"`
	Since   time.Time        `json:"since"`
	Reasons []Reason         `json:"reasons"`
	Members []MemberExplain  `json:"members"`
}

// MemberExplain is one member of a lease and what its node waits for first.
type MemberExplain struct {
	Node   string            `json:"node"`
	State  fleet.MemberState `json:"state"`
	Since  time.Time         `json:"since"`
	Reason *Reason           `json:"reason,omitempty"`
}

// Explain says what the node waits for and what unsticks it.
func (c *Client) Explain(ctx context.Context, idOrName string) (Explain, error) {
	var e Explain
	return e, c.get(ctx, nodePath(idOrName, "explain"), nil, &e)
}

// ExplainLease says what the lease waits for and what unsticks it.
func (c *Client) ExplainLease(ctx context.Context, idOrName string) (LeaseExplain, error) {
	var e LeaseExplain
	return e, c.get(ctx, itemPath("leases", idOrName, "explain"), nil, &e)
}
