package server

import (
	"bytes"
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

func TestMetrics(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	began := time.Now().UTC().Add(-time.Minute)
	_, err := w.engine.operation(ctx, n.ID, "clean", []fleet.StepRun{{Name: "erase-disks", State: fleet.StepFinished, StartedAt: began, FinishedAt: began.Add(42 * time.Second)}})
	must(t, err)
	must(t, w.engine.finish(ctx, n.ID, fleet.OperationDone))
	must(t, w.updateNode(ctx, n.ID, func(n *fleet.Node, _ *fleet.Change) error {
		n.RaiseFault(fleet.Fault{Code: "MC-FAULT-IDENTITY", Component: "system", Severity: fleet.Critical})
		return nil
	}))
	want := []string{
		`metalctl_nodes{class="",state="enrolled"} 1`,
		`metalctl_node_faults{code="MC-FAULT-IDENTITY",severity="critical"} 1`,
		`metalctl_operations{kind="clean",state="done"} 1`,
		`metalctl_operation_duration_seconds_sum{kind="clean",result="finished",step="erase-disks"} 42`,
		`metalctl_agents 0`,
		`go_goroutines `,
	}
	deadline := time.Now().Add(patience)
	for {
		_, _, body := w.raw(http.MethodGet, "/metrics", "", nil)
		missing := ""
		for _, line := range want {
			if !bytes.Contains(body, []byte(line)) {
				missing = line
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is missing:\n%s", missing, body)
		}
	}
}
