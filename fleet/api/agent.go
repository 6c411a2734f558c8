package api

import (
	"encoding/json"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// AgentVersion is the version of the agent's protocol; a server speaks this one and the one before. Whatever changes the form of a message, of a
// step's parameters or of the boot credential, or adds an in-band step, raises it: new fields then have the tag `since:"N"`, new steps Agent: N.
const AgentVersion = 3

// Paths of the agent's protocol. All but register need the client certificate of this boot.
const (
	AgentRegisterPath = "/agent/v1/register"
	AgentTaskPath     = "/agent/v1/task"      // GET ?wait=25s; 200 Task or 204
	AgentResultPath   = "/agent/v1/result"    // POST Result
	AgentProgressPath = "/agent/v1/progress"  // POST fleet.Progress
	AgentReportPath   = "/agent/v1/report"    // POST Report
	AgentUserDataPath = "/agent/v1/user-data" // GET; the bytes, while the node is being deployed
	AgentPackPath     = "/agent/v1/packs/"    // GET with a digest in hex behind it; the bytes of a pack
)

// Register is an agent's first contact. The token may be spent once: it is bound to the key of CSR. A repeat with the same key gets the same
// answer; another key revokes both and raises the fault token-reused.
type Register struct {
	Version    int           `json:"version"`
	Node       fleet.NodeID  `json:"node"`
	Generation int64         `json:"generation"`
	Token      string        `json:"token"`
	CSR        string        `json:"csr"` // PEM, PKCS #10, ECDSA P-256 key made for this boot
	UUID       string        `json:"uuid"`
	Serial     string        `json:"serial"`
	MACs       []fleet.MAC   `json:"macs"`
	Boot       AgentBootInfo `json:"boot"`
}

// AgentBootInfo is what the agent knows of how it came up.
type AgentBootInfo struct {
	Program    string `json:"program"` // metalctl version
	Kernel     string `json:"kernel"`
	SecureBoot string `json:"secure_boot"` // on, off, unknown
	// Uptime is seconds since the kernel started, at the time of the call.
	Uptime float64 `json:"uptime_seconds"`
	// Stages are seconds since the kernel started at which each stage of the boot ended: at most 16, named by up to 32 of a-z, 0-9 and -.
	Stages map[string]float64 `json:"stages,omitempty"`
}

// Registered is the server's answer.
type Registered struct {
	Version     int       `json:"version"`
	Certificate string    `json:"certificate"` // PEM, client certificate valid for this boot only
	Now         time.Time `json:"now"`         // the server's clock, for agents whose own is dead
	Name        string    `json:"name"`        // the node's name, for the agent's console
}

// Task is one step of a plan for the agent. (Operation, Index, Try) names it: the agent answers a repeat from memory.
type Task struct {
	Operation fleet.OperationID `json:"operation"`
	Index     int               `json:"index"`
	Try       int               `json:"try"`
	Step      string            `json:"step"`
	Params    json.RawMessage   `json:"params,omitempty"`
	// LimitSeconds is how long the step may take.
	LimitSeconds int64 `json:"limit_seconds"`
	// Abort asks the agent to stop the step that it runs now, where that step allows it.
	Abort bool `json:"abort,omitempty"`
}

// Result is what became of a task. The server ignores a late result of an older try.
type Result struct {
	Operation fleet.OperationID `json:"operation"`
	Index     int               `json:"index"`
	Try       int               `json:"try"`
	Step      string            `json:"step"`
	Evidence  json.RawMessage   `json:"evidence,omitempty"`
	// Attachment is what is too big for evidence, such as an inventory; the server stores it as a blob.
	Attachment json.RawMessage `json:"attachment,omitempty"`
	Error      *fleet.Problem  `json:"error,omitempty"`
}

// Report is what an agent has to say outside steps: console lines, a panic, a stage of its boot.
type Report struct {
	Kind  string    `json:"kind"` // log, panic, stage, shutdown
	At    time.Time `json:"at"`
	Lines []string  `json:"lines"`
}
