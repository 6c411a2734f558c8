package server

import (
	"context"
	"net/http"
	"slices"

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
	var all []api.Switch
	var rev fleet.Revision
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		all, rev = nil, sn.Revision()
		var bad error
		err := eachRecord(sn, fleet.KindSwitch, func(x fleet.Switch, at fleet.Revision) {
			v, err := switchView(sn, x, at)
			if err != nil {
				bad = err
			}
			all = append(all, v)
		})
		if bad != nil {
			return bad
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, x := range all {
		all[i] = s.Wires.SwitchState(ctx, x)
		all[i].Ports = nil // as in the list of fabrics
	}
	out, err := page(all, *in, false, func(x api.Switch) mark { return mark{x.Name, ""} })
	out.Revision = rev
	return &plain[api.List[api.Switch]]{out}, err
}

func (s *Server) getSwitch(ctx context.Context, in *Item) (*tagged[api.Switch], error) {
	var v api.Switch
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		x, rev, err := fleet.Get[fleet.Switch](sn, fleet.KeyOf(fleet.KindSwitch, in.ID))
		if fleet.KindOf(err) == fleet.NotFound {
			return fleet.Errorf(fleet.NotFound, "MC-SWITCH-UNKNOWN", "there is no switch %q", shortened(in.ID)).WithHint("metalctl switch list")
		}
		if err != nil {
			return err
		}
		v, err = switchView(sn, x, rev)
		return err
	})
	if err != nil {
		return nil, err
	}
	return tag(s.Wires.SwitchState(ctx, v), v.Revision), nil
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
	if _, err := s.getSwitch(ctx, in); err != nil {
		return nil, err
	}
	if err := s.Wires.Adopt(ctx, in.ID, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.verifySwitch(ctx, in)
}

func (s *Server) verifySwitch(ctx context.Context, in *Item) (*tagged[api.Switch], error) {
	if _, err := s.getSwitch(ctx, in); err != nil {
		return nil, err
	}
	if err := s.Wires.Verify(ctx, in.ID); err != nil {
		return nil, err
	}
	return s.getSwitch(ctx, in)
}

// networkViews are all networks with the names of their nodes.
func networkViews(sn fleet.Snapshot) ([]api.Network, error) {
	var all []api.Network
	err := eachRecord(sn, fleet.KindNetwork, func(n fleet.Network, rev fleet.Revision) {
		all = append(all, api.Network{Network: n, Revision: rev, Nodes: []string{}})
	})
	if err != nil {
		return nil, err
	}
	wires, err := fleet.List[fleet.NodeWires](sn, fleet.KindWires)
	if err != nil {
		return nil, err
	}
	for _, w := range wires {
		for i, n := range all {
			if w.Network != n.Name && !slices.ContainsFunc(w.Ports, func(p fleet.WireProof) bool { return p.Switch != "" && (p.Where == n.Name || p.Was == n.Name) }) {
				continue
			}
			name, err := nodeName(sn, w.Node)
			if err != nil {
				return nil, err
			}
			all[i].Nodes = append(all[i].Nodes, name)
			slices.Sort(all[i].Nodes)
		}
	}
	return all, nil
}

func (s *Server) networksNow(ctx context.Context) (all []api.Network, rev fleet.Revision, err error) {
	err = s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		rev = sn.Revision()
		all, err = networkViews(sn)
		return err
	})
	return all, rev, err
}

func (s *Server) listNetworks(ctx context.Context, in *Paging) (*plain[api.List[api.Network]], error) {
	all, rev, err := s.networksNow(ctx)
	if err != nil {
		return nil, err
	}
	out, err := page(all, *in, false, func(n api.Network) mark { return mark{n.Name, ""} })
	out.Revision = rev
	return &plain[api.List[api.Network]]{out}, err
}

func (s *Server) getNetwork(ctx context.Context, in *Item) (*tagged[api.Network], error) {
	all, _, err := s.networksNow(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(n api.Network) bool { return n.Name == in.ID })
	if i < 0 {
		return nil, fleet.Errorf(fleet.NotFound, "MC-NET-NETWORK", "there is no network %q", shortened(in.ID)).WithHint("metalctl network list")
	}
	return tag(all[i], all[i].Revision), nil
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
