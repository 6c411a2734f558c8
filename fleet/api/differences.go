package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/topology"
)

// Differences says in which ways a node's newest inventory is not what it should be. What is wrong by itself goes with the class.
type Differences struct {
	Node string `json:"node"`
	// Against are what it was compared with: class, last, fleet, bmc.
	Against []string `json:"against"`
	Class   string   `json:"class,omitempty"`
	// InventoryAt is when the inventory was taken, LastAt the one before, zero where there is none.
	InventoryAt time.Time `json:"inventory_at"`
	LastAt      time.Time `json:"last_at,omitzero"`
	// Fellows is with how many nodes of its class it was compared.
	Fellows int `json:"fellows,omitempty"`
	// BoardAt is when the BMC showed its GPU baseboard, zero where it was not compared with, or shows none; BoardNow that it was asked for this.
	BoardAt  time.Time `json:"board_at,omitzero"`
	BoardNow bool      `json:"board_now,omitempty"`
	// NotCompared says what could not be compared, and why.
	NotCompared []string           `json:"not_compared,omitempty"`
	Differences []fleet.Difference `json:"differences"`
}

// Differences compares a node's newest inventory; no words mean all that is known.
func (c *Client) Differences(ctx context.Context, idOrName string, against ...string) (Differences, error) {
	return c.differences(ctx, request{method: http.MethodGet, path: nodePath(idOrName, "differences"), query: url.Values{"against": against}})
}

// DifferencesNow is Differences that asks the node's BMC for its baseboard now, which may take two minutes.
func (c *Client) DifferencesNow(ctx context.Context, idOrName string, against ...string) (Differences, error) {
	return c.differences(ctx, request{method: http.MethodGet, path: nodePath(idOrName, "differences"), query: url.Values{"against": against, "now": {"true"}}, extra: 2 * time.Minute})
}

func (c *Client) differences(ctx context.Context, r request) (Differences, error) {
	var d Differences
	_, err := c.do(ctx, r, &d)
	return d, err
}

// Topology reads what a node is made of, laid out to be drawn.
func (c *Client) Topology(ctx context.Context, idOrName string) (topology.Layout, error) {
	var l topology.Layout
	return l, c.get(ctx, nodePath(idOrName, "topology"), nil, &l)
}
