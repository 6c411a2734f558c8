package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Kinds of records about networks.
const (
	KindNetwork = "network"
	// KindVLANs holds the pool of each domain's VLANs, under the domain's name.
	KindVLANs = "vlans"
)

// VLANRest is how long a VLAN that was read clean everywhere stays unused.
const VLANRest = 10 * time.Minute

// NewVLANs is the pool of a switch's domain, none of it used.
func NewVLANs(s Switch) *TagPool {
	return &TagPool{First: uint16(s.First), Last: uint16(s.Last), Rest: VLANRest}
}

// Roles of networks. Quarantine is none: it is the switch's own.
const (
	// RoleProvisioning is where agents are spoken to: for inspecting, cleaning and deploying.
	RoleProvisioning = "provisioning"
	RoleTenant       = "tenant"
)

// NetworkRoles are all that there are.
var NetworkRoles = []string{RoleProvisioning, RoleTenant}

// Network is a VLAN in a domain of switches.
type Network struct {
	Name string `json:"name"`
	Role string `json:"role" enum:"provisioning,tenant"`
	// Domain is that of its switches, or the name of one that is a domain by itself.
	Domain string `json:"domain"`
	// VLAN is its tag; 0 in a wish is one of the domain's pool.
	VLAN VLAN `json:"vlan,omitempty"`
	// MTU is that of its ports in bytes; 0 is what they have.
	MTU     int      `json:"mtu,omitempty"`
	Subnets []Subnet `json:"subnets,omitempty"`
	// Protected keeps ports of one switch from each other: they reach the uplinks alone.
	Protected bool `json:"protected,omitempty"`
	// Lease is the one that it was made for and goes with; "" where a person made it.
	Lease     LeaseID   `json:"lease,omitempty"`
	CreatedBy string    `json:"created_by,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
}

// Carries is what a port in the network carries.
func (n Network) Carries() Carries { return Carries{Untagged: n.VLAN, Protected: n.Protected} }

// Validate lists all that is wrong with the network by itself.
func (n Network) Validate() []FieldError {
	var f faults
	f.check(ValidName(n.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -")
	f.check(slices.Contains(NetworkRoles, n.Role), "role", "is none of "+strings.Join(NetworkRoles, ", "))
	f.check(ValidName(n.Domain), "domain", "must be 1 to 63 of a-z, 0-9, . _ -: that of its switches")
	f.check(n.VLAN == 0 || n.VLAN.Valid(), "vlan", "is not between 2 and 4094; VLAN 1 is what switches fall back to")
	f.check(n.MTU == 0 || n.MTU >= 1280 && n.MTU <= 9216, "mtu", "is not between 1280 and 9216 bytes")
	var all []netip.Prefix
	for i, s := range n.Subnets {
		p := s.validate(fmt.Sprintf("subnets[%d]", i), &f)
		for _, q := range all {
			f.check(!p.IsValid() || !p.Overlaps(q), fmt.Sprintf("subnets[%d].cidr", i), "overlaps "+q.String())
		}
		if p.IsValid() {
			all = append(all, p)
		}
	}
	return f
}
