// Package step says what a step is, lists every step there is, composes plans of them and runs them.
package step

import (
	"context"
	"encoding/json"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Use is what a plan is composed for.
type Use string

const (
	Inspect Use = "inspect"
	Clean   Use = "clean"
	Burn    Use = "burn"
	Deploy  Use = "deploy"
	Rebuild Use = "rebuild"
	Release Use = "release"
	Resume  Use = "resume"
	// Undo puts right what a plan that was given up left behind.
	Undo Use = "undo"
)

// Sides of a step.
const (
	OutOfBand = "out-of-band" // the server does it, through BMC, switch or its own store
	InBand    = "in-band"     // the agent does it, on the machine
)

// Crash says what to do with a step that had started when the server or the agent died.
type Crash string

const (
	// Redo: doing it again is always right.
	Redo Crash = "redo"
	// Check: the step looks at what is there before it acts, and then acts or ends.
	Check Crash = "check first"
	// Ask: a person must decide.
	Ask Crash = "ask a person"
)

// AbortAt says when an abort acts.
type AbortAt string

const (
	AbortNow   AbortAt = "now"
	AbortAfter AbortAt = "at the step's end"
	AbortNever AbortAt = "never"
)

// Step is the declaration of one step, as data.
type Step struct {
	Name string
	// Uses are the kinds of plan it may appear in.
	Uses []Use
	Side string
	// Destroys: it erases or overwrites data.
	Destroys bool
	// POST: it makes the machine go through its power-on self test.
	POST    bool
	OnCrash Crash
	Abort   AbortAt
	// Limit is how long one try may take.
	Limit time.Duration
	// Tries is the budget for transient failures, at least 1.
	Tries int
	// Unseen: not hearing of its end counts as its end, because a later step reads back what it did.
	Unseen bool
	// EvenHeld: in a release it runs although the node is held.
	EvenHeld bool
	// Observes: it only looks, so that it goes on while its node is frozen.
	Observes bool
	// Agent is the version of the agent's protocol that brought an in-band step; 0 means 1. No older agent is given it.
	Agent int
	// Doc is one sentence.
	Doc string
}

// Call is one try of one step.
type Call struct {
	Node      fleet.NodeID
	Operation fleet.OperationID
	Index     int
	Step      string
	Try       int
	// Resumed: an earlier try had started and nobody saw it end.
	Resumed bool
	Params  json.RawMessage
	// Progress tells how far the step is; it may be called from any goroutine and never blocks. total 0 means unknown.
	Progress func(stage string, done, total int64)
}

// Outcome is what a step that succeeded has to show.
type Outcome struct {
	// Evidence is marshalled into the journal: at most 4 KiB.
	Evidence any
	// Attachment is what is bigger; it is stored as a blob.
	Attachment any
	// Faults are what the step found wrong with the node although it could end. Those that it found before and does not repeat are cleared.
	Faults []fleet.Fault
	// Kept are faults that it found before and could not look for now: they are not cleared.
	Kept []fleet.Fault
}

// Func does a step. It returns when ctx ends. An error of kind Unavailable or Timeout is retried within the step's budget.
type Func func(ctx context.Context, c Call) (Outcome, error)

// Funcs binds names of the catalogue to what does them; the server and the agent hold one each, filled in cmd/metalctl and agent.
type Funcs map[string]Func
