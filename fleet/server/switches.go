package server

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (s *Server) switchRoutes(r *routes) {
	route(r, http.MethodGet, "/switches", "list-switches", "List Ethernet switches", http.StatusOK, s.listSwitches)
	route(r, http.MethodGet, "/switches/{id}", "get-switch", "Read a switch, with what was read of its ports last", http.StatusOK, s.getSwitch)
	route(r, http.MethodPut, "/switches/{id}", "put-switch", "Create or replace a switch", http.StatusOK, s.putSwitch)
	route(r, http.MethodDelete, "/switches/{id}", "delete-switch", "Drop a switch that no node is at; it is not touched", http.StatusNoContent, s.deleteSwitch)
	route(r, http.MethodPost, "/switches/{id}/adopt", "adopt-switch", "Take a switch over where all of its managed ports can be understood; nothing is written", http.StatusOK, s.adoptSwitch)
	route(r, http.MethodPost, "/switches/{id}/verify", "verify-switch", "Read a switch now", http.StatusOK, s.verifySwitch)
	route(r, http.MethodGet, "/networks", "list-networks", "List networks, those of leases included", http.StatusOK, s.listNetworks)
	route(r, http.MethodGet, "/networks/{id}", "get-network", "Read a network, with the nodes that are in it", http.StatusOK, s.getNetwork)
	route(r, http.MethodPut, "/networks/{id}", "put-network", "Create a network, or change its subnets and MTU", http.StatusOK, s.putNetwork)
	route(r, http.MethodDelete, "/networks/{id}", "delete-network", "Drop a network that no node is in; its VLAN rests", http.StatusNoContent, s.deleteNetwork)
}

func switchView(sn fleet.Snapshot, x fleet.Switch, rev fleet.Revision) (api.Switch, error) {
	v := api.Switch{Switch: x, Revision: rev}
	pool, _, err := fleet.Get[fleet.TagPool](sn, fleet.KeyOf(fleet.KindVLANs, x.Segment()))
	if err != nil && fleet.KindOf(err) != fleet.NotFound {
		return v, err
	}
	v.VLANs, v.Resting = len(pool.Used), pool.Resting
	return v, nil
}

func (s *Server) listSwitches(ctx context.Context, in *Paging) (*plain[api.List[api.Switch]], error) {
	out, err := listed(ctx, s, *in, func(x api.Switch) string { return x.Name }, func(sn fleet.Snapshot) ([]api.Switch, error) {
		return viewsOf(sn, fleet.KindSwitch, switchView)
	})
	if err != nil {
		return nil, err
	}
	for i, x := range out.Body.Items {
		out.Body.Items[i].Reading = s.Wires.Reading(ctx, x.Name)
		out.Body.Items[i].Ports = nil // as in the list of fabrics
	}
	return out, nil
}

func (s *Server) getSwitch(ctx context.Context, in *Item) (*tagged[api.Switch], error) {
	v, rev, err := viewOf(ctx, s, fleet.KindSwitch, in.ID, switchView,
		fleet.Errorf(fleet.NotFound, "MC-SWITCH-UNKNOWN", "there is no switch %q", shortened(in.ID)).WithHint("metalctl switch list"))
	if err != nil {
		return nil, err
	}
	v.Reading = s.Wires.Reading(ctx, v.Name)
	return tag(v, rev), nil
}

type putSwitchIn struct {
	Item
	Body fleet.Switch
}

func (s *Server) putSwitch(ctx context.Context, in *putSwitchIn) (*tagged[api.Switch], error) {
	if in.Body.Name != in.ID {
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "name is not the name in the path")
	}
	if err := s.Wires.DeclareSwitch(ctx, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.getSwitch(ctx, &in.Item)
}

func (s *Server) deleteSwitch(ctx context.Context, in *Item) (*struct{}, error) {
	return nil, s.Wires.DropSwitch(ctx, in.ID, callerOf(ctx))
}

func (s *Server) adoptSwitch(ctx context.Context, in *Item) (*tagged[api.Switch], error) {
	return adopted(ctx, s, in, s.getSwitch)
}

func (s *Server) verifySwitch(ctx context.Context, in *Item) (*tagged[api.Switch], error) {
	return verified(ctx, s, in, s.getSwitch)
}
