package server

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// partitionsIn are all partitions with the names of their nodes.
func partitionsIn(sn fleet.Snapshot) ([]api.Partition, error) {
	wires, err := fleet.List[fleet.NodeWires](sn, fleet.KindWires)
	if err != nil {
		return nil, err
	}
	return viewsOf(sn, fleet.KindPartition, func(sn fleet.Snapshot, p fleet.TenantPartition, rev fleet.Revision) (api.Partition, error) {
		names, err := nodesIn(sn, wires, func(w fleet.NodeWires) bool { return w.Partition == p.Name })
		return api.Partition{TenantPartition: p, Revision: rev, Nodes: names}, err
	})
}

func (s *Server) listPartitions(ctx context.Context, in *Paging) (*plain[api.List[api.Partition]], error) {
	return listed(ctx, s, *in, func(p api.Partition) string { return p.Name }, partitionsIn)
}

func (s *Server) getPartition(ctx context.Context, in *Item) (*tagged[api.Partition], error) {
	p, err := oneOf(ctx, s, partitionsIn, func(p api.Partition) bool { return p.Name == in.ID },
		fleet.Errorf(fleet.NotFound, "MC-NET-PARTITION", "there is no partition %q", shortened(in.ID)).WithHint("metalctl partition list"))
	return tag(p, p.Revision), err
}

type createPartitionIn struct {
	Body fleet.TenantPartition
}

func (s *Server) createPartition(ctx context.Context, in *createPartitionIn) (*tagged[api.Partition], error) {
	if err := s.Wires.Create(ctx, in.Body, callerOf(ctx)); err != nil {
		return nil, err
	}
	return s.getPartition(ctx, &Item{in.Body.Name})
}

func (s *Server) deletePartition(ctx context.Context, in *Item) (*struct{}, error) {
	return nil, s.Wires.Remove(ctx, in.ID, callerOf(ctx))
}
