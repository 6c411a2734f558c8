// Package cleaning composes the record of a cleaning from what its steps left in the journal.
package cleaning

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Version is that of the records that Compose makes.
const Version = 1

// Traces are what a record is made of.
type Traces struct {
	// Node is as it was while it was cleaned: still dirty.
	Node      fleet.Node
	Operation fleet.Operation
	Class     fleet.Class
	// Inventory is the newest, nil where it cannot be read, for the reason Unread.
	Inventory *fleet.Inventory
	Unread    string
	// Attachments are what the steps' evidence names, by digest; one that is not there could not be read.
	Attachments map[string]json.RawMessage
	// Why says what kept the plan from its end, "" where every step finished.
	Why string
	Now time.Time
}

// touching are the steps that deal with a component.
var touching = []string{step.RestoreNS, step.EraseDisks, step.VerifyErase, step.CleanBoot, step.CleanVars, step.CleanGPUs}

// Began reports whether a plan run came so far that there is something to record: one whose agent never booted leaves the machine as it was.
func Began(op fleet.Operation) bool {
	return op.Use == string(step.Clean) && slices.ContainsFunc(op.Steps, func(r fleet.StepRun) bool {
		return slices.Contains(touching, r.Name) && !r.StartedAt.IsZero()
	})
}

// Compose makes the record. Every component that the machine is known to have is in it: what no step dealt with says so. It is pure.
func Compose(t Traces) fleet.CleaningRecord {
	n, op := t.Node, t.Operation
	out := fleet.CleaningRecord{Version: Version, Node: n.ID, NodeName: n.Name, Serial: n.BMC.Serial, Data: n.Dirty, Operation: op.ID, Plan: op.Plan, Class: n.Class,
		Agent: n.Boot.Program, Generation: op.Generation, StartedAt: op.StartedAt.UTC(), EndedAt: t.Now.UTC(), Complete: t.Why == "", Why: t.Why}
	if t.Inventory != nil && t.Inventory.System.Serial != "" {
		out.Serial = t.Inventory.System.Serial
	}
	c := &composer{Traces: t}
	c.disks()
	c.bootEntries()
	c.rest()
	out.Components = c.list
	return out
}

type composer struct {
	Traces
	list []fleet.CleanedComponent
}

func (c *composer) add(x fleet.CleanedComponent) {
	for _, s := range []*string{&x.Why, &x.Said, &x.ReadBack} {
		*s = strings.ReplaceAll(strings.TrimSpace(*s), "\n", "; ") // several causes of one error
	}
	x.At = x.At.UTC()
	c.list = append(c.list, x)
}

// run is the journal's line of a step, the last of several, with its evidence and attachment laid together; nil where the plan has no such step.
type run struct {
	fleet.StepRun
	seen map[string]json.RawMessage
}

func (c *composer) run(name string) *run {
	for _, r := range slices.Backward(c.Operation.Steps) {
		if r.Name != name {
			continue
		}
		out := &run{StepRun: r, seen: map[string]json.RawMessage{}}
		out.lay(r.Evidence)
		var blob string
		if out.read("blob", &blob); blob != "" {
			out.lay(c.Attachments[blob])
		}
		return out
	}
	return nil
}

// lay puts an object's fields over those that are there; what is no object tells nothing.
func (r *run) lay(b json.RawMessage) {
	var fields map[string]json.RawMessage
	if len(b) == 0 || json.Unmarshal(b, &fields) != nil {
		return
	}
	for k, v := range fields {
		r.seen[k] = v
	}
}

// read decodes a field of the evidence and reports whether there is one that can be read.
func (r *run) read(key string, into any) bool {
	b, ok := r.seen[key]
	return ok && json.Unmarshal(b, into) == nil
}

// finished reports whether the step came to its end and succeeded.
func (r *run) finished() bool { return r != nil && r.State == fleet.StepFinished }

// short says why a step shows nothing of a component.
func (r *run) short(name string) string {
	switch {
	case r == nil:
		return "the plan has no step " + name
	case r.Error != nil:
		return name + " failed: " + strings.TrimSpace(r.Error.Code+" "+r.Error.Detail)
	case r.State == fleet.StepPending:
		return "the plan ended before " + name
	case r.State == fleet.StepFinished:
		return name + " recorded nothing of it"
	}
	return "nobody saw " + name + " end"
}

// faults are those that a step raised on a component.
func (r *run) faults(component string) []string {
	var out []string
	if r != nil && r.Error != nil {
		for _, f := range r.Error.Faults {
			if f.Component == component {
				out = append(out, f.Evidence)
			}
		}
	}
	return out
}

// plural is a count with its noun.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
