package server

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

type historyIn struct {
	Item
	Limit int `query:"limit" minimum:"0" maximum:"10000" doc:"at most so many events, the newest; 0 means 1000. Stays and totals are of all that are kept."`
}

// getHistory derives what became of the node from the events that are kept.
func (s *Server) getHistory(ctx context.Context, in *historyIn) (*plain[api.History], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	limit := in.Limit
	if limit == 0 {
		limit = 1000
	}
	after, some, err := s.oldestEvents(ctx, 1000)
	if err != nil {
		return nil, err
	}
	out := api.History{Node: n.Name, Complete: after == 0, Events: []fleet.Event{}}
	var changes []fleet.Event
	for len(some) > 0 {
		after = some[len(some)-1].ID
		for _, e := range some {
			if e.Node != n.ID {
				continue
			}
			out.Events = append(out.Events, e)
			if e.Type == "node.state" || len(changes) == 0 {
				changes = append(changes, e)
			}
		}
		if extra := len(out.Events) - limit; extra > 0 {
			out.Events = slices.Delete(out.Events, 0, extra)
		}
		if some, err = s.Store.Events(ctx, after, 1000); fleet.CodeOf(err) == "MC-EVENTS-GONE" { // dropped while these were read
			out.Complete = false
			_, some, err = s.oldestEvents(ctx, 1000)
		}
		if err != nil {
			return nil, err
		}
	}
	out.Stays = fleet.Stays(n, changes, s.Now().UTC())
	out.Totals = fleet.Totals(out.Stays)
	return &plain[api.History]{out}, nil
}

// oldestEvents returns the oldest events that are kept, and the id that they come after: those that others drop meanwhile are no failure.
func (s *Server) oldestEvents(ctx context.Context, limit int) (after int64, some []fleet.Event, err error) {
	for {
		if after, err = s.oldestEvent(ctx); err != nil {
			return 0, nil, err
		}
		if some, err = s.Store.Events(ctx, after, limit); fleet.CodeOf(err) != "MC-EVENTS-GONE" {
			return after, some, err
		}
	}
}

// oldestEvent returns what Events can be asked for to begin with the oldest that is kept.
func (s *Server) oldestEvent(ctx context.Context) (int64, error) {
	low, err := int64(0), error(nil)
	high, err := s.Store.LastEvent(ctx)
	if err != nil {
		return 0, err
	}
	for low < high { // the kept ones are a run that ends with high
		mid := low + (high-low)/2
		switch _, err := s.Store.Events(ctx, mid, 1); {
		case err == nil:
			high = mid
		case fleet.CodeOf(err) == "MC-EVENTS-GONE":
			low = mid + 1
		default:
			return 0, err
		}
	}
	return low, nil
}
