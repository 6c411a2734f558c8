package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// burnedIn gives a node a burn-in that is over, with that text as its report.
func (w *world) burnedIn(n fleet.Node, report []byte) fleet.OperationID {
	w.t.Helper()
	ctx := context.Background()
	digest, err := w.db.PutBlob(ctx, "report", bytes.NewReader(report))
	must(w.t, err)
	evidence, err := json.Marshal(map[string]string{"report": digest})
	must(w.t, err)
	began := time.Now().UTC().Add(-time.Minute)
	id, err := w.engine.operation(ctx, n.ID, string(step.Burn), []fleet.StepRun{{Name: step.JudgeBurnIn, State: fleet.StepFailed, StartedAt: began, FinishedAt: began.Add(time.Second), Evidence: evidence}})
	must(w.t, err)
	must(w.t, w.engine.finish(ctx, n.ID, fleet.OperationFailed))
	return id
}

// TestReportsAreCounted: what a burn-in came to is counted by check and outcome, once it is judged.
func TestReportsAreCounted(t *testing.T) {
	w := newWorld(t, nil)
	r := reports.Of(reports.Options{Hours: 1, Sick: reports.Silent, Buckets: 2})
	text, err := json.Marshal(r)
	must(t, err)
	w.burnedIn(w.enrol("n1"), text)
	deadline := time.Now().Add(patience)
	for {
		_, _, body := w.raw(http.MethodGet, "/metrics", "", nil)
		if bytes.Contains(body, []byte(`metalctl_burnin_checks_total{check="gpu-mismatches",outcome="fail"} 1`)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it was not counted:\n%s", body)
		}
	}
}

// TestReportsThatAreNone: what cannot be a report is refused, and says where it is wrong.
func TestReportsThatAreNone(t *testing.T) {
	w := newWorld(t, nil)
	good, err := json.Marshal(reports.Of(reports.Options{Hours: 1, Sick: reports.Hot, Buckets: 2}))
	must(t, err)
	for name, c := range map[string]struct{ text, want string }{
		"cut off":              {string(good[:len(good)/2]), "the document ends here"},
		"a verdict too good":   {strings.Replace(string(good), `"verdict":"fail"`, `"verdict":"pass"`, 1), "verdict"},
		"of another program":   {strings.Replace(string(good), `"version":1`, `"version":99`, 1), "newer than this program"},
		"something else whole": {`{"kind":"inventory"}`, "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			id := w.burnedIn(w.enrol("n-"+strings.ReplaceAll(name, " ", "-")), []byte(c.text))
			status, _, body := w.raw(http.MethodGet, "/api/v1/reports/"+string(id), "", nil)
			if status != http.StatusInternalServerError || !bytes.Contains(body, []byte("MC-STORE-BLOB")) || !bytes.Contains(body, []byte(c.want)) {
				t.Errorf("%d: %s", status, body)
			}
		})
	}
}
