package reconcile

import (
	"context"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// maxLoadStops bounds how many stops of load there are at once.
const maxLoadStops = 32

// StopLoad ends the load of burn-ins for what r names, from its commit on, and over restarts. It returns the stop.
func (l *Loop) StopLoad(ctx context.Context, r api.LoadStopCreate, by string) (fleet.LoadStop, error) {
	x := fleet.LoadStop{ID: fleet.LoadStopID(l.NewID()), Reason: strings.TrimSpace(r.Reason), By: by, Input: r.Input, Since: l.Now().UTC()}
	if r.All == (r.Selector != "") {
		return x, invalidLoadStop("all", "or selector says whose load ends: exactly one of them")
	}
	if x.Reason == "" {
		return x, invalidLoadStop("reason", "is empty: a stop says why, for whoever finds it")
	}
	var err error
	if x.Labels, err = equalLabels(r.Selector); err != nil {
		return x, invalidLoadStop("selector", err.Error())
	}
	for try := 1; ; try++ {
		err := l.Store.View(ctx, func(s fleet.Snapshot) error {
			stops, err := fleet.LoadStops(s)
			if err != nil {
				return err
			}
			if len(stops) >= maxLoadStops {
				return invalidLoadStop("all", fmt.Sprintf("there are %d stops already: end one, or stop everything", len(stops)))
			}
			x.Nodes = nil
			if len(x.Labels) == 0 {
				return nil
			}
			nodes, err := fleet.List[fleet.Node](s, fleet.KindNode)
			for _, n := range nodes {
				if x.Covers(n) {
					x.Nodes = append(x.Nodes, n.ID)
				}
			}
			return err
		})
		if err != nil {
			return x, err
		}
		key := fleet.KeyOf(fleet.KindLoadStop, x.ID)
		_, err = l.Store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key}}, Writes: []fleet.Write{{Key: key, Value: x}},
			Events: []fleet.Event{{Type: "load.stopped", At: x.Since, Subject: key, Text: fmt.Sprintf("the load of %s stopped by %s: %s", x.What(), by, x.Reason)}}})
		if err == nil {
			l.Log.Warn("load stopped", "what", x.What(), "by", by, "reason", x.Reason)
			l.Bell()
			return x, nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return x, err
		}
	}
}

func invalidLoadStop(field, message string) error {
	e := fleet.Errorf(fleet.Invalid, "MC-POWER-INVALID", "this is no stop of load")
	e.Fields = []fleet.FieldError{{Field: field, Message: message}}
	return e.WithHint("metalctl burnin abort --all --reason TEXT, or --rack RACK, or -l LABEL=VALUE; metalctl burnin power shows what is stopped")
}

// ResumeLoad ends stops of load. What waited goes on by itself, as far as the budgets have room.
func (l *Loop) ResumeLoad(ctx context.Context, r api.LoadResume, by string) error {
	reason := strings.TrimSpace(r.Reason)
	if r.All == (r.ID != "") {
		return invalidLoadStop("id", "or all says which stop ends: exactly one of them")
	}
	if reason == "" {
		return invalidLoadStop("reason", "is empty: whoever lets load begin says why the reason to stop it is gone")
	}
	for try := 1; ; try++ {
		var c fleet.Change
		err := l.Store.View(ctx, func(s fleet.Snapshot) error {
			c = fleet.Change{}
			stops, err := fleet.LoadStops(s)
			if err != nil {
				return err
			}
			for _, x := range stops {
				if !r.All && x.ID != r.ID {
					continue
				}
				d, err := load[fleet.LoadStop](s, fleet.KeyOf(fleet.KindLoadStop, x.ID))
				if err != nil {
					return err
				}
				d.drop = true
				if err := d.put(&c); err != nil {
					return err
				}
				c.Events = append(c.Events, fleet.Event{Type: "load.resumed", At: l.Now().UTC(), Subject: d.key, Text: fmt.Sprintf("load of %s may begin again, says %s: %s", x.What(), by, reason)})
			}
			if !r.All && len(c.Writes) == 0 {
				return fleet.Errorf(fleet.NotFound, "MC-POWER-UNKNOWN", "there is no stop of load %q", cut(string(r.ID), 100)).WithHint("metalctl burnin power")
			}
			return nil
		})
		if err != nil || len(c.Writes) == 0 {
			return err
		}
		if _, err = l.Store.Commit(ctx, c); err == nil {
			for _, e := range c.Events {
				l.Log.Warn("load resumed", "text", e.Text)
			}
			l.Bell()
			return nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return err
		}
	}
}

// PowerStatus says what of each budget is drawn, which nodes wait for power, and which load is stopped.
func (l *Loop) PowerStatus(s fleet.Snapshot) (api.PowerStatus, error) {
	out := api.PowerStatus{Budgets: []api.BudgetDrawn{}, Waiting: []api.PowerWaiting{}, Stops: []fleet.LoadStop{}}
	stops, err := fleet.LoadStops(s)
	if err != nil {
		return out, err
	}
	out.Stops = append(out.Stops, stops...)
	var waiting []fleet.NodeID
	if out.Budgets, waiting, err = l.powerbook.status(s); err != nil {
		return out, err
	}
	for _, id := range waiting {
		v, err := l.read(s, id)
		if err != nil {
			return out, err
		}
		if w := v.lacksPower(); w != nil && !w.Stopped {
			out.Waiting = append(out.Waiting, api.PowerWaiting{Node: v.node.v.Name, Since: w.Since, Text: w.Text})
		}
	}
	return out, nil
}
