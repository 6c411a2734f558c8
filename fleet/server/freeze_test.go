package server

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (e *fakeEngine) Freeze(ctx context.Context, r api.FreezeCreate, by string) (fleet.Freeze, error) {
	f := fleet.Freeze{ID: "01922222-0000-7000-8000-000000000001", Scope: fleet.FreezeAll, Reason: r.Reason, By: by, Since: time.Now().UTC(), Source: fleet.FrozenByPerson}
	_, err := e.s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindFreeze, f.ID), Value: f}}})
	return f, err
}

func (e *fakeEngine) Thaw(ctx context.Context, _ api.Thaw, _ string) error {
	_, err := e.s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindFreeze, fleet.FreezeID("01922222-0000-7000-8000-000000000001"))}}})
	return err
}

// TestFrozenNode: a frozen node is shown as such everywhere, its power is not set, and it can still be read.
func TestFrozenNode(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol("n1")
	f, err := w.client.Freeze(t.Context(), api.FreezeCreate{All: true, Reason: "smoke in row 3"})
	if err != nil || f.Covered != 1 || f.By != adminName {
		t.Fatalf("freeze: %+v, %v", f, err)
	}
	for _, action := range []string{"on", "off", "cycle", "shutdown"} {
		_, err := w.client.SetPower(t.Context(), "n1", action)
		if fleet.CodeOf(err) != fleet.CodeFrozen || api.StatusOf(err) != http.StatusConflict || !strings.Contains(err.Error(), "smoke in row 3") ||
			!strings.Contains(fleet.HintOf(err), "metalctl thaw n1") {
			t.Errorf("power %s: %v (%s)", action, err, fleet.HintOf(err))
		}
	}
	if _, err := w.client.Power(t.Context(), "n1"); err != nil {
		t.Errorf("reads go on: %v", err)
	}
	n, err := w.client.Node(t.Context(), "n1")
	if err != nil || n.Frozen == nil || n.Frozen.Reason != "smoke in row 3" || n.Frozen.By != adminName {
		t.Errorf("node: %+v, %v", n.Frozen, err)
	}
	metric := func(line string) {
		t.Helper()
		if _, _, body := w.raw(http.MethodGet, "/metrics", "", nil); !strings.Contains(string(body), line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	metric(`metalctl_frozen{source="person"} 1`)
	st, err := w.client.Thaw(t.Context(), api.Thaw{All: true, Reason: "a false alarm"})
	if err != nil || len(st.Freezes) != 0 || len(st.Frozen) != 0 || st.Nodes != 1 {
		t.Errorf("thaw: %+v, %v", st, err)
	}
	if _, err := w.client.SetPower(t.Context(), "n1", "on"); err != nil {
		t.Errorf("thawed: %v", err)
	}
	metric(`metalctl_frozen{source="person"} 0`)
}

func (e *fakeEngine) ProtectLease(ctx context.Context, id fleet.LeaseID, verb, _ string) (fleet.Lease, error) {
	return e.changeLease(ctx, id, func(l *fleet.Lease) { l.Protected = verb == api.VerbProtect })
}

func TestProtectLease(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol("n1")
	l, err := w.client.CreateLease(t.Context(), api.LeaseCreate{Name: "l1", LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "debian"}}, "")
	must(t, err)
	for verb, want := range map[string]bool{api.VerbProtect: true, api.VerbUnprotect: false} {
		if got, err := w.client.LeaseProtection(t.Context(), "l1", verb); err != nil || got.ID != l.ID || got.Protected != want {
			t.Errorf("%s: %v, %v", verb, got.Protected, err)
		}
	}
}

func (e *fakeEngine) Leave(context.Context, api.Leave, string) error { return nil }

func (e *fakeEngine) Harm(_ context.Context, _ fleet.NodeID, h fleet.Harm, act, _ string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, string(h)+": "+act)
	return nil
}

func (e *fakeEngine) Decide(_ context.Context, id fleet.ApprovalID, verb string, who api.Approver, reason string) (fleet.Approval, error) {
	return fleet.Approval{ID: id, DecidedBy: who.Name, DecidedAt: who.Since, Reason: verb + " " + reason}, nil
}
