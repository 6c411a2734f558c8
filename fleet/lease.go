package fleet

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// LeaseState is where a lease is.
type LeaseState string

const (
	LeasePending    LeaseState = "pending"
	LeaseAllocating LeaseState = "allocating"
	LeaseDeploying  LeaseState = "deploying"
	LeaseActive     LeaseState = "active"
	LeaseReleasing  LeaseState = "releasing"
	LeaseReleased   LeaseState = "released"
	// LeaseFailed holds nothing.
	LeaseFailed LeaseState = "failed"
)

// MemberState is where one node of a lease is.
type MemberState string

const (
	MemberReserved  MemberState = "reserved"
	MemberDeploying MemberState = "deploying"
	MemberReady     MemberState = "ready"
	MemberFailed    MemberState = "failed"
	MemberReplaced  MemberState = "replaced"
	MemberReleasing MemberState = "releasing"
	MemberReleased  MemberState = "released"
)

// Ready says what a tenant means by "it works".
type Ready string

const (
	// ReadyOS: the operating system runs, by the BMC's BootProgress, else power on for a time.
	ReadyOS Ready = "os-running"
	// ReadyPhoneHome: the system calls back with a one-use secret; only where a network names a reachable endpoint.
	ReadyPhoneHome Ready = "phone-home"
	// ReadyNow: as soon as it is powered on.
	ReadyNow Ready = "now"
)

// ConfigDriveForm is the layout of the config drive.
type ConfigDriveForm string

const (
	// ConfigDriveOpenStack is a volume config-2 with openstack/latest; the default.
	ConfigDriveOpenStack ConfigDriveForm = "openstack"
	// ConfigDriveNoCloud is a volume CIDATA with the files of cloud-init's NoCloud source.
	ConfigDriveNoCloud ConfigDriveForm = "nocloud"
)

// MaxUserData is the most bytes of user-data that a lease may have: what a config drive carries with everything else on it. OpenStack's own limit is
// 64 KiB before base64.
const MaxUserData = 1 << 20

// Topology says how near to each other nodes must be.
type Topology string

const (
	TopologyAny Topology = "any"
	// TopologySameLeaf: their ports end at the same leaf switches; where no wires are known, they stand in the same rack by their labels.
	TopologySameLeaf Topology = "same-leaf"
	// TopologySameRailGroup: their label rail_group is the same; where one has none, they are on the same leaf switches.
	TopologySameRailGroup Topology = "same-rail-group"
)

// Topologies are all of them, the nearest first.
var Topologies = []Topology{TopologySameLeaf, TopologySameRailGroup, TopologyAny}

// LeaseRequest is what a tenant asks for; it does not change afterwards.
type LeaseRequest struct {
	// Nodes are named, or Count of Class are chosen by the server.
	Nodes []string `json:"nodes,omitempty"`
	Count int      `json:"count,omitempty"`
	Class string   `json:"class,omitempty"`
	// Topology is how near to each other chosen nodes must be; "" means TopologyAny. Selector is what their labels must be, as ParseSelector reads it.
	Topology Topology `json:"topology,omitempty"`
	Selector string   `json:"selector,omitempty"`

	Image            string            `json:"image"`
	SSHKeys          []string          `json:"ssh_keys,omitempty"`
	HostnameTemplate string            `json:"hostname_template,omitempty"`
	Meta             map[string]string `json:"meta,omitempty"`
	NetworkData      json.RawMessage   `json:"network_data,omitempty"`
	// Partition is the InfiniBand partition that the nodes' fabric ports are put into; "" gives the lease one of its own.
	Partition string `json:"partition,omitempty"`
	// Network is the one that the nodes' Ethernet ports for tenants are put into; "" gives the lease one of its own.
	Network string `json:"network,omitempty"`
	Ready   Ready  `json:"ready,omitempty"`
	// ConfigDrive is the layout of the config drive; "" means ConfigDriveOpenStack.
	ConfigDrive ConfigDriveForm `json:"config_drive,omitempty"`
	// MinReady members suffice; 0 means all.
	MinReady int `json:"min_ready,omitempty"`
	// Until is when the lease ends by itself; zero means never.
	Until time.Time `json:"until,omitzero"`
	// GraceSeconds keeps the disks untouched after the end; 0 means none.
	GraceSeconds int64 `json:"grace_seconds"`
	// WipeData lets deploying erase every accepted disk before the image is written; otherwise, and at a rebuild, only the root disk is touched.
	WipeData bool `json:"wipe_data,omitempty"`
	// DeadlineSeconds bounds allocating and deploying; 0 means the server's default.
	DeadlineSeconds int64 `json:"deadline_seconds,omitempty"`
}

