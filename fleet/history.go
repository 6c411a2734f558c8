package fleet

import (
	"encoding/json"
	"time"
)

// StateChange is the data of an event of type node.state.
type StateChange struct {
	From State  `json:"from"`
	To   State  `json:"to"`
	Verb Verb   `json:"verb"`
	By   string `json:"by"`
	Why  string `json:"why"`
}

// Stay is one time that a node was in a state.
type Stay struct {
	State State `json:"state"`
	// Since is zero where the event of its beginning is no longer kept, Until where it goes on.
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Seconds float64   `json:"seconds"`
	// Verb, By and Why are how the node came into the state; empty where that is no longer known.
	Verb Verb   `json:"verb,omitempty"`
	By   string `json:"by,omitempty"`
	Why  string `json:"why,omitempty"`
}

// StateTotal is how long and how often a node was in a state, as far as is known.
type StateTotal struct {
	State   State   `json:"state"`
	Times   int     `json:"times"`
	Seconds float64 `json:"seconds"`
}

// Stays derives from a node's events, oldest first, in which states it was. What came before the oldest event that is kept is not made up.
func Stays(n Node, events []Event, now time.Time) []Stay {
	var out []Stay
	begin := func(s Stay) {
		if last := len(out) - 1; last >= 0 {
			out[last].Until = s.Since
		}
		out = append(out, s)
	}
	for _, e := range events {
		var c StateChange
		if e.Type != "node.state" || json.Unmarshal(e.Data, &c) != nil || c.To == "" {
			continue
		}
		if len(out) == 0 {
			first := Stay{State: c.From}
			if c.From == Enrolled && c.Verb == VerbInspect && !n.CreatedAt.IsZero() && len(events) > 0 && !events[0].At.After(n.CreatedAt.Add(time.Second)) {
				first.Since = n.CreatedAt
			}
			begin(first)
		}
		begin(Stay{State: c.To, Since: e.At, Verb: c.Verb, By: c.By, Why: c.Why})
	}
	if len(out) == 0 {
		begin(Stay{State: n.State, Since: n.StateSince})
	}
	for i := range out {
		s := &out[i]
		end := s.Until
		if i == len(out)-1 {
			end = now
		}
		if !s.Since.IsZero() && end.After(s.Since) {
			s.Seconds = end.Sub(s.Since).Seconds()
		}
	}
	return out
}

// Totals adds stays up per state, in the order of the lifecycle's table.
func Totals(stays []Stay) []StateTotal {
	var out []StateTotal
	for _, state := range States() {
		t := StateTotal{State: state}
		for _, s := range stays {
			if s.State == state {
				t.Times++
				t.Seconds += s.Seconds
			}
		}
		if t.Times > 0 {
			out = append(out, t)
		}
	}
	return out
}
