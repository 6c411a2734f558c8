package server

import (
	"context"

	"github.com/metalctl/metalctl/fleet/topology"
	"github.com/metalctl/metalctl/fleet/verdict"
)

// layout draws the newest inventory with what is wrong by itself and by the class.
func (s *Server) layout(ctx context.Context, id string) (topology.Layout, error) {
	n, inv, err := s.inspected(ctx, id)
	if err != nil {
		return topology.Layout{}, err
	}
	class, err := s.classOf(ctx, n)
	if err != nil {
		return topology.Layout{}, err
	}
	title := n.Name
	if inv.System.Model != "" {
		title += ", " + inv.System.Model
	}
	names := topology.Names{GPU: func(i int) string { return verdict.Component(&inv, i) }}
	if len(inv.NVSwitches) == 4 {
		names.Chip = func(gpu, link int) (int, bool) {
			chip, _, ok := verdict.Wired("hgx-hopper", inv.GPUs[gpu].ModuleID, link)
			return chip, ok
		}
	}
	return topology.Of(title, inv, verdict.Judge(inv, class), names), nil
}

func (s *Server) getTopology(ctx context.Context, in *Item) (*plain[topology.Layout], error) {
	l, err := s.layout(ctx, in.ID)
	return &plain[topology.Layout]{l}, err
}

// picture is an answer that is no JSON.
type picture struct {
	ContentType string `header:"Content-Type"`
	Body        []byte `contentType:"image/svg+xml"`
}

func (s *Server) getTopologySVG(ctx context.Context, in *Item) (*picture, error) {
	l, err := s.layout(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &picture{"image/svg+xml", l.SVG()}, nil
}
