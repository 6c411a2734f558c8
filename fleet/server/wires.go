package server

import (
	"context"
	"net/http"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Fabrics declares InfiniBand fabrics.
type Fabrics interface {
	Declare(ctx context.Context, f fleet.Fabric, by string) error
	Drop(ctx context.Context, name, by string) error
}

// Switches declares Ethernet switches.
type Switches interface {
	DeclareSwitch(ctx context.Context, x fleet.Switch, by string) error
	DropSwitch(ctx context.Context, name, by string) error
}

// TenantNetworks makes and drops networks.
type TenantNetworks interface {
	PutNetwork(ctx context.Context, n fleet.Network, by string) error
	RemoveNetwork(ctx context.Context, name, by string) error
}

// FabricKeeper takes fabrics and switches over and reads them.
type FabricKeeper interface {
	Adopt(ctx context.Context, name, by string) error
	Verify(ctx context.Context, name string) error
	// Reading is what was read last.
	Reading(ctx context.Context, name string) api.Reading
}

// Partitions makes and drops tenants' partitions.
type Partitions interface {
	Create(ctx context.Context, p fleet.TenantPartition, by string) error
	Remove(ctx context.Context, name, by string) error
}

// Networks says what all wires would have to become, and what they are.
type Networks interface {
	Plan(ctx context.Context) (api.NetworkPlan, error)
	Apply(ctx context.Context, digest, by string) error
	Verdict(ctx context.Context) (api.NetworkVerdict, error)
}

// Wires is all that has to do with switches and fabrics.
type Wires interface {
	Fabrics
	Switches
	FabricKeeper
	Partitions
	TenantNetworks
	Networks
}

func (r *routes) networks() {
	s := r.s
	route(r, http.MethodGet, "/fabrics", "list-fabrics", "List InfiniBand fabrics", http.StatusOK, s.listFabrics)
	route(r, http.MethodGet, "/fabrics/{id}", "get-fabric", "Read a fabric, with what was read of its ports last", http.StatusOK, s.getFabric)
	route(r, http.MethodPut, "/fabrics/{id}", "put-fabric", "Create or replace a fabric", http.StatusOK, s.putFabric)
	route(r, http.MethodDelete, "/fabrics/{id}", "delete-fabric", "Drop a fabric that nothing uses; its devices are not touched", http.StatusNoContent, s.deleteFabric)
	route(r, http.MethodPost, "/fabrics/{id}/adopt", "adopt-fabric", "Take a fabric's partition file over; what managed ports carry they keep", http.StatusOK, s.adoptFabric)
	route(r, http.MethodPost, "/fabrics/{id}/verify", "verify-fabric", "Read a fabric now", http.StatusOK, s.verifyFabric)
	route(r, http.MethodGet, "/partitions", "list-partitions", "List tenants' InfiniBand partitions", http.StatusOK, s.listPartitions)
	route(r, http.MethodPost, "/partitions", "create-partition", "Make a partition that leases can name", http.StatusCreated, s.createPartition)
	route(r, http.MethodGet, "/partitions/{id}", "get-partition", "Read a partition, with the nodes that are in it", http.StatusOK, s.getPartition)
	route(r, http.MethodDelete, "/partitions/{id}", "delete-partition", "Drop a partition that no node is in; its keys rest", http.StatusNoContent, s.deletePartition)
	s.switchRoutes(r)
	route(r, http.MethodGet, "/network/plan", "plan-network", "Read every fabric and switch and say what would be written so that each port carries what it shall", http.StatusOK, s.planNetwork)
	route(r, http.MethodPost, "/network/apply", "apply-network", "Do the plan with that digest, or nothing", http.StatusOK, s.applyNetwork)
	route(r, http.MethodPost, "/network/verify", "verify-network", "Read every fabric and switch and say who is where, and who reaches whom and must not", http.StatusOK, s.verifyNetwork)
}

// nodesIn are the names of the nodes of which a look at their wires says that they are in, in order.
func nodesIn(sn fleet.Snapshot, wires []fleet.NodeWires, in func(fleet.NodeWires) bool) ([]string, error) {
	names := []string{}
	for _, w := range wires {
		if !in(w) {
			continue
		}
		name, err := nodeName(sn, w.Node)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// nodeName is the node's name, or its id where it was forgotten.
func nodeName(sn fleet.Snapshot, id fleet.NodeID) (string, error) {
	n, _, err := fleet.Get[fleet.Node](sn, fleet.KeyOf(fleet.KindNode, id))
	if fleet.KindOf(err) == fleet.NotFound {
		return string(id), nil
	}
	return n.Name, err
}

// verified has a device read now.
func verified[V any](ctx context.Context, s *Server, in *Item, get func(context.Context, *Item) (*tagged[V], error)) (*tagged[V], error) {
	if _, err := get(ctx, in); err != nil {
		return nil, err
	}
	if err := s.Wires.Verify(ctx, in.ID); err != nil {
		return nil, err
	}
	return get(ctx, in)
}

// adopted takes a device over and has it read.
func adopted[V any](ctx context.Context, s *Server, in *Item, get func(context.Context, *Item) (*tagged[V], error)) (*tagged[V], error) {
	if _, err := get(ctx, in); err != nil {
		return nil, err
	}
	if err := s.Wires.Adopt(ctx, in.ID, callerOf(ctx)); err != nil {
		return nil, err
	}
	return verified(ctx, s, in, get)
}

func (s *Server) planNetwork(ctx context.Context, _ *nothing) (*plain[api.NetworkPlan], error) {
	p, err := s.Wires.Plan(ctx)
	return &plain[api.NetworkPlan]{p}, err
}

type applyNetworkIn struct {
	Body api.NetworkApply
}

func (s *Server) applyNetwork(ctx context.Context, in *applyNetworkIn) (*plain[api.NetworkVerdict], error) {
	if err := s.Wires.Apply(ctx, in.Body.Digest, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.verifyNetwork(ctx, nil)
}

func (s *Server) verifyNetwork(ctx context.Context, _ *nothing) (*plain[api.NetworkVerdict], error) {
	v, err := s.Wires.Verdict(ctx)
	return &plain[api.NetworkVerdict]{v}, err
}

// nodeWires is what the node's ports carry, nil where it was never noted.
func nodeWires(sn fleet.Snapshot, id fleet.NodeID) (*fleet.NodeWires, error) {
	w, _, err := fleet.Get[fleet.NodeWires](sn, fleet.KeyOf(fleet.KindWires, id))
	if err != nil {
		if fleet.KindOf(err) == fleet.NotFound {
			err = nil
		}
		return nil, err
	}
	return &w, nil
}

// leaseWires is what the ports of the lease's nodes carry, of those that are its own or leaving it.
func leaseWires(sn fleet.Snapshot, l fleet.Lease) ([]fleet.NodeWires, error) {
	var out []fleet.NodeWires
	for _, m := range l.Members {
		w, err := nodeWires(sn, m.Node)
		if err != nil {
			return nil, err
		}
		if w != nil && w.Lease == l.ID {
			out = append(out, *w)
		}
	}
	return out, nil
}

// unwired is a server without fabrics and switches.
type unwired struct{}

func noWires() error {
	return fleet.Errorf(fleet.Refused, "MC-NET-NO-DRIVER", "this server has no driver for switches or fabrics").WithHint("add it to the server's configuration, under fabrics or switches")
}

func (unwired) Declare(context.Context, fleet.Fabric, string) error { return noWires() }

func (unwired) Drop(context.Context, string, string) error { return noWires() }

func (unwired) Adopt(context.Context, string, string) error { return noWires() }

func (unwired) Verify(context.Context, string) error { return noWires() }

func (unwired) Create(context.Context, fleet.TenantPartition, string) error { return noWires() }

func (unwired) Remove(context.Context, string, string) error { return noWires() }

func (unwired) Apply(context.Context, string, string) error { return noWires() }

func (unwired) Plan(context.Context) (api.NetworkPlan, error) { return api.NetworkPlan{}, noWires() }

func (unwired) Verdict(context.Context) (api.NetworkVerdict, error) {
	return api.NetworkVerdict{}, noWires()
}

func (unwired) DeclareSwitch(context.Context, fleet.Switch, string) error { return noWires() }

func (unwired) DropSwitch(context.Context, string, string) error { return noWires() }

func (unwired) PutNetwork(context.Context, fleet.Network, string) error { return noWires() }

func (unwired) RemoveNetwork(context.Context, string, string) error { return noWires() }

func (unwired) Reading(context.Context, string) api.Reading {
	return api.Reading{State: api.FabricUnbound, Why: noWires().Error()}
}
