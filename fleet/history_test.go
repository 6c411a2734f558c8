package fleet

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func changeEvent(t *testing.T, at time.Time, c StateChange) Event {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return Event{Type: "node.state", At: at, Data: b}
}

func TestStays(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }
	n := Node{Name: "n1", State: Managed, StateSince: at(30), CreatedAt: t0}
	enrolled := Event{Type: "node.enrolled", At: t0}
	inspect := changeEvent(t, at(10), StateChange{From: Enrolled, To: Inspecting, Verb: VerbInspect, By: "ann", Why: "asked"})
	done := changeEvent(t, at(30), StateChange{From: Inspecting, To: Managed, Verb: VerbDone, By: "the plan", Why: "finished"})
	for name, c := range map[string]struct {
		events []Event
		want   []Stay
	}{
		"all that ever was": {[]Event{enrolled, inspect, {Type: "operation.step"}, done}, []Stay{
			{State: Enrolled, Since: t0, Until: at(10), Seconds: 600},
			{State: Inspecting, Since: at(10), Until: at(30), Seconds: 1200, Verb: VerbInspect, By: "ann", Why: "asked"},
			{State: Managed, Since: at(30), Seconds: 1800, Verb: VerbDone, By: "the plan", Why: "finished"}}},
		"the beginning is no longer kept": {[]Event{done}, []Stay{
			{State: Inspecting, Until: at(30)},
			{State: Managed, Since: at(30), Seconds: 1800, Verb: VerbDone, By: "the plan", Why: "finished"}}},
		"nothing is kept": {nil, []Stay{{State: Managed, Since: at(30), Seconds: 1800}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Stays(n, c.events, at(60))
			if diff := cmp.Diff(got, c.want); diff != "" {
				t.Error(diff)
			}
		})
	}
	totals := Totals([]Stay{{State: Managed, Seconds: 1}, {State: Inspecting, Seconds: 5}, {State: Managed, Seconds: 2}})
	if diff := cmp.Diff(totals, []StateTotal{{Inspecting, 1, 5}, {Managed, 2, 3}}); diff != "" {
		t.Error(diff)
	}
}
