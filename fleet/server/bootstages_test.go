package server

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func TestTheStagesOfABootAreKept(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	_, err := a.register()
	must(t, err)
	want := []fleet.BootStage{{Name: "init", Seconds: 0.75}, {Name: "network", Seconds: 2.5}, {Name: "registered", Seconds: 3}}
	got, err := w.client.Node(context.Background(), "n1")
	must(t, err)
	if diff := cmp.Diff(got.Boot.Stages, want); diff != "" {
		t.Errorf("stages (-got +want):\n%s", diff)
	}
	now := time.Date(2030, 1, 2, 3, 4, 5, 500_000_000, time.UTC)
	if line := bootLine(now, want); line != "kernel started at 03:04:02.50; ended after that: init 0.75 s, network 2.50 s, registered 3.00 s" {
		t.Error(line)
	}
}

func TestStagesThatNoBootHasAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	a := w.boot(n.ID)
	many := map[string]float64{}
	for c := 'a'; c <= 'z'; c++ {
		many[string(c)] = 1
	}
	for name, b := range map[string]api.AgentBootInfo{
		"a negative time":  {Stages: map[string]float64{"init": -1}},
		"too late":         {Stages: map[string]float64{"init": math.MaxFloat64}},
		"a name with more": {Stages: map[string]float64{"in\x1bit": 1}},
		"too many":         {Stages: many},
		"a strange uptime": {Uptime: -4},
	} {
		reg := a.request()
		reg.Boot = b
		if _, err := decodeRegister(&reg); fleet.CodeOf(err) != "MC-AGENT-REGISTER" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
