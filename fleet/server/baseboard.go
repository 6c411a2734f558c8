package server

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
)

func (s *Server) getBaseboard(ctx context.Context, in *Item) (*plain[fleet.Baseboard], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	b, err := fleet.StoredBaseboard(ctx, s.Blobs, n.Board)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-BOARD-NONE", "no baseboard was read of %s", n.Name).WithHint("metalctl node inspect %s", n.Name)
	}
	return &plain[fleet.Baseboard]{*b}, nil
}
