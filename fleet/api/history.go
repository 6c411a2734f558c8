package api

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// History is what became of a node, as far as the event log is kept.
type History struct {
	Node string `json:"node"`
	// Complete: the log goes back to its very first event, so that nothing is missing.
	Complete bool               `json:"complete"`
	Stays    []fleet.Stay       `json:"stays"`
	Totals   []fleet.StateTotal `json:"totals"`
	// Events are the newest committed changes of the node, oldest first.
	Events []fleet.Event `json:"events"`
}

// History reads in which states the node was, and its newest committed changes; limit bounds these, 0 means the server's default.
func (c *Client) History(ctx context.Context, idOrName string, limit int) (History, error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var h History
	return h, c.get(ctx, nodePath(idOrName, "history"), q, &h)
}

// TimelineQuery chooses entries of a timeline; zero fields choose everything.
type TimelineQuery struct {
	Since time.Time
	// Sources are those that are wanted; none means all.
	Sources []string
	// Limit is the most entries, the newest; 0 means the server's default.
	Limit int
}

// Timeline reads what happened around the node, oldest first.
func (c *Client) Timeline(ctx context.Context, idOrName string, t TimelineQuery) ([]fleet.TimelineEntry, error) {
	q := url.Values{"source": t.Sources}
	if !t.Since.IsZero() {
		q.Set("since", t.Since.UTC().Format(time.RFC3339Nano))
	}
	if t.Limit > 0 {
		q.Set("limit", strconv.Itoa(t.Limit))
	}
	var l List[fleet.TimelineEntry]
	err := c.get(ctx, nodePath(idOrName, "timeline"), q, &l)
	return l.Items, err
}
