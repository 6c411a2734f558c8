package server

import (
	"context"
	"strings"
	"testing"
	"time"

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

// TestDifferencesBMC: what an inspection read is compared with without asking the BMC; asked for now, it is read, and one that does not answer is an error and
// no agreement.
func TestDifferencesBMC(t *testing.T) {
	f := &fakeBoards{}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Boards = f })
	ctx := context.Background()
	n, err := w.client.CreateNode(ctx, createRequest("n1"), "")
	must(t, err)
	put := func(kind string, v any) string {
		digest, err := w.db.PutBlob(ctx, kind, strings.NewReader(asJSON(t, v)))
		must(t, err)
		return digest
	}
	set := func(change func(*fleet.Node)) {
		must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error { change(n); return nil }))
	}
	inventory := put("inventory", fleet.Inventory{TakenAt: w.Now(), GPUs: []fleet.GPU{{ModuleID: 1, Serial: "A", Vendor: "nvidia", PCIAddress: "0000:10:00.0"}}})
	set(func(n *fleet.Node) { n.Inventory = inventory })
	d, err := w.client.Differences(ctx, "n1")
	must(t, err)
	if len(d.Against) != 3 || !d.BoardAt.IsZero() {
		t.Errorf("before a board was read: %+v", d)
	}
	d, err = w.client.Differences(ctx, "n1", fleet.AgainstBMC)
	must(t, err)
	if len(d.Differences) != 0 || len(d.NotCompared) != 1 || !strings.Contains(d.NotCompared[0], "was not asked yet") || !d.BoardAt.IsZero() {
		t.Errorf("nothing stored: %+v", d)
	}
	d, err = w.client.DifferencesNow(ctx, "n1")
	must(t, err)
	if f.asked != 1 || len(d.Against) != 4 || len(d.NotCompared) != 4 || !strings.Contains(d.NotCompared[3], "shows no GPU baseboard") {
		t.Errorf("without a board: %d reads, %+v", f.asked, d)
	}
	read := w.Now().Add(-time.Hour)
	board := put("baseboard", fleet.Baseboard{TakenAt: read, GPUs: []fleet.BoardGPU{{Name: "GPU_SXM_1", Number: 1, Serial: "A", State: "Enabled"}, {Name: "GPU_SXM_2", Number: 2, Serial: "B", State: "Enabled"}},
		Roots: []fleet.BoardRoot{{ID: "HGX_ERoT_BMC_0", Enabled: true, Identity: "sha256:a"}}})
	set(func(n *fleet.Node) { n.Board = board })
	d, err = w.client.Differences(ctx, "n1")
	must(t, err)
	if f.asked != 1 || len(d.Differences) != 1 || d.Differences[0].Code != "MC-BOARD-GPU-HOST" || d.Differences[0].Component != "gpu/2" || d.Differences[0].Blocks != fleet.BlocksAllocate || !d.BoardAt.Equal(read) || d.BoardNow {
		t.Errorf("stored: %d reads, %+v", f.asked, d)
	}
	f.board = &fleet.Baseboard{TakenAt: w.Now(), GPUs: []fleet.BoardGPU{{Name: "GPU_SXM_1", Number: 1, Serial: "A", State: "Enabled"}}, Roots: []fleet.BoardRoot{{ID: "HGX_ERoT_BMC_0", Enabled: true, Identity: "sha256:b"}}}
	d, err = w.client.DifferencesNow(ctx, "n1", fleet.AgainstBMC)
	must(t, err)
	if f.asked != 2 || len(d.Differences) != 1 || d.Differences[0].Code != "MC-BOARD-IDENTITY" || d.Differences[0].Blocks != fleet.BlocksNothing || !d.BoardAt.After(read) || !d.BoardNow {
		t.Errorf("now: %d reads, %+v", f.asked, d)
	}
	f.err = fleet.Errorf(fleet.Refused, "MC-BMC-TLS", "another key")
	_, err = w.client.DifferencesNow(ctx, "n1", fleet.AgainstBMC)
	wantCode(t, err, fleet.Refused, "MC-BMC-TLS")
}
