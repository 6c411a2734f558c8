package server

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// fleetCollector counts what the store holds, when asked.
type fleetCollector struct {
	s                                                  *Server
	nodes, faults, inState, agents, ops, lease, frozen *prometheus.Desc
	budget, drawn, waiting, stopped                    *prometheus.Desc

	// Operations and leases are never dropped.
	runs   *tally[fleet.Operation, pair]
	leases *tally[fleet.Lease, string]
}

type pair [2]string

func newFleetCollector(s *Server) *fleetCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("metalctl_"+name, help, labels, nil)
	}
	return &fleetCollector{
		s:       s,
		nodes:   desc("nodes", "Nodes by state and class.", "state", "class"),
		faults:  desc("node_faults", "Faults of nodes by code and severity.", "code", "severity"),
		inState: desc("node_time_in_state_seconds", "The longest that a node is in its state by now.", "state"),
		agents:  desc("agents", "Agents that were heard of within the last minute."),
		ops:     desc("operations", "Operations by what for and state.", "kind", "state"),
		lease:   desc("leases", "Leases by state.", "state"),
		runs:    &tally[fleet.Operation, pair]{kind: fleet.KindOperation, label: func(o fleet.Operation) pair { return pair{o.Use, string(o.State)} }},
		leases:  &tally[fleet.Lease, string]{kind: fleet.KindLease, label: func(l fleet.Lease) string { return string(l.State) }},
		frozen:  desc("frozen", "Nodes that are frozen, by the source of their oldest freeze; 0 where nothing is.", "source"),
		budget:  desc("power_budget_watts", "What the nodes of a rack, row or feed may draw together.", "budget"),
		drawn:   desc("power_drawn_watts", "What they draw of it as far as the store knows.", "budget"),
		waiting: desc("power_waiting_nodes", "Nodes whose next step waits for power."),
		stopped: desc("load_stops", "Stops of load that are in force."),
	}
}

func (c *fleetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.nodes, c.faults, c.inState, c.agents, c.ops, c.lease, c.frozen, c.budget, c.drawn, c.waiting, c.stopped} {
		ch <- d
	}
}

func (c *fleetCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(c.s.ctx, 30*time.Second)
	defer cancel()
	nodes, faults := map[pair]float64{}, map[pair]float64{}
	longest := map[string]float64{}
	var ops map[pair]float64
	var leases map[string]float64
	var power api.PowerStatus
	up, frozen := 0.0, map[fleet.FreezeSource]float64{}
	err := c.s.Store.View(ctx, func(sn fleet.Snapshot) error {
		freezes, err := fleet.Freezes(sn)
		if err != nil {
			return err
		}
		if err := eachRecord(sn, fleet.KindNode, func(n fleet.Node, _ fleet.Revision) {
			if f := fleet.FrozenBy(n, freezes); f != nil {
				frozen[f.Source]++
			}
			nodes[pair{string(n.State), n.Class}]++
			for _, f := range n.Faults {
				faults[pair{f.Code, string(f.Severity)}]++
			}
			longest[string(n.State)] = max(longest[string(n.State)], c.s.Now().Sub(n.StateSince).Seconds())
			if ok, _ := c.s.Up(n.ID, n.Boot.Generation); ok {
				up++
			}
		}); err != nil {
			return err
		}
		if power, err = c.s.engine.Loads.PowerStatus(sn); err != nil {
			return err
		}
		if ops, err = c.runs.count(sn); err != nil {
			return err
		}
		leases, err = c.leases.count(sn)
		return err
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.nodes, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for k, v := range nodes {
		gauge(c.nodes, v, k[0], k[1])
	}
	for k, v := range faults {
		gauge(c.faults, v, k[0], k[1])
	}
	for k, v := range ops {
		gauge(c.ops, v, k[0], k[1])
	}
	for k, v := range longest {
		gauge(c.inState, v, k)
	}
	for k, v := range leases {
		gauge(c.lease, v, k)
	}
	for _, b := range power.Budgets {
		gauge(c.budget, float64(b.Watts), b.Budget)
		gauge(c.drawn, float64(b.DrawnWatts), b.Budget)
	}
	gauge(c.waiting, float64(len(power.Waiting)))
	gauge(c.stopped, float64(len(power.Stops)))
	gauge(c.agents, up)
	for _, source := range []fleet.FreezeSource{fleet.FrozenByPerson, fleet.FrozenByRestore, fleet.FrozenByCheck, fleet.FrozenByWitness} {
		gauge(c.frozen, frozen[source], string(source))
	}
}

func (s *Server) metricsHandler() http.Handler {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "metalctl_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": s.cfg.Version, "commit": s.cfg.Commit}})
	build.Set(1)
	// Registered once per server: a registry that was handed in holds others' metrics and maybe the Go runtime's already.
	all := []prometheus.Collector{newFleetCollector(s), s.durations, s.burnChecks, s.redfish, s.leaseWait, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
	if s.Backups != nil {
		all = append(all, newBackupCollector(s))
	}
	if s.Standby != nil {
		all = append(all, newStandbyCollector(s.Standby))
	}
	for _, c := range all {
		if err := s.Metrics.Register(c); err != nil {
			s.Log.Debug("metrics are registered already", "err", err)
		}
	}
	return promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{})
}

// healthz says that the process answers.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, api.Health{Status: "ok"})
}

// readyz says that the store can be read.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	if err := s.Store.View(ctx, func(fleet.Snapshot) error { return nil }); err != nil {
		s.refuse(w, r, fleet.Errorf(fleet.Unavailable, "MC-SERVER-NOT-READY", "the store cannot be read: %w", err).WithHint("metalctl server check"))
		return
	}
	answer(w, http.StatusOK, api.Health{Status: "ok"})
}
