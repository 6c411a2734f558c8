package server

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) power() {
	s := r.s
	route(r, http.MethodGet, "/power", "power-status", "What is drawn of each power budget, who waits, and which load is stopped", http.StatusOK, s.powerStatus)
	route(r, http.MethodPost, "/power:abort", "power-abort", "End the load of burn-ins and let none begin, for everything or a selection; agents end it within 5 s", http.StatusCreated, s.stopLoad)
	route(r, http.MethodPost, "/power:resume", "power-resume", "End stops of load; what waited goes on by itself", http.StatusOK, s.resumeLoad)
}

func (s *Server) powerStatus(ctx context.Context, _ *nothing) (*plain[api.PowerStatus], error) {
	var out api.PowerStatus
	err := s.Store.View(ctx, func(sn fleet.Snapshot) (err error) {
		out, err = s.engine.Loads.PowerStatus(sn)
		return err
	})
	return &plain[api.PowerStatus]{out}, err
}

type stopLoadIn struct {
	Body api.LoadStopCreate
}

func (s *Server) stopLoad(ctx context.Context, in *stopLoadIn) (*plain[fleet.LoadStop], error) {
	x, err := s.engine.Loads.StopLoad(ctx, in.Body, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	return &plain[fleet.LoadStop]{x}, nil
}

type resumeLoadIn struct {
	Body api.LoadResume
}

func (s *Server) resumeLoad(ctx context.Context, in *resumeLoadIn) (*plain[api.PowerStatus], error) {
	if err := s.engine.Loads.ResumeLoad(ctx, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.powerStatus(ctx, nil)
}
