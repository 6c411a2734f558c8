package api

import (
	"encoding/json"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Base is the path that the REST API stands under.
const Base = "/api/v1"

// Node is a node as the API shows it: the record, and what is derived from it.
type Node struct {
	fleet.Node
	Revision fleet.Revision `json:"revision"`
	// Verbs are what the node takes now, by the lifecycle table.
	Verbs []fleet.Verb `json:"verbs"`
	// Isolation is "proven", "unproven", or "none" where the site hands nodes out without a network driver.
	Isolation string `json:"isolation"`
	// Agent is "up", "silent" (registered, but not heard of for a minute) or "none".
	Agent     string    `json:"agent"`
	AgentSeen time.Time `json:"agent_seen,omitzero"`
	// WouldErase lists the disks that accept would agree to; empty before the first inventory.
	WouldErase []fleet.AcceptedDevice `json:"would_erase,omitempty"`
	// Cleaned is the newest cleaning record in one line, "" where there is none; it is read with a single node, not in lists.
	Cleaned string `json:"cleaned,omitempty"`
	// Wires is what the node's fabric ports carry and since when that is proven; nil where it was never noted. It is read with a single node, not in lists.
	Wires *fleet.NodeWires `json:"wires,omitempty"`
	// Breaker says since when and why the BMC's credential is not used, or "".
	Breaker string `json:"bmc_breaker,omitempty"`
	// Waits says what the node waits for, or "".
	Waits string `json:"waits_for,omitempty"`
	// Frozen is the freeze that covers the node: nothing outside is written for it.
	Frozen *Frozen `json:"frozen,omitempty"`
}

// NodeCreate enrols a node. The BMC is opened with reads only.
type NodeCreate struct {
	Name        string              `json:"name"`
	Class       string              `json:"class,omitempty"`
	Labels      map[string]string   `json:"labels,omitempty"`
	Address     string              `json:"bmc_address"`
	User        string              `json:"bmc_user"`
	Password    string              `json:"bmc_password"` // write-only
	TLS         fleet.BMCTLS        `json:"bmc_tls,omitzero"`
	Expect      fleet.Expect        `json:"expect,omitzero"`
	BootNetwork *fleet.BootNetwork  `json:"boot_network,omitempty"`
	RootDisk    fleet.RootDiskHints `json:"root_disk,omitzero"`
	Ports       []fleet.Port        `json:"ports,omitempty"`
	AllowReboot bool                `json:"allow_reboot,omitempty"`
	DebugShell  bool                `json:"debug_shell,omitempty"`
	Simulated   bool                `json:"simulated,omitempty"`
}

// NodePatch changes settings of a node; absent fields stay.
type NodePatch struct {
	Class    *string            `json:"class,omitempty"`
	Labels   *map[string]string `json:"labels,omitempty"`
	User     *string            `json:"bmc_user,omitempty"`
	Password *string            `json:"bmc_password,omitempty"` // write-only; closes the breaker
	// TLS and Address are recorded only after the BMC was opened with them, with reads only, and is the same machine's.
	TLS         *fleet.BMCTLS        `json:"bmc_tls,omitempty"`
	Address     *string              `json:"bmc_address,omitempty"`
	BootNetwork *fleet.BootNetwork   `json:"boot_network,omitempty"`
	RootDisk    *fleet.RootDiskHints `json:"root_disk,omitempty"`
	AllowReboot *bool                `json:"allow_reboot,omitempty"`
	DebugShell  *bool                `json:"debug_shell,omitempty"`
}

// NodeVerb is the body of POST nodes/{id}/{verb}. Which fields count depends on the verb.
type NodeVerb struct {
	// Plan is the digest of a plan that was shown: exactly that runs, or nothing.
	Plan string `json:"plan,omitempty"`
	// AllowReboot lets this inspection restart a running machine.
	AllowReboot bool `json:"allow_reboot,omitempty"`
	// OutOfBand inspects through the BMC alone.
	OutOfBand bool `json:"out_of_band,omitempty"`
	// Devices are the serials that accept agrees to. It names them, or the Plan that was shown; with neither it is refused.
	Devices []string `json:"devices,omitempty"`
	// Reason goes with hold and abort.
	Reason string `json:"reason,omitempty"`
	// Destroyed are serials of media that were destroyed, for retire.
	Destroyed []string `json:"destroyed,omitempty"`
	// Image replaces the lease's image at rebuild.
	Image string `json:"image,omitempty"`
	// Profile is the burn-in profile to run in place of the one that is due.
	Profile string `json:"profile,omitempty"`
	// WaiveGrace lets clean begin before the grace time is over.
	WaiveGrace bool `json:"waive_grace,omitempty"`
	// FaultCode and FaultComponent name the fault that clear-fault clears.
	FaultCode      string `json:"fault_code,omitempty"`
	FaultComponent string `json:"fault_component,omitempty"`
	// Replaced is the part that repair records as replaced, such as gpu/3; OldSerial and NewSerial are what was taken out and put in.
	Replaced  string `json:"replaced,omitempty"`
	OldSerial string `json:"old_serial,omitempty"`
	NewSerial string `json:"new_serial,omitempty"`
	// Note goes with a repair: a ticket, a bay.
	Note string `json:"note,omitempty"`
}

// Verbs beyond the lifecycle table that POST nodes/{id}/{verb} takes: they change facts, not the state.
const (
	VerbHold       = "hold"
	VerbUnhold     = "unhold"
	VerbProtect    = "protect"
	VerbUnprotect  = "unprotect"
	VerbRetry      = "retry"
	VerbClearFault = "clear-fault"
	VerbRepair     = "repair"
)

// Power is the body of POST nodes/{id}/power and the answer of GET.
type Power struct {
	State  string `json:"state,omitempty"`  // on, off, or a transition as the BMC names it
	Action string `json:"action,omitempty"` // on, off, cycle, shutdown
}

// Plan is what would run.
type Plan struct {
	Use      string        `json:"use"`
	Digest   string        `json:"digest"`
	Steps    []PlannedStep `json:"steps"`
	Reboots  int           `json:"reboots"`
	Destroys bool          `json:"destroys_data"`
	// Erases lists the devices that the plan would erase or write.
	Erases []fleet.AcceptedDevice `json:"erases,omitempty"`
}

// PlannedStep is one step of a plan that has not run.
type PlannedStep struct {
	Name     string          `json:"name"`
	Side     string          `json:"side"`
	Why      string          `json:"why"`
	Destroys bool            `json:"destroys_data,omitempty"`
	Params   json.RawMessage `json:"params,omitempty"`
}

// LeaseCreate is the body of POST leases.
type LeaseCreate struct {
	fleet.LeaseRequest
	Name     string `json:"name,omitempty"`
	UserData []byte `json:"user_data,omitempty"` // base64; write-only
}

// LeaseExtend is the body of POST leases/{id}/extend.
type LeaseExtend struct {
	Until time.Time `json:"until"`
}

// Lease is a lease as the API shows it.
type Lease struct {
	fleet.Lease
	Revision fleet.Revision `json:"revision"`
	// Isolation repeats the site's setting: "none" means that nothing separates tenants.
	Isolation string `json:"isolation"`
	// Wires is what the fabric ports of its nodes carry and since when that is proven. It is read with a single lease, not in lists.
	Wires []fleet.NodeWires `json:"wires,omitempty"`
}

// Operation is an operation as the API shows it: the journal and the newest progress.
type Operation struct {
	fleet.Operation
	Revision fleet.Revision  `json:"revision"`
	Progress *fleet.Progress `json:"progress,omitempty"`
	Percent  float64         `json:"percent"`
	// Waits says what the plan waits for, such as the thaw of its node, or "".
	Waits string `json:"waits_for,omitempty"`
}

// ImageCreate is the body of POST images. With no URL the bytes follow by PUT images/{name}/content.
type ImageCreate struct {
	fleet.Image
}

// List is a page of a collection.
type List[T any] struct {
	Items    []T            `json:"items"`
	Continue string         `json:"continue,omitempty"`
	Revision fleet.Revision `json:"revision"`
}

// Problem is an error on the wire (RFC 9457).
type Problem struct {
	Type     string             `json:"type"`
	Title    string             `json:"title"`
	Status   int                `json:"status"`
	Detail   string             `json:"detail"`
	Instance string             `json:"instance,omitempty"`
	Code     string             `json:"code,omitempty"`
	Hint     string             `json:"hint,omitempty"`
	Kind     string             `json:"kind,omitempty"`
	Errors   []fleet.FieldError `json:"errors,omitempty"`
}

// Capabilities is the answer of GET capabilities.
type Capabilities struct {
	Version   string            `json:"version"`
	Commit    string            `json:"commit"`
	Drivers   map[string]string `json:"drivers"`
	Isolation string            `json:"isolation"`
	Lifecycle []LifecycleRow    `json:"lifecycle"`
	Steps     []StepDoc         `json:"steps"`
}

// LifecycleRow is one row of the lifecycle table.
type LifecycleRow struct {
	From  []fleet.State `json:"from"`
	Verb  fleet.Verb    `json:"verb"`
	Guard string        `json:"guard"`
	To    fleet.State   `json:"to"`
	Why   string        `json:"why"`
}

// StepDoc documents one step of the catalogue.
type StepDoc struct {
	Name     string   `json:"name"`
	Uses     []string `json:"uses"`
	Side     string   `json:"side"`
	Destroys bool     `json:"destroys_data"`
	Crash    string   `json:"after_crash"`
	Abort    string   `json:"abort"`
	Limit    string   `json:"limit"`
	Doc      string   `json:"doc"`
}
