package fleet

import (
	"fmt"
	"strings"
	"time"
)

// CleaningRecord is the record of one cleaning of a node: what became of each of its components. It is composed of what the steps recorded and never changed.
type CleaningRecord struct {
	Version  int    `json:"version"`
	Node     NodeID `json:"node"`
	NodeName string `json:"node_name"`
	// Serial is the machine's.
	Serial string `json:"serial,omitempty"`
	// Data is whose data the node may have held before: a lease, DirtyUnknown, or "" where it was clean already.
	Data      Dirty       `json:"data,omitempty"`
	Operation OperationID `json:"operation"`
	// Plan is the digest of the plan, Class what it was composed for, Agent the version of the agent, Generation its boot.
	Plan       string    `json:"plan"`
	Class      string    `json:"class,omitempty"`
	Agent      string    `json:"agent,omitempty"`
	Generation int64     `json:"generation,omitempty"`
	StartedAt  time.Time `json:"started_at"`
	EndedAt    time.Time `json:"ended_at"`
	// Complete: every step of the plan finished. Otherwise Why says what kept it from that, and the node is as dirty as before.
	Complete   bool               `json:"complete"`
	Why        string             `json:"why,omitempty"`
	Components []CleanedComponent `json:"components"`
}

// CleanResult is what became of a component.
type CleanResult string

const (
	// CleanDone: it was changed as asked, and read back.
	CleanDone CleanResult = "cleaned"
	// CleanChecked: it was looked at and is as it should be.
	CleanChecked CleanResult = "checked"
	// CleanKept: the class wants it left alone.
	CleanKept CleanResult = "kept"
	// CleanNotDone: it was not dealt with; Why says why.
	CleanNotDone CleanResult = "not done"
	// CleanFailed: it is not as it should be.
	CleanFailed CleanResult = "failed"
)

// CleanResults are all of them, in the order of a summary.
var CleanResults = []CleanResult{CleanDone, CleanChecked, CleanKept, CleanNotDone, CleanFailed}

// CleanedComponent is one component's part of the record.
type CleanedComponent struct {
	// Component is named as in faults, but for disks, which have their serial: disk/S4EV…, gpu/3, hca/mlx5_0, firmware/boot-entries, tpm, memory, bmc.
	Component string `json:"component"`
	// Identity is a serial number or GUID, Model what it is.
	Identity string      `json:"identity,omitempty"`
	Model    string      `json:"model,omitempty"`
	Result   CleanResult `json:"result"`
	// Asked is what the class asks for, Method what was done, Level what may be claimed of a disk after it (clear, purge).
	Asked  string `json:"asked,omitempty"`
	Method string `json:"method,omitempty"`
	Level  string `json:"level,omitempty"`
	// Said is what the component itself reported, ReadBack what was read of it afterwards.
	Said     string `json:"said,omitempty"`
	ReadBack string `json:"read_back,omitempty"`
	// Why says why it was not dealt with, or what is wrong.
	Why string `json:"why,omitempty"`
	// Step and At are where and when that was found out; empty where nobody looked.
	Step string    `json:"step,omitempty"`
	At   time.Time `json:"at,omitzero"`
}

// Count is how many components came to that result.
func (c CleaningRecord) Count(r CleanResult) int {
	n := 0
	for _, x := range c.Components {
		if x.Result == r {
			n++
		}
	}
	return n
}

// Summary is the record in one line.
func (c CleaningRecord) Summary() string {
	var counts []string
	for _, r := range CleanResults {
		if n := c.Count(r); n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, r))
		}
	}
	out := fmt.Sprintf("%s: %s", c.EndedAt.UTC().Format(time.RFC3339), strings.Join(counts, ", "))
	if !c.Complete {
		out += "; not complete: " + c.Why
	}
	return out
}
