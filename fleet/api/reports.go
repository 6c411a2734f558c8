package api

import (
	"context"
	"net/url"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// ReportHead is what a list of burn-ins says of each.
type ReportHead struct {
	// ID is the operation's, and the report's.
	ID      fleet.OperationID `json:"id"`
	Node    string            `json:"node"`
	Profile string            `json:"profile"`
	Class   string            `json:"class,omitempty"`
	BeganAt time.Time         `json:"began_at"`
	EndedAt time.Time         `json:"ended_at"`
	// Finished is false where it still runs, or was stopped: then Stopped says why.
	Finished bool          `json:"finished"`
	Stopped  string        `json:"stopped,omitempty"`
	Verdict  fleet.Outcome `json:"verdict"`
	Headline string        `json:"headline"`
	Fixture  string        `json:"fixture,omitempty"`
}

// Reports lists a node's burn-ins, newest first.
func (c *Client) Reports(ctx context.Context, idOrName string, o ListOptions) (List[ReportHead], error) {
	return list[ReportHead](ctx, c, nodePath(idOrName, "reports"), o)
}

// Report reads the report of a burn-in.
func (c *Client) Report(ctx context.Context, id fleet.OperationID) (fleet.BurnReport, error) {
	var r fleet.BurnReport
	return r, c.get(ctx, itemPath("reports", string(id)), url.Values{}, &r)
}
