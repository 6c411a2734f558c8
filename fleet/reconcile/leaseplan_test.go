package reconcile_test

import (
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// The plan of a release changes nothing, and a digest that does not fit any more is answered with what differs.
func TestReleasePlan(t *testing.T) {
	w := available(t)
	id := leased(t, w, nil)
	shown, err := w.Loop.ReleasePlan(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(shown.Nodes) != 1 || len(shown.Nodes[0].Plan.Steps) == 0 {
		t.Fatalf("the plan has no node with steps: %+v", shown)
	}
	if again, err := w.Loop.ReleasePlan(t.Context(), id, shown.Digest); err != nil || again.Digest != shown.Digest {
		t.Errorf("the same plan is %s, was %s: %v", again.Digest, shown.Digest, err)
	}
	if l := readLease(t, w, id); l.State != fleet.LeaseActive {
		t.Errorf("showing a plan made the lease %s", l.State)
	}
	for asked, want := range map[string]string{"sha256:never": "has not shown", shown.Nodes[0].Plan.Digest: "is a plan of " + shown.Nodes[0].Node} {
		if _, err = w.Loop.ReleasePlan(t.Context(), id, asked); fleet.CodeOf(err) != "MC-PLAN-DIGEST" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", asked, err)
		}
	}
	l := readLease(t, w, id)
	l.Request.GraceSeconds += 60
	if _, err := w.Store.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLease, id), Value: l}}}); err != nil {
		t.Fatal(err)
	}
	if _, err = w.Loop.ReleasePlan(t.Context(), id, shown.Digest); fleet.CodeOf(err) != "MC-PLAN-DIGEST" || !strings.Contains(err.Error(), "grace_seconds: was ") {
		t.Errorf("another grace time: %v", err)
	}
}
