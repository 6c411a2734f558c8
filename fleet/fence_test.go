package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFenceLimit(t *testing.T) {
	for _, x := range []struct{ inUse, more, want int }{{0, 0, 4}, {200, 0, 4}, {249, 0, 4}, {250, 0, 5}, {10_000, 0, 200}, {10, 64, 64}, {10_000, 64, 200}} {
		if got := FenceLimit(x.inUse, Site{FenceNodes: x.more}); got != x.want {
			t.Errorf("of %d in use, site %d: %d, want %d", x.inUse, x.more, got, x.want)
		}
	}
}

// TestInUse: a tenant's node counts from its first readiness until its disks are clean; what is being prepared does not.
func TestInUse(t *testing.T) {
	used := map[State]bool{Active: true, Rebuilding: true, Rescuing: true, Rescued: true, Unrescuing: true, Servicing: true, Resuming: true, Grace: true}
	for _, s := range States() {
		if got := InUse(Node{State: s, Lease: "l"}); got != used[s] {
			t.Errorf("%s: %v", s, got)
		}
		if InUse(Node{State: s}) {
			t.Errorf("%s without a lease counts", s)
		}
	}
}

func TestRecentHarm(t *testing.T) {
	h := HarmRecord{Done: []Harmed{{Node: "old", Ran: time.Hour}, {Node: "young", Ran: time.Hour + time.Second}, {Node: "ahead", Ran: 3 * time.Hour}}}
	got := h.Recent(2 * time.Hour).Done
	if len(got) != 2 || got[0].Node != "young" || got[1].Node != "ahead" || len(h.Done) != 3 {
		t.Errorf("recent are %+v of %+v", got, h.Done)
	}
}

// TestHarmRecordIsBounded: however many nodes are harmed, none is forgotten within the hour, and the record stays small.
func TestHarmRecordIsBounded(t *testing.T) {
	var h HarmRecord
	ran := time.Duration(0)
	const perMinute = 200
	for minute := range 200 {
		for i := range perMinute {
			ran = time.Duration(minute)*time.Minute + time.Duration(i)*time.Minute/perMinute
			h = h.Recent(ran)
			h.Add(Harmed{Node: NodeID(fmt.Sprintf("0199a000-0000-7000-8000-%06d%06d", minute, i)), Ran: ran, At: time.Unix(0, 0), By: strings.Repeat("b", 100)})
			if len(h.Done) > HarmsNamed || len(h.Folded) > harmsFolded {
				t.Fatalf("minute %d: %d nodes are named and %d minutes counted", minute, len(h.Done), len(h.Folded))
			}
		}
		// A minute that is counted as one may be told for up to a minute longer, and never shorter.
		least := min(minute+1, 60) * perMinute
		if got := h.Nodes(); got < least || got > least+perMinute {
			t.Fatalf("minute %d: %d nodes, want %d to %d", minute, got, least, least+perMinute)
		}
	}
	if b, err := json.Marshal(h); err != nil || len(b) > 100<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if h = h.Recent(ran + FenceTime + time.Minute); h.Nodes() != 0 {
		t.Errorf("after an hour %d nodes are counted still", h.Nodes())
	}
	for i := range 100_000 { // times that lie ahead, one for each
		h.Add(Harmed{Ran: time.Duration(i) * time.Hour})
	}
	if len(h.Folded) > harmsFolded || h.Nodes() != 100_000 {
		t.Errorf("%d minutes are counted, %d nodes", len(h.Folded), h.Nodes())
	}
}

func TestApprovalAllows(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := Approval{Harm: HarmRelease, Act: "node release", Nodes: []NodeID{"a", "b"}, State: ApprovalGranted, AskedAt: now, Expires: now.Add(time.Hour), Used: []NodeID{"b"}}
	asked, denied := a, a
	asked.State, denied.State = ApprovalAsked, ApprovalDenied
	for name, x := range map[string]struct {
		a    Approval
		harm Harm
		act  string
		node NodeID
		at   time.Time
		want bool
	}{
		"what was granted": {a, HarmRelease, "node release", "a", now, true},
		"once each":        {a, HarmRelease, "node release", "b", now, false},
		"another node":     {a, HarmRelease, "node release", "c", now, false},
		"another act":      {a, HarmRelease, "lease release l", "a", now, false},
		"another harm":     {a, HarmPower, "node release", "a", now, false},
		"too late":         {a, HarmRelease, "node release", "a", now.Add(time.Hour), false},
		"not granted yet":  {asked, HarmRelease, "node release", "a", now, false},
		"asked in future":  {a, HarmRelease, "node release", "a", now.Add(-time.Hour), false},
		"denied":           {denied, HarmRelease, "node release", "a", now, false},
	} {
		if got := x.a.Allows(x.harm, x.act, x.node, x.at); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if ApprovalDigest(HarmPower, "power off", []NodeID{"a", "b"}) != ApprovalDigest(HarmPower, "power off", []NodeID{"b", "a"}) ||
		ApprovalDigest(HarmPower, "power off", []NodeID{"a"}) == ApprovalDigest(HarmPower, "power cycle", []NodeID{"a"}) {
		t.Error("a digest is over what is done to which nodes, in any order")
	}
}