// Member is one node of a lease.
type Member struct {
	Node      NodeID      `json:"node"`
	Name      string      `json:"name"`
	Hostname  string      `json:"hostname"`
	State     MemberState `json:"state"`
	Since     time.Time   `json:"since"`
	Operation OperationID `json:"operation,omitempty"`
	// Image is what the node was last rebuilt with, where that is another than the request's.
	Image string `json:"image,omitempty"`
	// Proof is what showed readiness, or why the member failed.
	Proof string `json:"proof,omitempty"`
	// Undeployed: its first deployment was given up, so that its disks hold nothing of the tenant's that a grace time could keep.
	Undeployed bool `json:"undeployed,omitempty"`
	// Wires is the digest of the proof that the node's fabric ports were in the lease's partition and nowhere else; "" where none was moved.
	Wires string `json:"wires,omitempty"`
	// Probe is the digest of what packets showed of its Ethernet ports before it was handed over; "" where nobody sent any.
	Probe string `json:"probe,omitempty"`
	// Cleaning is the digest of the record of the newest cleaning of what this tenant left; "" before.
	Cleaning string `json:"cleaning,omitempty"`
	// Index is the member's place in the lease, from 0, which its host name may have been made of.
	Index int `json:"index,omitempty"`
	// Chosen is why the server chose the node; "" where it was named.
	Chosen string `json:"chosen,omitempty"`
	// Identity is the member whose identity to its system it has taken over; "" where it has its own.
	Identity string `json:"identity,omitempty"`
	// Addresses are what its system is given in the lease's network, each with the length of its range; none where the network has no subnets, or the request
	// brings network data of its own.
	Addresses []string `json:"addresses,omitempty"`
	// ReplacedBy is the node that took its place, because it failed on the way or, with Replaced, as a person asked; "" where none did.
	ReplacedBy NodeID `json:"replaced_by,omitempty"`
	Replaced   string `json:"replaced,omitempty"`
	// Unreplaced is why no other node took the place of one that failed on the way.
	Unreplaced string `json:"unreplaced,omitempty"`
}

// Out reports whether another node has taken the member's place, whether or not its node was given back yet.
func (m Member) Out() bool { return m.State == MemberReplaced || m.ReplacedBy != "" }

// Gone is the state of the member when its node is given back.
func (m Member) Gone() MemberState {
	if m.Out() {
		return MemberReplaced
	}
	return MemberReleased
}

// AllocationEpoch counts claims of nodes by leases, and of addresses: whoever makes one must have seen the newest, so that two leases never hold one node.
const AllocationEpoch Key = KindMeta + "/allocation-epoch"

// Lease is a tenant's right to nodes. The lease record claims all its nodes at once: it lists its members, and its creation is
// guarded by Epoch, so that two leases never hold one node.
type Lease struct {
	ID      LeaseID      `json:"id"`
	Name    string       `json:"name,omitempty"`
	State   LeaseState   `json:"state"`
	Since   time.Time    `json:"since"`
	Request LeaseRequest `json:"request"`
	// UserData is the digest of the user-data blob, "" for none. The bytes are a secret of the tenant.
	UserData  string    `json:"user_data,omitempty"`
	Members   []Member  `json:"members"`
	Protected bool      `json:"protected,omitempty"`
	Fault     string    `json:"fault,omitempty"`
	GraceEnds time.Time `json:"grace_ends,omitzero"`
	// GraceOver is when the first of its nodes left grace to be erased: from then on the lease is not extended any more.
	GraceOver time.Time `json:"grace_over,omitzero"`
	// WarnedAt is when watchers were told that the lease ends soon.
	WarnedAt time.Time `json:"warned_at,omitzero"`
	// Overdue says why the lease goes on although its time is over; "" where it does not.
	Overdue   string    `json:"overdue,omitempty"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
}

// LeaseTransition is one row of the lease's lifecycle.
type LeaseTransition struct {
	From []LeaseState
	Verb string
	To   LeaseState
	Why  string
}

// LeaseLifecycle is the table of everything that may become of a lease.
var LeaseLifecycle = []LeaseTransition{
	{[]LeaseState{LeasePending}, "allocate", LeaseAllocating, "nodes are being reserved, all in one record"},
	{[]LeaseState{LeaseAllocating}, "deploy", LeaseDeploying, "every member is reserved"},
	{[]LeaseState{LeaseDeploying}, "ready", LeaseActive, "enough members are ready"},
	{[]LeaseState{LeasePending, LeaseAllocating}, "fail", LeaseFailed, "no node was reserved, so nothing is held"},
	{[]LeaseState{LeasePending, LeaseAllocating, LeaseDeploying, LeaseActive}, "release", LeaseReleasing, "release is legal everywhere and idempotent"},
	{[]LeaseState{LeaseReleasing}, "released", LeaseReleased, "every member is isolated"},
	{[]LeaseState{LeaseReleased}, "extend", LeaseDeploying, "its nodes wait untouched in grace, and the tenant took more time: they come back"},
	{[]LeaseState{LeaseReleasing}, "failed", LeaseFailed, "a lease that could not be deployed holds nothing any more"},
}

// MoveLease asks the table. Release of a lease that is releasing, released or failed is answered with its present state.
func MoveLease(from LeaseState, verb string) (LeaseState, error) {
	for _, t := range LeaseLifecycle {
		if t.Verb == verb && slices.Contains(t.From, from) {
			return t.To, nil
		}
	}
	if verb == "release" {
		return from, nil
	}
	return "", Errorf(Conflict, "MC-LEASE-VERB", "a lease that is %s does not take %q", from, verb)
}

// Over reports whether the lease holds nothing. A released one may come back while its nodes are in grace.
func (s LeaseState) Over() bool { return s == LeaseReleased || s == LeaseFailed }

// Member returns the member for that node, or nil. A node that was replaced and came again is two, of which the newer is meant.
func (l *Lease) Member(id NodeID) *Member {
	for i := len(l.Members) - 1; i >= 0; i-- {
		if l.Members[i].Node == id {
			return &l.Members[i]
		}
	}
	return nil
}

// Wanted is how many members are to become ready in the end.
func (r LeaseRequest) Wanted() int { return max(r.Count, len(r.Nodes)) }

// Valid reports whether t is one of Topologies.
func (t Topology) Valid() bool { return slices.Contains(Topologies, t) }

// TopologyNames are all of them in words.
func TopologyNames() string {
	names := make([]string, len(Topologies))
	for i, t := range Topologies {
		names[i] = string(t)
	}
	return strings.Join(names, ", ")
}
