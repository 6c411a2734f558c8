package fleet

import (
	"encoding/json"
	"time"
)

// OperationState is where a plan run is.
type OperationState string

const (
	OperationPending OperationState = "pending"
	OperationRunning OperationState = "running"
	OperationDone    OperationState = "done"
	OperationFailed  OperationState = "failed"
	OperationAborted OperationState = "aborted"
)

// Over reports whether the run has ended.
func (s OperationState) Over() bool {
	return s == OperationDone || s == OperationFailed || s == OperationAborted
}

// StepState is where one step of a run is.
type StepState string

const (
	StepPending  StepState = "pending"
	StepStarted  StepState = "started"
	StepFinished StepState = "finished"
	StepFailed   StepState = "failed"
	// StepAsk: a crash left it undecided and a person must say how to go on.
	StepAsk StepState = "ask"
)

// StepRun is a step's line in the journal: *started* is committed before it acts and *finished*, with evidence, after.
type StepRun struct {
	Name  string    `json:"name"`
	State StepState `json:"state"`
	// Side is "out-of-band" (the server does it) or "in-band" (the agent does).
	Side string `json:"side"`
	// Why says why the plan has this step.
	Why string `json:"why,omitempty"`
	// Params are what Compose gave the step; at most 32 KiB.
	Params json.RawMessage `json:"params,omitempty"`
	// Try counts attempts; a result of an older try is ignored.
	Try int `json:"try"`
	// Spared counts those tries that a freeze cut short: they are not held against it.
	Spared int `json:"spared,omitempty"`
	// Resumed: an earlier try had started and nobody saw it end.
	Resumed    bool      `json:"resumed,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// NotBefore is when the next try may start, after a transient failure.
	NotBefore time.Time `json:"not_before,omitzero"`
	// Evidence is what the step observed (digests, read-backs, measurements); at most 4 KiB, bigger goes to a blob.
	Evidence json.RawMessage `json:"evidence,omitempty"`
	// Left are the blobs that tries before this one attached: what they had seen before they failed. At most 4.
	Left  []string `json:"left,omitempty"`
	Error *Problem `json:"error,omitempty"`
}

// Operation is the API's face of one plan run, and its journal.
type Operation struct {
	ID   OperationID `json:"id"`
	Node NodeID      `json:"node"`
	// NodeName is the node's name when the run began.
	NodeName string `json:"node_name"`
	// Use is what the plan was composed for: inspect, clean, burn, deploy, rebuild, release, resume, undo.
	Use   string         `json:"use"`
	Verb  Verb           `json:"verb"`
	By    string         `json:"by"`
	Lease LeaseID        `json:"lease,omitempty"`
	From  State          `json:"from"`
	Plan  string         `json:"plan"` // "sha256:" and the digest of the plan
	Steps []StepRun      `json:"steps"`
	State OperationState `json:"state"`
	// Catalogue is the version of the step catalogue that the plan was composed with.
	Catalogue int `json:"catalogue"`
	// Generation is the boot generation that in-band steps run under.
	Generation int64     `json:"generation,omitempty"`
	Abort      bool      `json:"abort_asked,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	EndedAt    time.Time `json:"ended_at,omitzero"`
	Error      *Problem  `json:"error,omitempty"`
}

// Current returns the index of the first step that has not finished, or -1.
func (o *Operation) Current() int {
	for i := range o.Steps {
		if o.Steps[i].State != StepFinished {
			return i
		}
	}
	return -1
}

// Problem is an error as it is stored and sent: what RFC 9457 calls a problem, less the HTTP part.
type Problem struct {
	Code   string `json:"code,omitempty"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
	// Transient problems are retried with backoff; the others end the run.
	Transient bool `json:"transient,omitempty"`
	// Faults are what the step found wrong with the node's components.
	Faults []Fault `json:"faults,omitempty"`
}

// ProblemOf turns an error into what is stored of it. Unavailable and Timeout are transient.
func ProblemOf(err error) *Problem {
	if err == nil {
		return nil
	}
	k := KindOf(err)
	p := &Problem{Code: CodeOf(err), Detail: err.Error(), Transient: k == Unavailable || k == Timeout}
	p.Hint = HintOf(err)
	return p
}

// Progress is the ephemeral half of an operation: latest wins, at least each second, resent after a restart, never journalled.
type Progress struct {
	Node      NodeID      `json:"node"`
	Operation OperationID `json:"operation"`
	Step      string      `json:"step"`
	Stage     string      `json:"stage,omitempty"`
	Done      int64       `json:"done_bytes,omitempty"`
	Total     int64       `json:"total_bytes,omitempty"`
	Percent   float64     `json:"percent"`
	At        time.Time   `json:"at"`
}

// TimelineEntry is one thing that happened around a node, of whatever source: Redfish calls, byte ranges that firmware reads, console lines, steps.
type TimelineEntry struct {
	At time.Time `json:"at"`
	// Source is one of: redfish, media, image, agent, step, state, serial, lease.
	Source string `json:"source"`
	Text   string `json:"text"`
	// Generation is the boot generation for media and agent entries.
	Generation int64 `json:"generation,omitempty"`
	// Offset and Length are set for byte ranges; neighbouring ranges are merged, Count says how many.
	Offset int64 `json:"offset,omitempty"`
	Length int64 `json:"length,omitempty"`
	Count  int   `json:"count,omitempty"`
	// Until, where set, says that what Text tells came Count times from At to then, each time alike.
	Until time.Time `json:"until,omitzero"`
	// Same, where not empty, is what makes an entry a repeat of the last one; it is not kept.
	Same string `json:"-"`
}
