package fleet

import (
	"fmt"
	"slices"
	"time"
)

// Ids are UUIDv7 in their text form; names are what people type.
type (
	NodeID      string
	LeaseID     string
	OperationID string
	// MAC is a hardware address in lower-case colon form.
	MAC string
	// GUID is an InfiniBand port GUID, "0x" and 16 hex digits.
	GUID string
)

// Dirty says whose data a node may still hold: the last lease's id, DirtyUnknown, or "" after cleaning.
type Dirty string

// DirtyUnknown is what a node is at enrolment: nobody knows what its disks hold.
const DirtyUnknown Dirty = "unknown"

// Node is a machine. Its record stays under 4 KiB; what is bigger (inventory, reports) is a blob that it names by digest.
type Node struct {
	ID     NodeID            `json:"id"`
	Name   string            `json:"name"`
	Class  string            `json:"class,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`

	BMC         BMC           `json:"bmc"`
	Expect      Expect        `json:"expect,omitzero"`
	BootNetwork *BootNetwork  `json:"boot_network,omitempty"`
	RootDisk    RootDiskHints `json:"root_disk,omitzero"`
	Ports       []Port        `json:"ports,omitempty"`
	// AllowReboot lets an inspection restart a machine that is running.
	AllowReboot bool `json:"allow_reboot,omitempty"`
	// DebugShell lets an agent that panicked open a shell on the serial console.
	DebugShell bool `json:"debug_shell,omitempty"`
	// Simulated nodes belong to a simulated rack: an inventory with GPUs that are not there is refused of any other. It is said at enrolment and never changes.
	Simulated bool `json:"simulated,omitempty"`

	State      State     `json:"state"`
	StateSince time.Time `json:"state_since"`
	// Dirty and Isolated are the two durable facts of the lifecycle (invariants I3 and I4 of the table).
	Dirty    Dirty   `json:"dirty"`
	Isolated bool    `json:"isolated"`
	Lease    LeaseID `json:"lease,omitempty"`
	Faults   []Fault `json:"faults,omitempty"`
	Hold     *Hold   `json:"hold,omitempty"`
	// Protected nodes refuse release, rebuild, erase and power-off.
	Protected bool `json:"protected,omitempty"`

	// Accepted lists the devices that cleaning may erase, agreed at accept.
	Accepted []AcceptedDevice `json:"accepted,omitempty"`
	// AcceptedAs is the digest of the inventory that was shown when somebody accepted the node: cleaning compares with it what outlives an erase. "" where the
	// node was accepted before that was kept.
	AcceptedAs string `json:"accepted_as,omitempty"`
	// AcceptedVariables: that inventory names the firmware's variables, so that cleaning removes new ones.
	AcceptedVariables bool `json:"accepted_variables,omitempty"`
	// Inventory is the digest of the newest inventory blob, "" before the first.
	Inventory   string    `json:"inventory,omitempty"`
	InventoryAt time.Time `json:"inventory_at,omitzero"`
	// LastInventory is the digest of the one before, so that a part that was swapped is seen; "" where there was none.
	LastInventory string `json:"last_inventory,omitempty"`
	// Board is the digest of what the BMC showed of the GPU baseboard at the last inspection, "" where it showed none; LastBoard of what it showed before.
	Board     string `json:"board,omitempty"`
	LastBoard string `json:"last_board,omitempty"`
	// Compared is the mark of the last comparison with the class, as Class.Compared makes it; "" where there was none.
	Compared string `json:"compared,omitempty"`
	// Erased is the level that the last cleaning reached, "clear", "purge" or ErasedByFormat; "" from the moment on that a tenant may write.
	Erased string `json:"erased,omitempty"`
	// Cleaning is the digest of the newest cleaning record, "" where there is none.
	Cleaning string `json:"cleaning,omitempty"`
	// BurnedAt is when the last burn-in passed; zero when it must run again.
	BurnedAt time.Time `json:"burned_at,omitzero"`
	// ProvenAt is when the profile that the class names for new nodes last passed; zero: it still has to.
	ProvenAt time.Time `json:"proven_at,omitzero"`
	// ProvenBy is that profile's name: where the class names another one since, that has to pass, too.
	ProvenBy string `json:"proven_by,omitempty"`
	// BurnIn is the newest plan run that has burned the node in, to its end or not; it has the report.
	BurnIn OperationID `json:"burn_in,omitempty"`
	// BurnNext is the profile that the next burn-in has to run in place of the class's for after a tenancy; "" where nothing asked for another.
	BurnNext string `json:"burn_next,omitempty"`

	// Repairs are the newest parts that somebody said were replaced, oldest first.
	Repairs []Repair `json:"repairs,omitempty"`

	// Boot is what the node was last booted with; the agent's session belongs to it.
	Boot BootRecord `json:"boot,omitzero"`
	// Handovers counts how often the node was given into a tenant's hands; it only rises.
	Handovers int64 `json:"handovers,omitempty"`
	// Operation is the plan run that acts on the node now, or "".
	Operation OperationID `json:"operation,omitempty"`
	// LastOperation is the newest plan run that has ended, which retry goes on with.
	LastOperation OperationID `json:"last_operation,omitempty"`
	// Wish is what somebody asked for and the reconciler has not yet begun.
	Wish *Wish `json:"wish,omitempty"`
	// Power is "on" or "off" as last read back from the BMC; "" where it was not read yet. It is written where it changes.
	Power string `json:"power,omitempty"`
	// Undo is what a plan that was given up left to be put right; nil where nothing is.
	Undo *Undo `json:"undo,omitempty"`
	// Doubt stands beside FaultUnwitnessed; nil where nobody doubts the store.
	Doubt *Doubt `json:"doubt,omitempty"`
	// Destroyed lists serials of media recorded as destroyed, for retiring a node that held data.
	Destroyed []string  `json:"destroyed,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// BMC is how a node's management controller is reached, and what enrolment learned of it. The password is a secret record of its own.
type BMC struct {
	// Address is the https URL of the Redfish service's host, without path.
	Address string `json:"address"`
	User    string `json:"user"`
	TLS     BMCTLS `json:"tls"`
	// Auth is "session" or "basic", decided at enrolment.
	Auth string `json:"auth,omitempty"`
	// Quirk names the profile of vendor differences that was recognised at enrolment.
	Quirk    string `json:"quirk,omitempty"`
	Vendor   string `json:"vendor,omitempty"`
	Model    string `json:"model,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	Serial   string `json:"serial,omitempty"`
	UUID     string `json:"uuid,omitempty"`
	// MediaSlot and MediaParameters are what the last insertion of a boot medium found to work: the next one starts there.
	MediaSlot       string   `json:"media_slot,omitempty"`
	MediaParameters []string `json:"media_parameters,omitempty"`
	// BootMethod says what would be used to boot the machine, and why, in words.
	BootMethod string `json:"boot_method,omitempty"`
	// Witness is the mark in the BMC that was written last, or found at enrolment; "" where the BMC takes none.
	Witness string `json:"witness,omitempty"`
	// WitnessSeen is the mark that testified against the store, until a person has cleared that fault.
	WitnessSeen string `json:"witness_seen,omitempty"`
}

