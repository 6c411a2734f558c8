package fleet

import (
	"testing"
	"time"
)

// TestBurnInDue: what proved a node for one class is no proof for a class that wants another profile of new nodes.
func TestBurnInDue(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	class := Class{Name: "x", BurnIn: "acceptance", AfterTenant: "handover"}
	for _, c := range []struct {
		name  string
		class Class
		node  Node
		due   bool
		next  string
	}{
		{"a new node", class, Node{}, true, "acceptance"},
		{"proven and fresh", class, Node{BurnedAt: now, ProvenAt: now, ProvenBy: "acceptance"}, false, "handover"},
		{"after a tenancy", class, Node{ProvenAt: now, ProvenBy: "acceptance"}, true, "handover"},
		{"a part was replaced", class, Node{ProvenAt: now, ProvenBy: "acceptance", BurnNext: "repair"}, true, "repair"},
		{"the class wants more by now", class, Node{BurnedAt: now, ProvenAt: now, ProvenBy: "smoke"}, true, "acceptance"},
		{"the class wants none", Class{Name: "x", BurnIn: NoBurnIn}, Node{}, false, ""},
	} {
		if due, next := c.class.BurnInDue(c.node), c.class.NextBurn(c.node); due != c.due || next != c.next {
			t.Errorf("%s: due %t, next %q; want %t, %q", c.name, due, next, c.due, c.next)
		}
	}
}

// TestCovers: a long burn-in that loads no GPU does not stand for a short one that does.
func TestCovers(t *testing.T) {
	stage := func(name string, seconds int) BurnStage {
		return BurnStage{Name: name, Stress: []string{name}, Seconds: seconds}
	}
	due := BurnProfile{Rounds: 2, Stages: []BurnStage{stage(StressGPUMemory, 60), stage(StressCPU, 30)}}
	for _, c := range []struct {
		name string
		ran  BurnProfile
		want bool
	}{
		{"itself", due, true},
		{"the same in one round", BurnProfile{Rounds: 1, Stages: []BurnStage{stage(StressGPUMemory, 120), stage(StressCPU, 60)}}, true},
		{"longer, without GPUs", BurnProfile{Rounds: 9, Stages: []BurnStage{stage(StressCPU, 3600)}}, false},
		{"too little of one", BurnProfile{Rounds: 2, Stages: []BurnStage{stage(StressGPUMemory, 59), stage(StressCPU, 300)}}, false},
	} {
		if got := c.ran.Covers(due); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
