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

// LeasePartition is the name of the partition and of the network that a lease gets where it names none.
func LeasePartition(id LeaseID) string { return fmt.Sprintf("lease-%s", id) }
