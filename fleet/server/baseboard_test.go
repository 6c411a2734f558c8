package server

import (
	"context"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

type fakeBoards struct {
	board *fleet.Baseboard
	err   error
	asked int
}

func (f *fakeBoards) Baseboard(ctx context.Context, _ fleet.NodeID) (*fleet.Baseboard, error) {
	f.asked++
	if _, limited := ctx.Deadline(); !limited {
		return nil, fleet.Errorf(fleet.Broken, "MC-BMC-TIMEOUT", "no deadline")
	}
	return f.board, f.err
}

// TestDifferencesBMC: the BMC is asked only where that is wanted, what it shows is compared, and one that does not answer is an error and no agreement.
func TestDifferencesBMC(t *testing.T) {
	f := &fakeBoards{}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Boards = f })
	ctx := context.Background()
	n, err := w.client.CreateNode(ctx, createRequest("n1"), "")
	must(t, err)
	inv := fleet.Inventory{TakenAt: w.Now(), GPUs: []fleet.GPU{{ModuleID: 1, Serial: "A", Vendor: "nvidia", PCIAddress: "0000:10:00.0"}}}
	digest, err := w.db.PutBlob(ctx, "inventory", strings.NewReader(asJSON(t, inv)))
	must(t, err)
	must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error { n.Inventory = digest; return nil }))
	if _, err = w.client.Differences(ctx, "n1"); err != nil || f.asked != 0 {
		t.Errorf("unasked: %v, %d reads of the BMC", err, f.asked)
	}
	d, err := w.client.Differences(ctx, "n1", fleet.AgainstBMC)
	must(t, err)
	if len(d.Differences) != 0 || len(d.NotCompared) != 1 || !strings.Contains(d.NotCompared[0], "no GPU baseboard") || !d.BoardAt.IsZero() {
		t.Errorf("without a board: %+v", d)
	}
	f.board = &fleet.Baseboard{TakenAt: w.Now(), GPUs: []fleet.BoardGPU{{Name: "GPU_SXM_1", Number: 1, Serial: "A", State: "Enabled"}, {Name: "GPU_SXM_2", Number: 2, Serial: "B", State: "Enabled"}}}
	d, err = w.client.Differences(ctx, "n1", fleet.AgainstBMC)
	must(t, err)
	if len(d.Differences) != 1 || d.Differences[0].Code != "MC-BOARD-GPU-HOST" || d.Differences[0].Component != "gpu/2" || d.Differences[0].Blocks != fleet.BlocksNothing || d.BoardAt.IsZero() {
		t.Errorf("got %+v", d)
	}
	f.err = fleet.Errorf(fleet.Refused, "MC-BMC-TLS", "another key")
	_, err = w.client.Differences(ctx, "n1", fleet.AgainstBMC)
	wantCode(t, err, fleet.Refused, "MC-BMC-TLS")
}
