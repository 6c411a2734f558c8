package server

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
)

// TestMetricNames compares what the server shows, where there is something of everything, with what the documentation lists.
func TestMetricNames(t *testing.T) {
	w := newWorld(t, func(_ *Config, d *Deps) { d.Standby = &followed{http.NotFoundHandler(), nil} })
	n := w.enrol("n1")
	w.ObserveRedfish("HPE", "get Systems", 200, time.Second)
	began := time.Now().UTC().Add(-time.Minute)
	_, err := w.engine.operation(t.Context(), n.ID, "clean", []fleet.StepRun{{Name: "erase-disks", State: fleet.StepFinished, StartedAt: began, FinishedAt: began.Add(time.Second)}})
	must(t, err)
	must(t, w.engine.finish(t.Context(), n.ID, fleet.OperationDone))
	must(t, w.updateNode(t.Context(), n.ID, func(n *fleet.Node, _ *fleet.Change) error {
		n.RaiseFault(fleet.Fault{Code: "MC-FAULT-IDENTITY", Component: "system", Severity: fleet.Critical})
		return nil
	}))
	report, err := json.Marshal(reports.Of(reports.Options{Hours: 1, Buckets: 2}))
	must(t, err)
	w.burnedIn(w.enrol("n2"), report)
	id := fleet.LeaseID("01940000-0000-7000-8000-00000000001e")
	_, err = w.Store.Commit(t.Context(), fleet.Change{
		Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindLease, id), Value: fleet.Lease{ID: id, State: fleet.LeaseActive, CreatedAt: began, Since: began.Add(90 * time.Second)}}},
		Events: []fleet.Event{{Type: "lease.state", Lease: id, At: began}}})
	must(t, err)
	doc, err := os.ReadFile("../../docs/operate/metrics.md")
	must(t, err)
	var want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(metalctl_[a-z_]+)`").FindAllSubmatch(doc, -1) {
		want = append(want, string(m[1]))
	}
	slices.Sort(want)
	deadline := time.Now().Add(patience)
	for {
		_, _, body := w.raw(http.MethodGet, "/metrics", "", nil)
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (metalctl_[a-z_]+) `).FindAllSubmatch(body, -1) {
			got = append(got, string(m[1]))
		}
		slices.Sort(got)
		waited := regexp.MustCompile(`(?m)^metalctl_lease_wait_seconds_sum 90$`).Match(body)
		diff := cmp.Diff(got, want)
		if diff == "" && waited {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("docs/operate/metrics.md lists others (waited %v): %s", waited, diff)
		}
	}
}
