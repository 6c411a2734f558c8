package api

import (
	"context"
	"net/http"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// LoadStopCreate is the body of POST power:abort. Exactly one of All and Selector says whose load ends.
type LoadStopCreate struct {
	All bool `json:"all,omitempty"`
	// Selector covers the nodes with these labels: "rack=r7,row=2".
	Selector string `json:"selector,omitempty"`
	Reason   string `json:"reason"`
	// Input is the file that a building raised, where the server itself asks.
	Input string `json:"-"`
}

// LoadResume is the body of POST power:resume. Exactly one of All and ID says which stop ends.
type LoadResume struct {
	All    bool             `json:"all,omitempty"`
	ID     fleet.LoadStopID `json:"id,omitempty"`
	Reason string           `json:"reason"`
}

// BudgetDrawn is a budget and what is drawn from it, as far as the store knows.
type BudgetDrawn struct {
	// Budget is its label and value: "rack=r1".
	Budget     string `json:"budget"`
	Watts      int64  `json:"watts"`
	DrawnWatts int64  `json:"drawn_watts"`
	// Nodes is how many draw from it.
	Nodes int `json:"nodes"`
}

// PowerWaiting is a node whose next step has to wait for power.
type PowerWaiting struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
	Text  string    `json:"text"`
}

// PowerStatus is the answer of GET power and of what changes it.
type PowerStatus struct {
	Budgets []BudgetDrawn `json:"budgets"`
	// Waiting are the nodes that wait for power, those first that have waited longest.
	Waiting []PowerWaiting   `json:"waiting"`
	Stops   []fleet.LoadStop `json:"load_stops"`
}

// PowerStatus says what of each budget is drawn, who waits and which load is stopped.
func (c *Client) PowerStatus(ctx context.Context) (PowerStatus, error) {
	var out PowerStatus
	return out, c.get(ctx, Base+"/power", nil, &out)
}

// StopLoad ends the load of burn-ins for what it names, until ResumeLoad.
func (c *Client) StopLoad(ctx context.Context, r LoadStopCreate) (fleet.LoadStop, error) {
	var out fleet.LoadStop
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/power:abort", body: r}, &out)
	return out, err
}

// ResumeLoad ends stops of load, and says how things stand then.
func (c *Client) ResumeLoad(ctx context.Context, r LoadResume) (PowerStatus, error) {
	var out PowerStatus
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/power:resume", body: r}, &out)
	return out, err
}
