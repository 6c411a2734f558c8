package server

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

type timelineIn struct {
	Item
	Since  string   `query:"since" maxLength:"50" doc:"only what happened after this time"`
	Source []string `query:"source,explode" maxItems:"20" doc:"only these sources: redfish, media, image, agent, step, state, serial, lease"`
	Limit  int      `query:"limit" minimum:"0" maximum:"10000" doc:"at most so many, the newest; 0 means 1000"`
}

// getTimeline answers in order of time: a call to a BMC is recorded when it ends, and stands where it began.
func (s *Server) getTimeline(ctx context.Context, in *timelineIn) (*plain[api.List[fleet.TimelineEntry]], error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	since, err := sinceParam(in.Since)
	if err != nil {
		return nil, err
	}
	limit := in.Limit
	if limit == 0 {
		limit = 1000
	}
	entries, err := s.Timeline.ReadTimeline(ctx, n.ID, since, 0)
	if err != nil {
		return nil, err
	}
	out := []fleet.TimelineEntry{}
	for _, e := range entries {
		if len(in.Source) == 0 || slices.Contains(in.Source, e.Source) {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b fleet.TimelineEntry) int { return a.At.Compare(b.At) })
	if extra := len(out) - limit; extra > 0 {
		out = out[extra:]
	}
	return &plain[api.List[fleet.TimelineEntry]]{api.List[fleet.TimelineEntry]{Items: out}}, nil
}
