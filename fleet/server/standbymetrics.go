package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metalctl/metalctl/fleet/api"
)

// standbyCollector shows, when asked, how far the server that follows this one is behind, and by what right this one acts. Where none is named, or no arbiter is
// configured, there is nothing to show.
type standbyCollector struct {
	standby                          Standby
	connected, silent, lag, revision *prometheus.Desc
	arbiter, term, promise, even     *prometheus.Desc
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
		arbiter:   desc("arbiter_reached", "1 where the arbiter answers, 0 where it does not."),
		term:      desc("term_seconds", "For how long this server has the arbiter's term; 0 where it has none."),
		promise:   desc("promise_seconds", "For how long the server that follows has promised to leave the term alone."),
		even:      desc("may_take_over", "1 where the arbiter would give the term to the server that follows if this one were gone."),
	}
}

func (c *standbyCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connected, c.silent, c.lag, c.revision, c.arbiter, c.term, c.promise, c.even} {
		ch <- d
	}
}

func (c *standbyCollector) Collect(ch chan<- prometheus.Metric) {
	var s api.Standby
	c.standby.State(&s)
	show := func(values map[*prometheus.Desc]float64) {
		for d, v := range values {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
		}
	}
	if s.Peer != "" {
		show(map[*prometheus.Desc]float64{c.connected: yes(s.Connected), c.silent: s.SilentSeconds, c.lag: s.LagSeconds, c.revision: float64(s.LagRevisions)})
	}
	if a := s.Arbiter; a != nil {
		show(map[*prometheus.Desc]float64{c.arbiter: yes(a.Reached), c.term: a.TermSeconds, c.promise: a.PromiseSeconds, c.even: yes(a.Reached && a.Even)})
	}
}

func yes(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
