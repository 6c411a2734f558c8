package server

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metalctl/metalctl/fleet"
)

// newDurations is how long steps took. Buckets reach from a BMC's answer to the erasing of a large disk.
func newDurations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "metalctl_operation_duration_seconds", Help: "How long the steps of operations that are over took, by what for, step and result.",
		Buckets: []float64{0.1, 1, 5, 15, 60, 300, 900, 3600, 14400},
	}, []string{"kind", "step", "result"})
}

// observe follows the events and measures every operation that ends, until ctx ends.
func (s *Server) observe(ctx context.Context) error {
	after, err := s.Store.LastEvent(ctx)
	measured := map[fleet.NodeID]fleet.OperationID{}
	for ctx.Err() == nil {
		changed := s.Store.Changed()
		var events []fleet.Event
		if err == nil {
			events, err = s.Store.Events(ctx, after, 500)
		}
		for _, e := range events {
			after = e.ID
			if state, ok := strings.CutPrefix(e.Type, "operation."); ok && e.Node != "" && fleet.OperationState(state).Over() {
				s.measure(ctx, e.Node, measured)
			}
		}
		switch {
		case err != nil && ctx.Err() == nil:
			// Metrics are worth no more than a try at the next commit; what is in between is not measured.
			s.Log.Warn("events cannot be followed for metrics", "err", err)
			if waitFor(ctx, time.Minute, nil, nil) {
				after, err = s.Store.LastEvent(ctx)
			}
		case len(events) == 0:
			waitFor(ctx, 0, changed, nil)
		}
	}
	return nil
}

// measure takes the durations of the node's newest operation that is over, once.
func (s *Server) measure(ctx context.Context, id fleet.NodeID, measured map[fleet.NodeID]fleet.OperationID) {
	n, _, err := s.node(ctx, string(id))
	if err != nil || n.LastOperation == "" || measured[id] == n.LastOperation {
		return // the node was forgotten meanwhile, or this was measured
	}
	op, _, err := s.operation(ctx, string(n.LastOperation))
	if err != nil {
		return // pruned meanwhile
	}
	measured[id] = op.ID
	for _, st := range op.Steps {
		if !st.StartedAt.IsZero() && !st.FinishedAt.Before(st.StartedAt) {
			s.durations.WithLabelValues(op.Use, st.Name, string(st.State)).Observe(st.FinishedAt.Sub(st.StartedAt).Seconds())
		}
	}
}
