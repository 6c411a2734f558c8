package fleet

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Kinds of records about wires.
const (
	KindFabric    = "fabric"
	KindPartition = "partition"
	// KindPKeys holds the pool of each fabric's keys, under the fabric's name.
	KindPKeys = "pkeys"
	// KindWires holds what each node's ports shall carry and what was proven of them, under the node's id.
	KindWires = "wires"
)

// PKeyRest is how long a key that was read clean everywhere stays unused.
const PKeyRest = 10 * time.Minute

// NewPKeys is the pool of a fabric's keys, none of them used.
func NewPKeys(f Fabric) *TagPool {
	return &TagPool{First: uint16(f.First), Last: uint16(f.Last), Rest: PKeyRest}
}

// TenantPartition is a partition that leases are put into: a key in each of its fabrics. Who is in it is decided by leases.
type TenantPartition struct {
	Name string      `json:"name"`
	Keys []FabricKey `json:"keys"`
	// Lease is the one that it was made for and goes with; "" where a person made it.
	Lease     LeaseID   `json:"lease,omitempty"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
}

// FabricKey is a partition's key in one fabric.
type FabricKey struct {
	Fabric string `json:"fabric"`
	PKey   PKey   `json:"pkey"`
}

// Key is the partition's key in that fabric, 0 where it has none.
func (p TenantPartition) Key(fabric string) PKey {
	i := slices.IndexFunc(p.Keys, func(k FabricKey) bool { return k.Fabric == fabric })
	if i < 0 {
		return 0
	}
	return p.Keys[i].PKey
}

// Validate lists all that is wrong with the partition by itself.
func (p TenantPartition) Validate() []FieldError {
	var f faults
	f.check(ValidName(p.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -")
	f.check(len(p.Keys) > 0, "keys", "names no fabric")
	for i, k := range p.Keys {
		at := "keys[" + strconv.Itoa(i) + "]"
		f.check(ValidName(k.Fabric), at+".fabric", "must be 1 to 63 of a-z, 0-9, . _ -")
		f.check(k.PKey == 0 || k.PKey.Valid(), at+".pkey", "is not between 0x0001 and 0x7ffe; the top bit is a membership's")
		f.check(slices.IndexFunc(p.Keys, func(x FabricKey) bool { return x.Fabric == k.Fabric }) == i, at+".fabric", "stands there twice")
	}
	return f
}

// NodeWires is what a node's fabric ports shall carry, and what was proven of them.
type NodeWires struct {
	Node NodeID `json:"node"`
	// Partition is the one that the ports are members of for Lease, from the moment on that they may be; "" is quarantine.
	Partition string  `json:"partition,omitempty"`
	Lease     LeaseID `json:"lease,omitempty"`
	// Leaving: the ports are being put into quarantine, and that is not proven yet.
	Leaving bool `json:"leaving,omitempty"`
	// Since is when that was decided.
	Since time.Time   `json:"since"`
	Ports []WireProof `json:"ports,omitempty"`
}

// WireProof is what was read back of one port.
type WireProof struct {
	Fabric string `json:"fabric"`
	Port   string `json:"port"`
	Rail   *int   `json:"rail,omitempty"`
	// Peer is where its cable ends.
	Peer    string  `json:"peer,omitempty"`
	Carries Carries `json:"carries"`
	// Absent is that of the view.
	Absent bool `json:"absent,omitempty"`
	// Since is when it was first read as it shall be, and has been at every reading after that; zero where it is not.
	Since time.Time `json:"since,omitzero"`
	// Doubt says why it is not proven.
	Doubt string `json:"doubt,omitempty"`
}

// Proven reports whether every port is as it shall be. Of a node without ports nothing is.
func (w NodeWires) Proven() bool {
	return len(w.Ports) > 0 && !slices.ContainsFunc(w.Ports, func(p WireProof) bool { return p.Since.IsZero() })
}

// Want is what a port of the fabric shall carry while the node is in the partition, quarantine where that is nil.
func Want(p *TenantPartition, fabric string) Carries {
	if p == nil || p.Key(fabric) == 0 {
		return InPartitions()
	}
	return InPartitions(Membership{PKey: p.Key(fabric), Full: true})
}

// FabricPorts are the node's InfiniBand ports by their fabric.
func (n Node) FabricPorts() map[string][]Port {
	out := map[string][]Port{}
	for _, p := range n.Ports {
		if p.Role == PortFabric {
			out[p.Fabric] = append(out[p.Fabric], p)
		}
	}
	return out
}

// PortFabric is the role of a port in an InfiniBand fabric.
const PortFabric = "fabric"

// LeasePartition is the name of the partition that a lease gets where it names none.
func LeasePartition(id LeaseID) string { return fmt.Sprintf("lease-%s", id) }
