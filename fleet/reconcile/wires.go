package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Wires puts nodes' ports where they belong, and reads them back.
type Wires interface {
	Doors
	// Attach gives them to the lease, or leaves them in quarantine and says why.
	Attach(ctx context.Context, node fleet.NodeID, lease fleet.LeaseID) (fleet.NodeWires, error)
	// Quarantine takes them out of everything, however much of it is known by then.
	Quarantine(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error)
	// Trusted is an error while nothing is to be handed out at one of the devices. It asks nobody.
	Trusted(devices []string) error
}

// Doors lets a node's ports for provisioning into the provisioning network and out of it.
type Doors interface {
	Open(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error)
	Close(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error)
}

// wired looks at the node and says whether a driver is there for its ports. Where none is, the site must have said that nothing is to be moved: what
// is then told says no more than that.
func (l *Loop) wired(ctx context.Context, c step.Call, what string) (v *view, none step.Outcome, err error) {
	v, err = l.look(ctx, c.Node)
	if err != nil {
		return nil, none, err
	}
	if l.Wires != nil && len(v.node.v.Wires()) > 0 {
		return v, none, nil
	}
	none, err = l.unmoved(v, what)
	return nil, none, err
}

func (l *Loop) unmoved(v *view, what string) (step.Outcome, error) {
	if !v.site.IsolationWaived() {
		return step.Outcome{}, fleet.Errorf(fleet.Refused, "MC-NET-NO-DRIVER", "the site requires isolation, and no network driver is bound that could %s", what).
			WithHint("bind a network driver, or say in the fleet file: kind: Site, isolation: none")
	}
	return step.Outcome{Evidence: map[string]any{"isolation": "none", "isolated": false,
		"note": "the site says isolation: none; no port was touched and nothing separates this node from others"}}, nil
}

func (l *Loop) attachTenant(ctx context.Context, c step.Call) (step.Outcome, error) {
	const what = "attach the node's ports to the tenant's networks"
	v, none, err := l.wired(ctx, c, what)
	if v == nil {
		return none, err
	}
	if err := ethernetWaived(v, what); err != nil {
		return step.Outcome{}, err
	}
	if v.lease.v == nil {
		return step.Outcome{}, fleet.Errorf(fleet.Conflict, "MC-PLAN-LEASE", "%s belongs to no lease that its ports could be given to", v.node.v.Name)
	}
	w, err := l.Wires.Attach(ctx, c.Node, v.lease.v.ID)
	return l.moved(v, w, err, what)
}

func (l *Loop) isolate(ctx context.Context, c step.Call) (step.Outcome, error) {
	const what = "put the node's ports into quarantine"
	v, none, err := l.wired(ctx, c, what)
	if v == nil {
		return none, err
	}
	w, err := l.Wires.Quarantine(ctx, c.Node)
	out, err := l.moved(v, w, err, what)
	if err == nil {
		err = ethernetWaived(v, what) // what has a driver is in quarantine all the same
	}
	if err != nil {
		return step.Outcome{}, err
	}
	return out, nil
}

func (l *Loop) openProvisioning(ctx context.Context, c step.Call) (step.Outcome, error) {
	return l.turn(ctx, c, "put the node's ports into the provisioning network", Doors.Open)
}

func (l *Loop) closeProvisioning(ctx context.Context, c step.Call) (step.Outcome, error) {
	return l.turn(ctx, c, "take the node's ports out of the provisioning network", Doors.Close)
}

func (l *Loop) turn(ctx context.Context, c step.Call, what string, do func(Doors, context.Context, fleet.NodeID) (fleet.NodeWires, error)) (step.Outcome, error) {
	v, none, err := l.wired(ctx, c, what)
	if v == nil {
		return none, err
	}
	w, err := do(l.Wires, ctx, c.Node)
	return l.moved(v, w, err, what)
}

// ethernetWaived refuses where the site wants all wires proven, and an Ethernet port of the node is one that no driver moves.
func ethernetWaived(v *view, what string) error {
	why := v.node.v.Unwired()
	if v.site.EthernetWaived() || why == "" {
		return nil
	}
	return fleet.Errorf(fleet.Refused, "MC-NET-NO-DRIVER", "the site requires isolation, and no network driver is bound that could %s: %s", what, why).
		WithHint("name switch and port of each Ethernet port of the node; where somebody else keeps Ethernet ports apart, say in the fleet file: kind: Site, isolation: infiniband")
}