// BMCTLS says how a BMC's certificate is trusted: exactly one of CAPEM, Pin, FirstUse is asked for.
type BMCTLS struct {
	// CAPEM is asked for; a node's record holds only CA, the id of the record with these certificates, as racks share them.
	CAPEM string `json:"ca_pem,omitempty"`
	CA    string `json:"ca,omitempty"`
	// Pin is "sha256/" and the base64 SHA-256 of the certificate's public key (SPKI).
	Pin string `json:"pin,omitempty"`
	// FirstUse pins the key seen at enrolment; the key is then in Pin.
	FirstUse bool `json:"first_use,omitempty"`
}

// Expect refuses another machine than the one that was meant.
type Expect struct {
	Serial string `json:"serial,omitempty"`
	UUID   string `json:"uuid,omitempty"`
}

// RootDiskHints choose the disk that an image is written to; all given ones must match.
type RootDiskHints struct {
	MinSizeBytes int64  `json:"min_size_bytes,omitempty"`
	MaxSizeBytes int64  `json:"max_size_bytes,omitempty"`
	Serial       string `json:"serial,omitempty"`
	Model        string `json:"model,omitempty"`
	WWN          string `json:"wwn,omitempty"`
	Transport    string `json:"transport,omitempty"`
	Name         string `json:"name,omitempty"`
}

// Port is one wire of a node, Ethernet (MAC) or InfiniBand (GUID).
type Port struct {
	MAC    MAC    `json:"mac,omitempty"`
	GUID   GUID   `json:"guid,omitempty"`
	Role   string `json:"role"` // provisioning, tenant, fabric
	Switch string `json:"switch,omitempty"`
	Port   string `json:"port,omitempty"`
	LAG    string `json:"lag,omitempty"`
	Fabric string `json:"fabric,omitempty"`
	Rail   *int   `json:"rail,omitempty"`
}

