package server

import (
	"context"

	"github.com/metalctl/metalctl/fleet/api"
)

func (s *Server) explainNode(ctx context.Context, in *Item) (*plain[api.Explain], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.engine.Words.Explain(ctx, n.ID)
	if err != nil {
		return nil, err
	}
	e.Agent, e.AgentHeard = s.agentWord(&n)
	if n.Operation != "" {
		e.Last = s.progress.of(n.ID, n.Operation)
	}
	return &plain[api.Explain]{e}, nil
}

func (s *Server) explainLease(ctx context.Context, in *Item) (*plain[api.LeaseExplain], error) {
	l, err := s.lease(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.engine.Words.ExplainLease(ctx, l.ID)
	return &plain[api.LeaseExplain]{e}, err
}
