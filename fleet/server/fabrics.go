package server

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func fabricView(sn fleet.Snapshot, f fleet.Fabric, rev fleet.Revision) (api.Fabric, error) {
	v := api.Fabric{Fabric: f, Revision: rev}
	pool, _, err := fleet.Get[fleet.TagPool](sn, fleet.KeyOf(fleet.KindPKeys, f.Name))
	if err != nil && fleet.KindOf(err) != fleet.NotFound {
		return v, err
	}
	v.Keys, v.Resting = len(pool.Used), pool.Resting
	return v, nil
}

func (s *Server) listFabrics(ctx context.Context, in *Paging) (*plain[api.List[api.Fabric]], error) {
	out, err := listed(ctx, s, *in, func(f api.Fabric) string { return f.Name }, func(sn fleet.Snapshot) ([]api.Fabric, error) {
		return viewsOf(sn, fleet.KindFabric, fabricView)
	})
	if err != nil {
		return nil, err
	}
	for i, f := range out.Body.Items {
		out.Body.Items[i].Reading = s.Wires.Reading(ctx, f.Name)
		out.Body.Items[i].Ports = nil // there may be thousands
	}
	return out, nil
}

func (s *Server) getFabric(ctx context.Context, in *Item) (*tagged[api.Fabric], error) {
	v, rev, err := viewOf(ctx, s, fleet.KindFabric, in.ID, fabricView,
		fleet.Errorf(fleet.NotFound, "MC-FABRIC-UNKNOWN", "there is no fabric %q", shortened(in.ID)).WithHint("metalctl fabric list"))
	if err != nil {
		return nil, err
	}
	v.Reading = s.Wires.Reading(ctx, v.Name)
	return tag(v, rev), nil
}

type putFabricIn struct {
	Item
	Body fleet.Fabric
}

func (s *Server) putFabric(ctx context.Context, in *putFabricIn) (*tagged[api.Fabric], error) {
	if in.Body.Name != in.ID {
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "name is not the name in the path")
	}
	if err := s.Wires.Declare(ctx, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.getFabric(ctx, &in.Item)
}

func (s *Server) deleteFabric(ctx context.Context, in *Item) (*struct{}, error) {
	return nil, s.Wires.Drop(ctx, in.ID, callerOf(ctx))
}

func (s *Server) adoptFabric(ctx context.Context, in *Item) (*tagged[api.Fabric], error) {
	return adopted(ctx, s, in, s.getFabric)
}

func (s *Server) verifyFabric(ctx context.Context, in *Item) (*tagged[api.Fabric], error) {
	return verified(ctx, s, in, s.getFabric)
}
