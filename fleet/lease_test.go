package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

var leaseStates = []LeaseState{LeasePending, LeaseAllocating, LeaseDeploying, LeaseActive, LeaseReleasing, LeaseReleased, LeaseFailed}

// TestLeaseLifecycle checks the lease's table: all is reachable from pending, only released and failed end it, and an end is always reachable.
// The one way back, extend from released, holds only while the nodes still wait in grace, and is left out.
func TestLeaseLifecycle(t *testing.T) {
	reach := func(from LeaseState) []LeaseState {
		seen := []LeaseState{from}
		for i := 0; i < len(seen); i++ {
			for _, tr := range LeaseLifecycle {
				if tr.Verb != "extend" && slices.Contains(tr.From, seen[i]) && !slices.Contains(seen, tr.To) {
					seen = append(seen, tr.To)
				}
			}
		}
		return seen
	}
	for _, s := range leaseStates {
		if !slices.Contains(reach(LeasePending), s) {
			t.Errorf("%s is not reachable from pending", s)
		}
		onward := reach(s)
		if s.Over() != (len(onward) == 1) {
			t.Errorf("%s: over %v, and onward lies %v", s, s.Over(), onward)
		}
		if !slices.ContainsFunc(onward, LeaseState.Over) {
			t.Errorf("%s never ends: %v", s, onward)
		}
	}
}

// TestLeaseHeldNodesAreReleased: whoever may hold nodes ends only by way of releasing; failed holds nothing.
func TestLeaseHeldNodesAreReleased(t *testing.T) {
	for _, tr := range LeaseLifecycle {
		if !tr.To.Over() {
			continue
		}
		for _, from := range tr.From {
			if from == LeaseDeploying || from == LeaseActive {
				t.Errorf("%s -%s-> %s skips the release of its members", from, tr.Verb, tr.To)
			}
		}
	}
}

func TestLeaseTableIsUnambiguous(t *testing.T) {
	seen := map[string]LeaseState{}
	for _, tr := range LeaseLifecycle {
		if tr.Why == "" {
			t.Errorf("%v %s does not say why", tr.From, tr.Verb)
		}
		for _, from := range tr.From {
			key := string(from) + " " + tr.Verb
			if to, twice := seen[key]; twice {
				t.Errorf("%s leads to %s and to %s", key, to, tr.To)
			}
			seen[key] = tr.To
		}
	}
}

// TestLeaseRelease: release is legal everywhere and, once begun, changes nothing.
func TestLeaseRelease(t *testing.T) {
	for _, s := range leaseStates {
		want := LeaseReleasing
		if s.Over() {
			want = s
		}
		if got, err := MoveLease(s, "release"); got != want || err != nil {
			t.Errorf("release of a lease that is %s: %s, %v; want %s", s, got, err, want)
		}
	}
}

func TestLeaseRefusal(t *testing.T) {
	for _, c := range []struct {
		from LeaseState
		verb string
	}{{LeaseReleased, "deploy"}, {LeaseActive, "allocate"}, {LeaseReleasing, "ready"}, {LeasePending, "fly"}} {
		_, err := MoveLease(c.from, c.verb)
		if KindOf(err) != Conflict || CodeOf(err) != "MC-LEASE-VERB" {
			t.Errorf("%s %s: %v", c.from, c.verb, err)
		}
	}
}

func TestLeaseMember(t *testing.T) {
	l := Lease{Members: []Member{{Node: "n1", State: MemberReplaced}, {Node: "n2", State: MemberReady}, {Node: "n1", State: MemberReserved}}}
	if m := l.Member("n1"); m == nil || m.State != MemberReserved {
		t.Errorf("got %+v, want the member that is not replaced", m)
	}
	if m := l.Member("n3"); m != nil {
		t.Errorf("got %+v for a node that is no member", m)
	}
}

// TestUserDataLimitIsOne: the pages say the limit that is kept.
func TestUserDataLimitIsOne(t *testing.T) {
	want := fmt.Sprintf("%d MiB", MaxUserData>>20)
	for _, code := range []string{"MC-LEASE-USERDATA", "MC-PLAN-PARAMS"} {
		if text := Codes[code].Text; !strings.Contains(text, want) {
			t.Errorf("%s does not name the limit of %s: %q", code, want, text)
		}
	}
}
