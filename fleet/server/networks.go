package server

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// networksIn are all networks with the names of their nodes.
func networksIn(sn fleet.Snapshot) ([]api.Network, error) {
	wires, err := fleet.List[fleet.NodeWires](sn, fleet.KindWires)
	if err != nil {
		return nil, err
	}
	leases, err := fleet.List[fleet.Lease](sn, fleet.KindLease)
	if err != nil {
		return nil, err
	}
	return viewsOf(sn, fleet.KindNetwork, func(sn fleet.Snapshot, n fleet.Network, rev fleet.Revision) (api.Network, error) {
		names, err := nodesIn(sn, wires, func(w fleet.NodeWires) bool {
			return w.Network == n.Name || slices.ContainsFunc(w.Ports, func(p fleet.WireProof) bool { return p.Switch != "" && (p.Where == n.Name || p.Was == n.Name) })
		})
		return api.Network{Network: n, Revision: rev, Nodes: names, Given: fleet.Given(leases, n.Name)}, err
	})
}

func (s *Server) listNetworks(ctx context.Context, in *Paging) (*plain[api.List[api.Network]], error) {
	return listed(ctx, s, *in, func(n api.Network) string { return n.Name }, networksIn)
}

func (s *Server) getNetwork(ctx context.Context, in *Item) (*tagged[api.Network], error) {
	n, err := oneOf(ctx, s, networksIn, func(n api.Network) bool { return n.Name == in.ID },
		fleet.Errorf(fleet.NotFound, "MC-NET-NETWORK", "there is no network %q", shortened(in.ID)).WithHint("metalctl network list"))
	return tag(n, n.Revision), err
}

type putNetworkIn struct {
	Item
	Body fleet.Network
}

func (s *Server) putNetwork(ctx context.Context, in *putNetworkIn) (*tagged[api.Network], error) {
	if in.Body.Name != in.ID {
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "name is not the name in the path")
	}
	if err := s.Wires.PutNetwork(ctx, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.getNetwork(ctx, &in.Item)
}

func (s *Server) deleteNetwork(ctx context.Context, in *Item) (*struct{}, error) {
	return nil, s.Wires.RemoveNetwork(ctx, in.ID, callerOf(ctx))
}
