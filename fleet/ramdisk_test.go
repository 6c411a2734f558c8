package fleet

import (
	"testing"
	"time"
)

func TestBoots(t *testing.T) {
	on, stopped := &Canary{Ramdisk: "new", Nodes: []NodeID{"n1"}}, &Canary{Ramdisk: "new", Nodes: []NodeID{"n1"}, Stopped: "2 boots failed"}
	for name, c := range map[string]struct {
		node     Node
		pin      string
		rollouts map[string]Rollout
		want     string
	}{
		"follows all":                  {Node{ID: "n1", Class: "a"}, "", map[string]Rollout{"": {Current: "cur"}}, "cur"},
		"a canary":                     {Node{ID: "n1", Class: "a"}, "", map[string]Rollout{"": {Current: "cur", Canary: on}}, "new"},
		"beside a canary":              {Node{ID: "n2", Class: "a"}, "", map[string]Rollout{"": {Current: "cur", Canary: on}}, "cur"},
		"a canary that was stopped":    {Node{ID: "n1", Class: "a"}, "", map[string]Rollout{"": {Current: "cur", Canary: stopped}}, "cur"},
		"pinned, whatever is tried":    {Node{ID: "n1", Class: "a"}, "sha256:pin", map[string]Rollout{"": {Current: "cur", Canary: on}}, "pin"},
		"its class has its own":        {Node{ID: "n1", Class: "a"}, "", map[string]Rollout{"": {Current: "cur", Canary: on}, "a": {Class: "a", Current: "own"}}, "own"},
		"a canary of its class":        {Node{ID: "n1", Class: "a"}, "", map[string]Rollout{"": {Current: "cur"}, "a": {Class: "a", Current: "own", Canary: on}}, "new"},
		"another class has its own":    {Node{ID: "n1", Class: "b"}, "", map[string]Rollout{"": {Current: "cur"}, "a": {Class: "a", Current: "own"}}, "cur"},
		"a node without a class":       {Node{ID: "n1"}, "", map[string]Rollout{"": {Current: "cur"}, "a": {Class: "a", Current: "own"}}, "cur"},
		"before anything was recorded": {Node{ID: "n1"}, "", nil, ""},
	} {
		if got, why := Boots(c.node, c.pin, c.rollouts); got != c.want || why == "" {
			t.Errorf("%s: boots %q (%s), want %q", name, got, why, c.want)
		}
	}
}

func TestFollows(t *testing.T) {
	rollouts := map[string]Rollout{"": {Current: "cur"}, "own": {Class: "own", Current: "x"}}
	for name, c := range map[string]struct {
		class, node, pin string
		want             bool
	}{
		"all that follow":                    {"", "plain", "", true},
		"all that follow, without a class":   {"", "", "", true},
		"of a class with its own":            {"", "own", "", false},
		"its own":                            {"own", "own", "", true},
		"a class about to have its own":      {"plain", "plain", "", true},
		"another class":                      {"plain", "other", "", false},
		"pinned":                             {"", "plain", "sha256:x", false},
		"pinned, for its own class":          {"plain", "plain", "sha256:x", false},
		"another class with a rollout there": {"own", "plain", "", false},
	} {
		if got := Follows(Node{Class: c.node}, c.class, c.pin, rollouts); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCanaryCounts(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	begin := func(auto int) *Rollout {
		return &Rollout{Current: "cur", Canary: &Canary{Ramdisk: "new", Nodes: []NodeID{"n1", "n2"}, StopAfter: 2, AutoAfter: auto}}
	}
	fail, done := RamdiskOutcome{SHA256: "new", Node: "n1", Kind: "failed", Why: "MC-BOOT-KERNEL"}, RamdiskOutcome{SHA256: "new", Node: "n2", Kind: "done"}
	r := begin(0)
	for i, o := range []RamdiskOutcome{fail, done, {SHA256: "cur", Node: "n1", Kind: "failed"}, {SHA256: "new", Node: "n3", Kind: "failed"}} {
		if got := r.Count(o, now); got != "" {
			t.Errorf("outcome %d ends the canary: %s", i, got)
		}
	}
	if got := r.Count(fail, now); got != "stopped" || r.Canary.Stopped != "2 boots failed, the last: MC-BOOT-KERNEL" || r.Current != "cur" {
		t.Errorf("the second failure: %q, %+v", got, r)
	}
	if got := r.Count(fail, now); got != "" || r.Canary.Failed != 2 {
		t.Errorf("a stopped canary goes on: %q, %+v", got, r.Canary)
	}
	r = begin(2)
	if got := r.Count(done, now); got != "" {
		t.Error(got)
	}
	if got := r.Count(done, now); got != "promoted" || r.Current != "new" || r.Previous != "cur" || r.Canary != nil {
		t.Errorf("after two that ended well: %q, %+v", got, r)
	}
	r = begin(1)
	r.Count(fail, now)
	if got := r.Count(done, now); got != "" || r.Current != "cur" {
		t.Errorf("promoted by itself after a failure: %q, %+v", got, r)
	}
	r.Promote("cur", "me", now)
	if r.Previous != "" || r.Canary != nil {
		t.Errorf("promoting what is current: %+v", r)
	}
}

func TestFindRamdisk(t *testing.T) {
	all := []Ramdisk{{SHA256: "abcdef0123", Program: "1.0"}, {SHA256: "abcdef9999", Program: "2.0"}, {SHA256: "112233445566", Program: "2.0"}}
	for ref, want := range map[string]string{"abcdef0": "abcdef0123", "sha256:112233": "112233445566", "1.0": "abcdef0123", "abcdef": "", "2.0": "", "abcde": "", "ffffff": "", "": ""} {
		got, err := FindRamdisk(all, ref)
		if got.SHA256 != want || (err == nil) != (want != "") || err != nil && CodeOf(err) != "MC-RAMDISK-UNKNOWN" {
			t.Errorf("%q: %q, %v", ref, got.SHA256, err)
		}
	}
}
