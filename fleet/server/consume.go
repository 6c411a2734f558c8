package server

import (
	"context"
	"io"
	"net/url"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Verbs takes wishes for nodes. The operation is "" for verbs that change facts and start nothing.
type Verbs interface {
	Ask(ctx context.Context, id fleet.NodeID, verb string, v api.NodeVerb, by string) (fleet.OperationID, error)
}

// Leases takes wishes for leases.
type Leases interface {
	CreateLease(ctx context.Context, l api.LeaseCreate, by string) (fleet.Lease, error)
	ExtendLease(ctx context.Context, id fleet.LeaseID, l api.LeaseExtend, by string) (fleet.Lease, error)
	ReleaseLease(ctx context.Context, id fleet.LeaseID, by string) (fleet.Lease, error)
	// ProtectLease takes api.VerbProtect and api.VerbUnprotect.
	ProtectLease(ctx context.Context, id fleet.LeaseID, verb, by string) (fleet.Lease, error)
}

// Choices chooses nodes for leases. The plans have no side effects.
type Choices interface {
	PlanLease(ctx context.Context, l api.LeaseCreate, by string) (fleet.Choice, error)
	PlanReplace(ctx context.Context, id fleet.LeaseID, out fleet.NodeID, r api.LeaseReplace, by string) (api.LeaseSwap, error)
	ReplaceNode(ctx context.Context, id fleet.LeaseID, out fleet.NodeID, r api.LeaseReplace, by string) (fleet.Lease, error)
}

// Work hands steps to agents and takes what became of them.
type Work interface {
	// TaskFor returns what the agent of that boot generation should do now, or nil.
	TaskFor(ctx context.Context, id fleet.NodeID, generation int64) (*api.Task, error)
	// Report takes a result; one of an older try is ignored without error.
	Report(ctx context.Context, id fleet.NodeID, generation int64, r api.Result) error
	// UserData returns the user-data of the lease that the node is deployed for now; kind NotFound where none is being deployed.
	UserData(ctx context.Context, id fleet.NodeID, generation int64) ([]byte, error)
}

// Plans says what would run and what is waited for. It has no side effects.
type Plans interface {
	Plan(ctx context.Context, id fleet.NodeID, q api.PlanQuery) (api.Plan, error)
	// ReleasePlan refuses with MC-PLAN-DIGEST where asked, unless "", is not the digest of what would run now.
	ReleasePlan(ctx context.Context, id fleet.LeaseID, asked string) (api.LeasePlan, error)
	// Waits says in words what the node waits for, or "".
	Waits(id fleet.NodeID) string
}

// Words explain what a node or lease waits for. They have no side effects; of the agent they say nothing.
type Words interface {
	Explain(ctx context.Context, id fleet.NodeID) (api.Explain, error)
	ExplainLease(ctx context.Context, id fleet.LeaseID) (api.LeaseExplain, error)
}

// Brakes stops and lets go what writes to the outside.
type Brakes interface {
	Freeze(ctx context.Context, r api.FreezeCreate, by string) (fleet.Freeze, error)
	Thaw(ctx context.Context, r api.Thaw, by string) error
	// Leave returns nil where something may be done to several nodes at once, and else MC-FENCE with the request that it made.
	Leave(ctx context.Context, r api.Leave, by string) error
	// Harm enters what is done to a node without a plan, or returns MC-FENCE.
	Harm(ctx context.Context, id fleet.NodeID, h fleet.Harm, act, by string) error
	// Decide takes "grant" and "deny".
	Decide(ctx context.Context, id fleet.ApprovalID, verb string, who api.Approver, reason string) (fleet.Approval, error)
}

// Loads bounds what machines draw.
type Loads interface {
	// StopLoad ends the load of burn-ins until ResumeLoad; both return when that is stored.
	StopLoad(ctx context.Context, r api.LoadStopCreate, by string) (fleet.LoadStop, error)
	ResumeLoad(ctx context.Context, r api.LoadResume, by string) error
	PowerStatus(s fleet.Snapshot) (api.PowerStatus, error)
	// MayPowerOn returns nil where a machine may be switched on by hand.
	MayPowerOn(ctx context.Context, id fleet.NodeID) error
}

// Engine is who moves nodes and leases. All are needed.
type Engine struct {
	Verbs   Verbs
	Leases  Leases
	Choices Choices
	Work    Work
	Plans   Plans
	Words   Words
	Brakes  Brakes
	Loads   Loads
}

// Learned is what enrolment found out about a BMC and its machine, by reads only.
type Learned struct {
	// BMC is the request's, completed: how it is authenticated, what it is, and with FirstUse the key that was pinned.
	BMC    fleet.BMC
	System fleet.Expect
	// Notes are what a person should know.
	Notes []string
}

// Enroller opens a BMC with reads only. Its deadline is that of ctx.
type Enroller interface {
	Enroll(ctx context.Context, bmc fleet.BMC, password fleet.Secret) (Learned, error)
}

// Credentials tells about the credential breaker of a node's BMC.
type Credentials interface {
	// Breaker says since when and why the credential is not used, or "".
	Breaker(id fleet.NodeID) string
	// CredentialChanged closes the breaker and ends sessions made with the old credential.
	CredentialChanged(id fleet.NodeID)
	// Forgotten lets go of the BMC of a node whose record is gone: its session ends, and so does what is remembered of its calls.
	Forgotten(id fleet.NodeID)
}

// Powerer reads and sets a machine's power. State is "on", "off" or a transition as the BMC names it.
type Powerer interface {
	PowerState(ctx context.Context, id fleet.NodeID) (state string, err error)
	// SetPower does "on", "off", "cycle" or "shutdown" and returns what was read back.
	SetPower(ctx context.Context, id fleet.NodeID, action string) (state string, err error)
}

// Boards looks at the GPU baseboard behind a node's BMC, by reads only.
type Boards interface {
	// Baseboard is nil where the BMC shows none. Its deadline is that of ctx; what was not read by then is named in it.
	Baseboard(ctx context.Context, id fleet.NodeID) (*fleet.Baseboard, error)
}

// Media are the boot ISOs that the server has. At least one is there.
type Media interface {
	// Ramdisks says what there is; the first is this program's own: what its configuration names, or what it built.
	Ramdisks() ([]fleet.Ramdisk, error)
	// Medium opens one by its digest, "" for the first. NotFound where it is gone.
	Medium(sha256 string) (Medium, error)
	// Drop removes one that nobody needs.
	Drop(sha256 string) error
}

// Medium is one boot ISO that nodes share. Overlay shows it with a credential in its window; nothing is copied.
type Medium interface {
	Size() int64
	Overlay(credential []byte) (io.ReaderAt, error)
}

// PackChecker looks into packs. Keys are PEM.
type PackChecker interface {
	// CheckPack refuses a file that is no pack, is damaged, or is not signed by one of keys, and returns what its manifest says.
	CheckPack(ctx context.Context, path string, keys []string) (fleet.Pack, error)
	// CheckPackKey refuses what is not one or more public keys.
	CheckPackKey(pem string) error
}

// ImageChecker looks into images. It returns the size of the disk inside, 0 where that is not known without decoding.
type ImageChecker interface {
	// CheckAddress refuses an address that the site does not let images come from, without dialling it.
	CheckAddress(u *url.URL, site fleet.Site) error
	// CheckFile refuses a file that is not what img says: format, backing files, cut short.
	CheckFile(ctx context.Context, path string, img fleet.Image) (virtual int64, err error)
	// CheckOrigin reads the image from its URL under the site's rules and compares size and digest.
	CheckOrigin(ctx context.Context, img fleet.Image, site fleet.Site) (read, virtual int64, err error)
}