// moved is what a step has to show that moved the node's ports.
func (l *Loop) moved(v *view, w fleet.NodeWires, err error, what string) (step.Outcome, error) {
	if code := fleet.CodeOf(err); v.site.IsolationWaived() && (code == "MC-NET-NO-DRIVER" || code == "MC-FABRIC-UNKNOWN" || code == "MC-SWITCH-UNKNOWN") {
		return l.unmoved(v, what)
	}
	var known *fleet.Error
	if errors.As(err, &known) && (known.Kind == fleet.Conflict || known.Kind == fleet.Refused) {
		// Others changed the device meanwhile, or something there is being put right: another try may find it well.
		err = &fleet.Error{Kind: fleet.Unavailable, Code: known.Code, Msg: fmt.Sprintf("%s: %v", what, err), Hint: known.Hint, Fields: known.Fields}
	}
	if err != nil {
		return step.Outcome{}, err
	}
	ports := make([]map[string]string, 0, len(w.Ports))
	for _, p := range w.Ports {
		ports = append(ports, map[string]string{"port": p.Port, "device": p.Device(), "where": cmp.Or(p.Where, "quarantine"), "carries": p.Carries.String()})
	}
	evidence := map[string]any{"isolation": "proven", "isolated": w.Isolated(), "partition": w.Partition, "network": w.Network, "ports": ports}
	if why := v.node.v.Unwired(); why != "" {
		evidence["ethernet"] = why + "; the site leaves that to others"
	}
	return step.Outcome{Attachment: w, Evidence: evidence}, nil
}

// tookWires keeps the proof of where the ports were put with the lease.
func (v *view) tookWires(evidence []byte) error {
	var seen struct {
		Blob string `json:"blob"`
	}
	if err := json.Unmarshal(evidence, &seen); err != nil {
		return fmt.Errorf("evidence of %s: %w", step.AttachTenant, err)
	}
	if m := v.member(); m != nil && seen.Blob != "" {
		m.Wires = seen.Blob
	}
	return nil
}

// wiresFit says why the node's ports cannot be given to a lease with that partition and network now, nil where they can. A node without fabric ports fits a lease
// that names no partition, one without Ethernet ports for tenants a lease that names no network.
func (l *Loop) wiresFit(s fleet.Snapshot, v *view, r fleet.LeaseRequest) error {
	if err := l.partitionFits(s, v, r.Partition); err != nil {
		return err
	}
	if err := l.networkFits(s, v, r.Network); err != nil {
		return err
	}
	devices := slices.Sorted(maps.Keys(v.node.v.FabricPorts()))
	for _, x := range v.node.v.Wires() {
		known, err := maybe[fleet.Switch](s, fleet.KeyOf(fleet.KindSwitch, x.Device))
		if err != nil {
			return err
		}
		if !x.Fabric && (known.v != nil || !v.site.EthernetWaived()) && !slices.Contains(devices, x.Device) {
			devices = append(devices, x.Device)
		}
	}
	if l.Wires == nil || len(devices) == 0 || v.site.IsolationWaived() {
		return nil
	}
	return l.Wires.Trusted(devices)
}

func (l *Loop) networkFits(s fleet.Snapshot, v *view, network string) error {
	n := v.node.v
	if network == "" {
		return nil
	}
	if l.Wires == nil || !slices.ContainsFunc(n.Wires(), func(x fleet.Wire) bool { return x.Tenant }) {
		return fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "%s has no Ethernet ports that could be put into the network %s", n.Name, network).WithHint("metalctl node show %s", n.Name)
	}
	x, err := maybe[fleet.Network](s, fleet.KeyOf(fleet.KindNetwork, network))
	switch {
	case err != nil:
		return err
	case x.v == nil:
		return fleet.Errorf(fleet.NotFound, "MC-NET-NETWORK", "there is no network %q", network).WithHint("metalctl network list")
	case x.v.Role != fleet.RoleTenant:
		return fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "the network %s is for %s, and not for tenants", network, x.v.Role).WithHint("metalctl network list")
	case x.v.Lease != "":
		return fleet.Errorf(fleet.Conflict, "MC-NET-NETWORK", "the network %s is that of lease %s alone", network, x.v.Lease).WithHint("metalctl network create NAME --domain %s", x.v.Domain)
	}
	return nil
}

func (l *Loop) partitionFits(s fleet.Snapshot, v *view, partition string) error {
	n := v.node.v
	fabrics := slices.Sorted(maps.Keys(n.FabricPorts()))
	if partition == "" {
		return nil
	}
	if len(fabrics) == 0 || l.Wires == nil {
		return fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "%s has no fabric ports that could be put into the partition %s", n.Name, partition).WithHint("metalctl node show %s", n.Name)
	}
	p, err := maybe[fleet.TenantPartition](s, fleet.KeyOf(fleet.KindPartition, partition))
	if err != nil {
		return err
	}
	if p.v == nil {
		return fleet.Errorf(fleet.NotFound, "MC-NET-PARTITION", "there is no partition %q", partition).WithHint("metalctl partition list")
	}
	if p.v.Lease != "" {
		return fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "the partition %s is that of lease %s alone", partition, p.v.Lease).WithHint("metalctl partition create NAME --fabric FABRIC")
	}
	for _, f := range fabrics {
		if p.v.Key(f) == 0 {
			return fleet.Errorf(fleet.Conflict, "MC-NET-PARTITION", "the partition %s has no key in the fabric %s, where %s has ports", partition, f, n.Name).
				WithHint("metalctl partition show %s", partition)
		}
	}
	return nil
}
