package server

import (
	"context"
	"errors"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (e *fakeEngine) PlanLease(_ context.Context, l api.LeaseCreate, _ string) (fleet.Choice, error) {
	return fleet.Choice{Count: l.Count, Class: l.Class, Considered: 1, Relaxations: []fleet.Relaxation{{Text: "with --count 1"}}}, nil
}

func (e *fakeEngine) PlanReplace(_ context.Context, id fleet.LeaseID, out fleet.NodeID, r api.LeaseReplace, _ string) (api.LeaseSwap, error) {
	return api.LeaseSwap{Lease: id, Out: string(out), In: r.With}, nil
}

func (e *fakeEngine) ReplaceNode(ctx context.Context, id fleet.LeaseID, out fleet.NodeID, r api.LeaseReplace, _ string) (fleet.Lease, error) {
	return e.changeLease(ctx, id, func(l *fleet.Lease) {
		l.Members = append(l.Members, fleet.Member{Node: out, Name: r.With, Identity: "the old one"})
	})
}

func TestPlanLease(t *testing.T) {
	w := newWorld(t, nil)
	c, err := w.client.PlanLease(t.Context(), api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Count: 2, Class: "h", Image: "i", MinReady: 2, Topology: fleet.TopologySameLeaf, Selector: "rack=r1"}})
	if err != nil || c.Count != 2 || c.Class != "h" || len(c.Relaxations) != 1 {
		t.Errorf("got %+v, %v", c, err)
	}
	for name, r := range map[string]struct {
		fleet.LeaseRequest
		field string
	}{
		"nodes are named and counted":  {fleet.LeaseRequest{Nodes: []string{"n1"}, Count: 1, Class: "h"}, "nodes"},
		"a count below none":           {fleet.LeaseRequest{Count: -1, Class: "h"}, "count"},
		"a count of nothing":           {fleet.LeaseRequest{Count: 1}, "class"},
		"a class and no count":         {fleet.LeaseRequest{Nodes: []string{"n1"}, Class: "h"}, "class"},
		"no such topology":             {fleet.LeaseRequest{Count: 1, Class: "h", Topology: "near"}, "topology"},
		"a topology of named nodes":    {fleet.LeaseRequest{Nodes: []string{"n1"}, Topology: fleet.TopologyAny}, "topology"},
		"a selector that cannot be":    {fleet.LeaseRequest{Count: 1, Class: "h", Selector: "=,"}, "selector"},
		"more ready nodes than wanted": {fleet.LeaseRequest{Count: 2, Class: "h", MinReady: 3}, "min_ready"},
	} {
		r.Image = "i"
		_, err := w.client.PlanLease(t.Context(), api.LeaseCreate{LeaseRequest: r.LeaseRequest})
		var e *fleet.Error
		if !errors.As(err, &e) || e.Kind != fleet.Invalid || len(e.Fields) != 1 || e.Fields[0].Field != r.field {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestReplaceNode(t *testing.T) {
	w := newWorld(t, nil)
	w.enrol("n1")
	n, err := w.client.Node(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.CreateLease(t.Context(), api.LeaseCreate{Name: "l1", LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "debian"}}, ""); err != nil {
		t.Fatal(err)
	}
	r := api.LeaseReplace{Node: "n1", With: "n2"}
	s, err := w.client.PlanReplace(t.Context(), "l1", r)
	if err != nil || s.Out != string(n.ID) || s.In != "n2" {
		t.Errorf("plan: %+v, %v", s, err)
	}
	l, err := w.client.ReplaceNode(t.Context(), "l1", r)
	if err != nil || len(l.Members) == 0 || l.Members[len(l.Members)-1].Node != n.ID {
		t.Errorf("replaced: %+v, %v", l.Members, err)
	}
	if _, err := w.client.ReplaceNode(t.Context(), "l1", api.LeaseReplace{Node: "n9"}); fleet.CodeOf(err) != "MC-NODE-UNKNOWN" {
		t.Errorf("an unknown node: %v", err)
	}
	if _, err := w.client.PlanReplace(t.Context(), "l2", r); fleet.CodeOf(err) != "MC-LEASE-UNKNOWN" {
		t.Errorf("an unknown lease: %v", err)
	}
}
