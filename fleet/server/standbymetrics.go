package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metalctl/metalctl/fleet/api"
)

// standbyCollector shows, when asked, how far the server that follows this one is behind. Where none is named there is nothing to show.
type standbyCollector struct {
	standby                          Standby
	connected, silent, lag, revision *prometheus.Desc
}

func newStandbyCollector(s Standby) *standbyCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("metalctl_standby_"+name, help, nil, nil)
	}
	return &standbyCollector{
		standby:   s,
		connected: desc("connected", "1 where the server that follows this one is in touch, 0 where it is not."),
		silent:    desc("silent_seconds", "How long nothing was heard of it; 0 while it is in touch."),
		lag:       desc("lag_seconds", "For how long it has not been where this server is."),
		revision:  desc("lag_revisions", "How many revisions it is behind."),
	}
}

func (c *standbyCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connected, c.silent, c.lag, c.revision} {
		ch <- d
	}
}

func (c *standbyCollector) Collect(ch chan<- prometheus.Metric) {
	var s api.Standby
	if c.standby.State(&s); s.Peer == "" {
		return
	}
	connected := 0.0
	if s.Connected {
		connected = 1
	}
	for d, v := range map[*prometheus.Desc]float64{c.connected: connected, c.silent: s.SilentSeconds, c.lag: s.LagSeconds, c.revision: float64(s.LagRevisions)} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
}
