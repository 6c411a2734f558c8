package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// Wires puts nodes' fabric ports where they belong, and reads them back.
type Wires interface {
	// Attach gives them to the lease, or leaves them in quarantine and says why.
	Attach(ctx context.Context, node fleet.NodeID, lease fleet.LeaseID) (fleet.NodeWires, error)
	// Quarantine takes them out of everything, however much of it is known by then.
	Quarantine(ctx context.Context, node fleet.NodeID) (fleet.NodeWires, error)
	// Trusted is an error while nothing is to be handed out in one of the fabrics. It asks nobody.
	Trusted(fabrics []string) error
}

// wired looks at the node and says whether a driver is there for its fabric ports. Where none is, the site must have said that nothing is to be moved: what
// is then told says no more than that.
func (l *Loop) wired(ctx context.Context, c step.Call, what string) (v *view, none step.Outcome, err error) {
	v, err = l.look(ctx, c.Node)
	if err != nil {
		return nil, none, err
	}
	if l.Wires != nil && len(v.node.v.FabricPorts()) > 0 {
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
		err = ethernetWaived(v, what) // the fabric's ports are in quarantine all the same
	}
	if err != nil {
		return step.Outcome{}, err
	}
	return out, nil
}

// ethernetWaived refuses where the site wants all wires proven: no driver moves Ethernet ports, and every node has some.
func ethernetWaived(v *view, what string) error {
	if v.site.EthernetWaived() {
		return nil
	}
	return fleet.Errorf(fleet.Refused, "MC-NET-NO-DRIVER", "the site requires isolation, and no network driver is bound that could %s: there is one for its fabric ports, and none for Ethernet", what).
		WithHint("where somebody else keeps Ethernet ports apart, say in the fleet file: kind: Site, isolation: infiniband")
}

// moved is what a step has to show that moved the node's fabric ports.
func (l *Loop) moved(v *view, w fleet.NodeWires, err error, what string) (step.Outcome, error) {
	if code := fleet.CodeOf(err); v.site.IsolationWaived() && (code == "MC-NET-NO-DRIVER" || code == "MC-FABRIC-UNKNOWN") {
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
		ports = append(ports, map[string]string{"port": p.Port, "fabric": p.Fabric, "carries": p.Carries.String()})
	}
	return step.Outcome{Attachment: w, Evidence: map[string]any{"isolation": "proven", "isolated": w.Proven() && w.Partition == "", "partition": w.Partition, "ports": ports,
		"ethernet": "no driver moves Ethernet ports"}}, nil
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

// wiresFit says why the node's fabric ports cannot be given to a lease in that partition now, nil where they can. A node without such ports fits a lease that
// names no partition.
func (l *Loop) wiresFit(s fleet.Snapshot, v *view, partition string) error {
	n := v.node.v
	fabrics := slices.Sorted(maps.Keys(n.FabricPorts()))
	if partition != "" {
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
	}
	if l.Wires == nil || len(fabrics) == 0 || v.site.IsolationWaived() {
		return nil
	}
	return l.Wires.Trusted(fabrics)
}