// AcceptedDevice is a disk that somebody agreed may be erased. A device that is not listed is never touched.
type AcceptedDevice struct {
	Serial    string `json:"serial"`
	Model     string `json:"model,omitempty"`
	SizeBytes int64  `json:"size_bytes"`
	// BlockBytes is the size of a logical block of an NVMe namespace; 0 for other disks.
	BlockBytes int `json:"block_bytes,omitempty" since:"3"`
}

// Severity orders faults.
type Severity string

const (
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Blocks says what a fault forbids.
type Blocks string

const (
	BlocksNothing    Blocks = "nothing"
	BlocksAllocate   Blocks = "allocate"
	BlocksDeploy     Blocks = "deploy"
	BlocksEverything Blocks = "everything"
)

// Fault says what is wrong with a component. A node holds at most one per (Code, Component).
type Fault struct {
	Code      string    `json:"code"`
	Component string    `json:"component"`
	Severity  Severity  `json:"severity"`
	Since     time.Time `json:"since"`
	// Evidence is what was observed, at most 300 bytes.
	Evidence string `json:"evidence"`
	// Hint is the next command to type.
	Hint   string `json:"hint"`
	Blocks Blocks `json:"blocks"`
	// Step is the step that found it, and clears it when it ends without finding it again; "" where only a person or a plan's success clears it.
	Step string `json:"step,omitempty"`
	// Check is the check of a burn-in's report that it comes from, "" for any other fault: only a run that looked there again clears it.
	Check string `json:"check,omitempty" agent:"-"`
	// Seen counts how often it was raised: the same fault twice needs a person.
	Seen int `json:"seen"`
}

// Hold is a person's hands-off: no new step starts on the node.
type Hold struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Wish is what somebody asked of a node, stored before anything is done.
type Wish struct {
	Verb      Verb        `json:"verb"`
	By        string      `json:"by"`
	At        time.Time   `json:"at"`
	Operation OperationID `json:"operation"`
	// What was asked with it, for a plan that is composed later because something else must end first.
	OutOfBand   bool   `json:"out_of_band,omitempty"`
	AllowReboot bool   `json:"allow_reboot,omitempty"`
	Image       string `json:"image,omitempty"`
	// Profile is the burn-in profile that was asked for in place of the one that is due, or "".
	Profile string `json:"profile,omitempty"`
	// Plan is the digest of the only plan that may run, or "".
	Plan string `json:"plan,omitempty"`
	// Resume is the plan run that a retry goes on with where its agent still answers; else the plan is composed anew.
	Resume OperationID `json:"resume,omitempty"`
}

// BootRecord is the newest boot generation of a node. Tokens and results of older generations are refused.
type BootRecord struct {
	Generation int64 `json:"generation,omitempty"`
	// TokenHash is the SHA-256 of the single-use token in the credential, hex.
	TokenHash string `json:"token_hash,omitempty"`
	// MediaID is the unguessable part of the boot medium's address; "" once it has expired.
	MediaID  string    `json:"media_id,omitempty"`
	IssuedAt time.Time `json:"issued_at,omitzero"`
	// Origin is the server whose address the medium has, as it advertised itself; "" where that was not noted.
	Origin string `json:"origin,omitempty"`
	// AgentKey is the SPKI pin of the key that the token was spent by; "" before first contact.
	AgentKey     string    `json:"agent_key,omitempty"`
	RegisteredAt time.Time `json:"registered_at,omitzero"`
	// Unauthenticated is set where the boot path could be tampered with: plain http, or a BMC that does not verify the server, without Secure Boot.
	Unauthenticated bool `json:"unauthenticated,omitempty"`
	// Witnessed is the newest boot generation that an outside witness named and a person took over; the next one is later than both.
	Witnessed int64 `json:"witnessed,omitempty"`
	// Packs is the PackMark of what this boot has fetched; "" where it has nothing.
	Packs string `json:"packs,omitempty"`
	// Ramdisk is the SHA-256 of the medium that this generation boots; "" where it was issued by a server that had only one.
	Ramdisk string `json:"ramdisk,omitempty"`
	// Protocol is the version of the agent's protocol that the agent speaks, Program the version of metalctl that it is. 0 and "" before first contact, and
	// of agents that registered with a server that did not note it: those speak 1.
	Protocol int    `json:"protocol,omitempty"`
	Program  string `json:"program,omitempty"`
	// Refused says why the server will not work with the agent of this boot, "" where it does.
	Refused string `json:"refused,omitempty"`
	// Stages are how the agent says that its machine came up, in order; the last one is registering. Empty where it did not say.
	Stages []BootStage `json:"stages,omitempty"`
}

// Speaks is the version of the agent's protocol that the agent of this boot speaks.
func (b BootRecord) Speaks() int { return max(b.Protocol, 1) }

// BootStage is a stage of a boot that has ended.
type BootStage struct {
	Name string `json:"name"`
	// Seconds after the kernel started.
	Seconds float64 `json:"seconds"`
}

// Fault returns the fault with that code and component, or nil.
func (n *Node) Fault(code, component string) *Fault {
	for i := range n.Faults {
		if n.Faults[i].Code == code && n.Faults[i].Component == component {
			return &n.Faults[i]
		}
	}
	return nil
}

// RaiseFault adds f, or counts it again where the node has it already.
func (n *Node) RaiseFault(f Fault) {
	if len(f.Evidence) > 300 {
		f.Evidence = f.Evidence[:297] + "..."
	}
	if old := n.Fault(f.Code, f.Component); old != nil {
		old.Evidence, old.Hint, old.Severity, old.Blocks, old.Check = f.Evidence, f.Hint, f.Severity, f.Blocks, f.Check
		old.Seen++
		return
	}
	same := 0
	for _, x := range n.Faults {
		if x.Code == f.Code && x.Component != MoreComponents {
			same++
		}
	}
	if same >= faultsPerCode {
		n.raiseMore(f)
		return
	}
	f.Seen = 1
	n.Faults = append(n.Faults, f)
}

// MoreComponents is the component of the one fault that stands for all further ones of its code: a node's record has 4 KiB.
const MoreComponents = "more"

const faultsPerCode = 3

// raiseMore counts f into the fault that stands for the further components of its code, which blocks what the strictest of them does.
func (n *Node) raiseMore(f Fault) {
	order := []Blocks{BlocksNothing, BlocksAllocate, BlocksDeploy, BlocksEverything}
	m := n.Fault(f.Code, MoreComponents)
	if m == nil {
		n.Faults = append(n.Faults, Fault{Code: f.Code, Component: MoreComponents, Severity: f.Severity, Since: f.Since, Hint: f.Hint, Blocks: f.Blocks, Step: f.Step})
		m = &n.Faults[len(n.Faults)-1]
	}
	if f.Severity == Critical {
		m.Severity = Critical
	}
	if slices.Index(order, f.Blocks) > slices.Index(order, m.Blocks) {
		m.Blocks = f.Blocks
	}
	if m.Step != f.Step {
		m.Step = ""
	}
	m.Seen++
	m.Evidence = fmt.Sprintf("and %d more, the last on %s: %s", m.Seen, f.Component, f.Evidence)
	if len(m.Evidence) > 300 {
		m.Evidence = m.Evidence[:297] + "..."
	}
}

// ClearFault removes the fault with that code and component and reports whether there was one.
func (n *Node) ClearFault(code, component string) bool {
	for i := range n.Faults {
		if n.Faults[i].Code == code && n.Faults[i].Component == component {
			n.Faults = append(n.Faults[:i], n.Faults[i+1:]...)
			return true
		}
	}
	return false
}

// FaultTokenReused: two keys came with one boot token, so that somebody else can read the node's boot media. Nothing is booted on it until a person has cleared it.
const FaultTokenReused = "MC-FAULT-TOKEN-REUSED"

// Barred returns the fault that keeps a plan from booting or erasing the machine, or nil. A fault that blocks everything keeps it from being erased; whether it
// may be booted to be looked at depends on the fault: that it is another machine is seen, and cleared, by the next boot.
func (n *Node) Barred(erases bool) *Fault {
	for i, f := range n.Faults {
		if f.Blocks == BlocksEverything && (erases || f.Code == FaultTokenReused || f.Component == StaleComponent) {
			return &n.Faults[i]
		}
	}
	return nil
}

// Blocked returns the faults that forbid what, in the order they were raised.
func (n *Node) Blocked(what Blocks) []Fault {
	var out []Fault
	for _, f := range n.Faults {
		if f.Blocks == BlocksEverything || f.Blocks == what || what == BlocksAllocate && f.Blocks == BlocksDeploy {
			out = append(out, f)
		}
	}
	return out
}
