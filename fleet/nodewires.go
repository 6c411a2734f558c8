package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// NodeWires is what a node's ports shall carry, and what was proven of them.
type NodeWires struct {
	Node NodeID `json:"node"`
	// Lease is the tenant whose wires these are, from the moment on that they may be; "" is quarantine. Partition is the one that the fabric ports are in for it,
	// Network that of the tenant's Ethernet ports; "" where the node has no such ports.
	Lease     LeaseID `json:"lease,omitempty"`
	Partition string  `json:"partition,omitempty"`
	Network   string  `json:"network,omitempty"`
	// Leaving: the ports are being put into quarantine, and that is not proven yet.
	Leaving bool `json:"leaving,omitempty"`
	// Open: ports for provisioning are in the provisioning network, where the agent is spoken to.
	Open bool `json:"open,omitempty"`
	// Since is when that was decided.
	Since time.Time   `json:"since"`
	Ports []WireProof `json:"ports,omitempty"`
}

// WireProof is what was read back of one port.
type WireProof struct {
	// Fabric or Switch is the device that has the port; both are "" for a port that nobody can read.
	Fabric string `json:"fabric,omitempty"`
	Switch string `json:"switch,omitempty"`
	Port   string `json:"port"`
	Rail   *int   `json:"rail,omitempty"`
	// Peer is where its cable ends.
	Peer    string  `json:"peer,omitempty"`
	Carries Carries `json:"carries"`
	// Where is the network or partition that the port shall be in; "" is quarantine.
	Where string `json:"where,omitempty"`
	// Was is the network that it was in before, until it is proven that it is not any more.
	Was string `json:"was,omitempty"`
	// Absent is that of the view.
	Absent bool `json:"absent,omitempty"`
	// Since is when it was first read as it shall be, and has been at every reading after that; zero where it is not.
	Since time.Time `json:"since,omitzero"`
	// Packets is what they showed since it is where it shall be; nil where its configuration was read back and no more.
	Packets *WirePackets `json:"packets,omitempty"`
	// Doubt says why it is not proven.
	Doubt string `json:"doubt,omitempty"`
}

// Device is the fabric or switch that has the port.
func (p WireProof) Device() string { return cmp.Or(p.Fabric, p.Switch) }

// Proven reports whether every port is as it shall be. Of a node without ports nothing is.
func (w NodeWires) Proven() bool {
	return len(w.Ports) > 0 && !slices.ContainsFunc(w.Ports, func(p WireProof) bool { return p.Since.IsZero() })
}

// Isolated reports whether it is proven that no tenant is on the node's wires: its ports are in quarantine, or, while its agent is spoken to, in the provisioning
// network.
func (w NodeWires) Isolated() bool { return w.Proven() && w.Lease == "" }

// Wire is where one of a node's cables ends: a port of a fabric or of a switch.
type Wire struct {
	Device string
	// Port is its GUID, or what the switch calls it: for a LAG, the LAG's name there.
	Port string
	// Fabric is true of an InfiniBand port; Provisioning and Tenant say what an Ethernet port is for: both where one wire is shared.
	Fabric, Provisioning, Tenant bool
	Rail                         *int
}

// Wires are the ports of the node that can be moved, fabrics first, in order. An Ethernet port that names no switch and port is none.
func (n Node) Wires() []Wire {
	var out []Wire
	for _, p := range n.Ports {
		w, named := p.wire()
		if !named {
			continue
		}
		i := slices.IndexFunc(out, func(x Wire) bool { return x.Device == w.Device && x.Port == w.Port && x.Fabric == w.Fabric })
		if i >= 0 {
			out[i].Provisioning, out[i].Tenant = out[i].Provisioning || w.Provisioning, out[i].Tenant || w.Tenant
			continue
		}
		out = append(out, w)
	}
	slices.SortStableFunc(out, func(a, b Wire) int {
		if a.Fabric != b.Fabric {
			if a.Fabric {
				return -1
			}
			return 1
		}
		return cmp.Or(strings.Compare(a.Device, b.Device), strings.Compare(a.Port, b.Port))
	})
	return out
}

