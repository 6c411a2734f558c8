package server

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// newDurations is how long steps took. Buckets reach from a BMC's answer to the erasing of a large disk.
func newDurations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "metalctl_operation_duration_seconds", Help: "How long the steps of operations that are over took, by what for, step and result.",
		Buckets: []float64{0.1, 1, 5, 15, 60, 300, 900, 3600, 14400},
	}, []string{"kind", "step", "result"})
}

// newBurnChecks counts what burn-ins came to.
func newBurnChecks() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "metalctl_burnin_checks_total", Help: "Checks of burn-ins that were judged, by what was looked at and what it came to."}, []string{"check", "outcome"})
}

// judged counts the checks of a burn-in that has come to its judgement.
func (s *Server) judged(ctx context.Context, op fleet.Operation) {
	i := slices.IndexFunc(op.Steps, func(r fleet.StepRun) bool { return r.Name == step.JudgeBurnIn && !r.FinishedAt.IsZero() })
	if i < 0 {
		return
	}
	rep, err := s.report(ctx, op)
	if err != nil {
		s.Log.Warn("a report cannot be counted", fleet.LogOperation, op.ID, "err", err)
		return
	}
	for _, c := range rep.Checks {
		s.burnChecks.WithLabelValues(c.ID, string(c.Outcome)).Inc()
	}
}

// newRedfishDurations is how long calls to BMCs took. What a BMC does in the background is not in it.
func newRedfishDurations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "metalctl_redfish_request_duration_seconds", Help: "How long calls to BMCs took, by vendor, what for, and status; code 0 is no answer.",
		Buckets: []float64{0.05, 0.2, 0.5, 1, 2, 5, 10, 30, 60},
	}, []string{"vendor", "op", "code"})
}

// ObserveRedfish takes how long a call to a BMC took; code is 0 where no answer came. op must be one of few.
func (s *Server) ObserveRedfish(vendor, op string, code int, took time.Duration) {
	s.redfish.WithLabelValues(vendor, op, strconv.Itoa(code)).Observe(took.Seconds())
}

// newLeaseWait is how long tenants waited for their leases.
func newLeaseWait() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "metalctl_lease_wait_seconds", Help: "How long leases took from their creation until enough of their nodes were ready.",
		Buckets: []float64{60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400},
	})
}

// waited takes how long a lease that has just become active was waited for. One that was extended in its grace time was not waited for.
func (s *Server) waited(ctx context.Context, id fleet.LeaseID, measured map[fleet.LeaseID]bool) {
	l, err := s.lease(ctx, string(id))
	if err == nil && l.State == fleet.LeaseActive && l.GraceEnds.IsZero() && !measured[id] {
		measured[id] = true
		s.leaseWait.Observe(l.Since.Sub(l.CreatedAt).Seconds())
	}
	if err == nil && l.State.Over() {
		delete(measured, id)
	}
}

// observe follows the events after that id and measures every operation that ends, until ctx ends; err is why that id is not known.
func (s *Server) observe(ctx context.Context, after int64, err error) error {
	measured, leases := map[fleet.NodeID]fleet.OperationID{}, map[fleet.LeaseID]bool{}
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
			if e.Type == "lease.state" && e.Lease != "" {
				s.waited(ctx, e.Lease, leases)
			}
		}
		switch {
		case err != nil && ctx.Err() == nil:
			// Metrics are worth no more than a try at the next commit; what is in between is not measured.
			s.Log.Warn("events cannot be followed for metrics", "err", err)
			if waitFor(ctx, time.Minute, nil) {
				after, err = s.Store.LastEvent(ctx)
			}
		case len(events) == 0:
			waitFor(ctx, 0, changed)
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
	s.judged(ctx, op)
	for _, st := range op.Steps {
		if !st.StartedAt.IsZero() && !st.FinishedAt.Before(st.StartedAt) {
			s.durations.WithLabelValues(op.Use, st.Name, string(st.State)).Observe(st.FinishedAt.Sub(st.StartedAt).Seconds())
		}
	}
}
