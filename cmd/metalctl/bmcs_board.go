//go:build !ramdisk

package main

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish/hgx"
)

// Baseboard implements server.Boards and reconcile.Boards. The reader lives as long as the look: a fleet's worth of remembered answers would fill the memory.
func (b *bmcs) Baseboard(ctx context.Context, id fleet.NodeID) (*fleet.Baseboard, error) {
	bmc, err := b.get(ctx, id)
	if err != nil {
		return nil, err
	}
	return hgx.New(bmc, b.now).Baseboard(ctx)
}
