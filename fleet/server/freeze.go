package server

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) freeze() {
	s := r.s
	route(r, http.MethodGet, "/freeze", "freeze-status", "What is frozen, by whom and why", http.StatusOK, s.freezeStatus)
	route(r, http.MethodPost, "/freeze", "freeze", "Stop every write to BMCs, switches and fabrics for everything, a site, a selection, or nodes", http.StatusCreated, s.freezeCreate)
	route(r, http.MethodPost, "/freeze:thaw", "thaw", "End freezes, or let nodes out of them one by one", http.StatusOK, s.thaw)
}

// nothing is a request that says no more than its path.
type nothing struct{}

func (s *Server) freezeStatus(ctx context.Context, _ *nothing) (*plain[api.FreezeStatus], error) {
	out := api.FreezeStatus{Freezes: []api.FreezeView{}, Frozen: []string{}}
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		freezes, err := fleet.Freezes(sn)
		if err != nil {
			return err
		}
		out = api.FreezeStatus{Freezes: []api.FreezeView{}, Frozen: []string{}}
		for _, f := range freezes {
			out.Freezes = append(out.Freezes, api.FreezeView{Freeze: f})
		}
		return eachRecord(sn, fleet.KindNode, func(n fleet.Node, _ fleet.Revision) {
			out.Nodes++
			if fleet.FrozenBy(n, freezes) != nil {
				out.Frozen = append(out.Frozen, n.Name)
			}
			for i := range out.Freezes {
				if out.Freezes[i].Covers(n) {
					out.Freezes[i].Covered++
				}
			}
		})
	})
	return &plain[api.FreezeStatus]{out}, err
}

// frozenView adds the freeze that covers the node.
func frozenView(v api.Node, freezes []fleet.Freeze) api.Node {
	if f := fleet.FrozenBy(v.Node, freezes); f != nil {
		v.Frozen = &api.Frozen{Freeze: f.ID, Reason: f.Reason, By: f.By, Since: f.Since, Source: f.Source}
	}
	return v
}

type freezeIn struct {
	Body api.FreezeCreate
}

func (s *Server) freezeCreate(ctx context.Context, in *freezeIn) (*plain[api.FreezeView], error) {
	f, err := s.engine.Brakes.Freeze(ctx, in.Body, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	st, err := s.freezeStatus(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, v := range st.Body.Freezes {
		if v.ID == f.ID {
			return &plain[api.FreezeView]{v}, nil
		}
	}
	return &plain[api.FreezeView]{api.FreezeView{Freeze: f}}, nil // thawed again already
}

type thawIn struct {
	Body api.Thaw
}

func (s *Server) thaw(ctx context.Context, in *thawIn) (*plain[api.FreezeStatus], error) {
	if err := s.engine.Brakes.Thaw(ctx, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.freezeStatus(ctx, nil)
}

// unfrozen refuses what would write to a frozen node.
func (s *Server) unfrozen(ctx context.Context, id fleet.NodeID, what string) error {
	return s.Store.View(ctx, func(sn fleet.Snapshot) error {
		n, f, err := fleet.Frozen(sn, id)
		if err != nil || f == nil {
			return err
		}
		return f.Refuse(n, what)
	})
}
