package server

import (
	"context"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestEnrolReadForget(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("hgx-001")
	got, err := w.client.Node(ctx, "hgx-001")
	must(t, err)
	if got.ID != n.ID || got.State != fleet.Enrolled || got.Dirty != fleet.DirtyUnknown || got.Isolation != "unproven" || got.Agent != "none" {
		t.Errorf("got %s", asJSON(t, got))
	}
	must(t, w.client.ForgetNode(ctx, "hgx-001"))
	_, err = w.client.Node(ctx, "hgx-001")
	wantCode(t, err, fleet.NotFound, "MC-NODE-UNKNOWN")
	w.enrol("hgx-001")
}