// wire is where the port's cable ends; false where nobody named that.
func (p Port) wire() (Wire, bool) {
	w := Wire{Device: p.Switch, Port: p.Port, Provisioning: p.Role == PortProvisioning, Tenant: p.Role == PortTenant}
	if p.Role == PortFabric {
		w = Wire{Device: p.Fabric, Port: string(p.GUID), Fabric: true, Rail: p.Rail}
	}
	return w, w.Device != "" && w.Port != ""
}

// Devices are the fabrics and switches that the node's ports are at, in order.
func (n Node) Devices() []string {
	var out []string
	for _, w := range n.Wires() {
		out = append(out, w.Device)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Opens reports whether a port for provisioning can be moved.
func (n Node) Opens() bool {
	return slices.ContainsFunc(n.Wires(), func(w Wire) bool { return w.Provisioning })
}

// Unwired says of the first of the node's Ethernet ports that cannot be moved why not, "" where all can. A node that names no Ethernet port at all has some.
func (n Node) Unwired() string {
	ethernet := false
	for _, p := range n.Ports {
		if p.Role == PortFabric {
			continue
		}
		ethernet = true
		if p.Switch == "" || p.Port == "" {
			return "port " + string(p.MAC) + " names no switch and port"
		}
	}
	if !ethernet {
		return "the node names none of its Ethernet ports"
	}
	return ""
}

// Roles of ports.
const (
	PortProvisioning = "provisioning"
	PortTenant       = "tenant"
	// PortFabric is the role of a port in an InfiniBand fabric.
	PortFabric = "fabric"
)

// WireRules is what decides where a node's ports belong, beside its own record.
type WireRules struct {
	// Partition and Network are the tenant's; nil where there are none, and while the node leaves them.
	Partition *TenantPartition
	Network   *Network
	// Provisioning are the networks for that by their domain, Switches all that are declared by name.
	Provisioning map[string]Network
	Switches     map[string]Switch
}

// Shall is what a port of the node carries, and the name of the network or partition that this is; "" is quarantine.
//
// In quarantine all ports are. While the agent is spoken to, provisioning ports are in the provisioning network and all others in quarantine. From the moment on that
// the tenant gets its wires, tenant ports and fabric ports are its own; a wire that is shared stays in the provisioning network until that is closed, and is the
// tenant's then.
func (w NodeWires) Shall(x Wire, r WireRules) (Carries, string, error) {
	tenant := w.Lease != "" && !w.Leaving
	if x.Fabric {
		if tenant && r.Partition != nil && r.Partition.Key(x.Device) != 0 {
			return Want(r.Partition, x.Device), r.Partition.Name, nil
		}
		return Want(nil, x.Device), "", nil
	}
	s, ok := r.Switches[x.Device]
	if !ok {
		return Carries{}, "", Errorf(NotFound, "MC-SWITCH-UNKNOWN", "there is no switch %q", x.Device).WithHint("metalctl switch list")
	}
	switch {
	case w.Open && x.Provisioning && !w.Leaving:
		n, ok := r.Provisioning[s.Segment()]
		if !ok {
			return Carries{}, "", Errorf(Conflict, "MC-NET-NETWORK", "there is no provisioning network in the domain %s, where port %s of %s would have to reach the agent's server", s.Segment(), x.Port, s.Name).
				WithHint("metalctl network create NAME --role provisioning --domain %s", s.Segment())
		}
		return n.Carries(), n.Name, nil
	case tenant && x.Tenant && r.Network != nil && r.Network.Domain == s.Segment():
		return r.Network.Carries(), r.Network.Name, nil
	}
	return s.InQuarantine(), "", nil
}

// Want is what a port of the fabric shall carry while the node is in the partition, quarantine where that is nil.
func Want(p *TenantPartition, fabric string) Carries {
	if p == nil || p.Key(fabric) == 0 {
		return InPartitions()
	}
	return InPartitions(Membership{PKey: p.Key(fabric), Full: true})
}
