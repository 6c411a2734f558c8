package server

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

const stopID fleet.LoadStopID = "01933333-0000-7000-8000-000000000001"

func (e *fakeEngine) StopLoad(ctx context.Context, r api.LoadStopCreate, by string) (fleet.LoadStop, error) {
	x := fleet.LoadStop{ID: stopID, Reason: r.Reason, By: by, Since: e.s.Now()}
	_, err := e.s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLoadStop, x.ID), Value: x}}})
	return x, err
}

func (e *fakeEngine) ResumeLoad(ctx context.Context, _ api.LoadResume, _ string) error {
	_, err := e.s.Store.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLoadStop, stopID)}}})
	return err
}

func (e *fakeEngine) PowerStatus(s fleet.Snapshot) (api.PowerStatus, error) {
	stops, err := fleet.LoadStops(s)
	return api.PowerStatus{Budgets: []api.BudgetDrawn{{Budget: "rack=r1", Watts: 40000, DrawnWatts: 12000, Nodes: 2}}, Waiting: []api.PowerWaiting{{Node: "n1"}}, Stops: append([]fleet.LoadStop{}, stops...)}, err
}

func (e *fakeEngine) MayPowerOn(ctx context.Context, _ fleet.NodeID) error {
	return e.s.Store.View(ctx, func(s fleet.Snapshot) error {
		stops, err := fleet.LoadStops(s)
		if err == nil && len(stops) > 0 {
			err = fleet.Errorf(fleet.Conflict, "MC-POWER-STOPPED", "load is stopped")
		}
		return err
	})
}

// TestLoadStop: who waits for a task hears of a stop of load at once, no machine is switched on by hand, and metrics show both.
func TestLoadStop(t *testing.T) {
	w := newWorld(t, nil)
	n := w.enrol("n1")
	var seen fleet.Revision
	concern := func() (known bool) {
		err := w.Store.View(t.Context(), func(s fleet.Snapshot) (err error) {
			_, known, err = concerned(s, seen)
			seen = s.Revision()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	concern()
	if !concern() {
		t.Fatal("nothing was committed, and every agent is woken")
	}
	x, err := w.client.StopLoad(t.Context(), api.LoadStopCreate{All: true, Reason: "smoke"})
	if err != nil || x.ID != stopID || x.By == "" {
		t.Fatalf("stop %+v, %v", x, err)
	}
	if concern() {
		t.Error("load is stopped, and the agents are not woken")
	}
	if _, err := w.client.SetPower(t.Context(), n.Name, "on"); fleet.CodeOf(err) != "MC-POWER-STOPPED" {
		t.Errorf("power on: %v", err)
	}
	if _, err := w.client.SetPower(t.Context(), n.Name, "off"); err != nil {
		t.Errorf("power off: %v", err)
	}
	_, _, body := w.raw(http.MethodGet, "/metrics", "", nil)
	text := string(body)
	for _, line := range []string{`metalctl_power_budget_watts{budget="rack=r1"} 40000`, `metalctl_power_drawn_watts{budget="rack=r1"} 12000`, "metalctl_power_waiting_nodes 1", "metalctl_load_stops 1"} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("metrics lack %q", line)
		}
	}
	if st, err := w.client.ResumeLoad(t.Context(), api.LoadResume{All: true, Reason: "looked"}); err != nil || len(st.Stops) != 0 {
		t.Errorf("resumed: %+v, %v", st, err)
	}
}
