package api

import (
	"context"
	"net/http"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// FreezeCreate is the body of POST freeze. Exactly one of All, Site, Selector and Nodes says what is frozen.
type FreezeCreate struct {
	All bool `json:"all,omitempty"`
	// Site freezes the nodes whose label "site" it is.
	Site string `json:"site,omitempty"`
	// Selector freezes the nodes with these labels: "rack=r7,row=2".
	Selector string `json:"selector,omitempty"`
	// Nodes are names or ids.
	Nodes  []string `json:"nodes,omitempty"`
	Reason string   `json:"reason"`
}

// Thaw is the body of POST freeze:thaw. Exactly one of All, Freeze and Nodes says what is thawed.
type Thaw struct {
	// All ends every freeze, Freeze one of them.
	All    bool           `json:"all,omitempty"`
	Freeze fleet.FreezeID `json:"freeze,omitempty"`
	// Nodes are let out of every freeze that covers them; the freezes go on for the others.
	Nodes  []string `json:"nodes,omitempty"`
	Reason string   `json:"reason"`
}

// Frozen is what a node shows of the freeze that covers it.
type Frozen struct {
	Freeze fleet.FreezeID     `json:"freeze"`
	Reason string             `json:"reason"`
	By     string             `json:"by"`
	Since  time.Time          `json:"since"`
	Source fleet.FreezeSource `json:"source"`
}

// FreezeView is a freeze as the API shows it.
type FreezeView struct {
	fleet.Freeze
	// Covered is how many nodes it covers now.
	Covered int `json:"covered"`
}

// FreezeStatus is the answer of GET freeze and of what changes it.
type FreezeStatus struct {
	Freezes []FreezeView `json:"freezes"`
	// Frozen are the names of all nodes that are frozen now.
	Frozen []string `json:"frozen_nodes"`
	// Nodes is how many nodes there are.
	Nodes int `json:"nodes"`
}

// FreezeStatus says what is frozen.
func (c *Client) FreezeStatus(ctx context.Context) (FreezeStatus, error) {
	var out FreezeStatus
	return out, c.get(ctx, Base+"/freeze", nil, &out)
}

// Freeze stops every write to the outside for what it names.
func (c *Client) Freeze(ctx context.Context, f FreezeCreate) (FreezeView, error) {
	var out FreezeView
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/freeze", body: f}, &out)
	return out, err
}

// Thaw ends freezes, or lets nodes out of them, and says what is still frozen.
func (c *Client) Thaw(ctx context.Context, t Thaw) (FreezeStatus, error) {
	var out FreezeStatus
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/freeze:thaw", body: t}, &out)
	return out, err
}

// LeaseProtection makes a lease refuse its release (VerbProtect), or ends that (VerbUnprotect).
func (c *Client) LeaseProtection(ctx context.Context, idOrName, verb string) (Lease, error) {
	var out Lease
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("leases", idOrName, verb)}, &out)
	return out, err
}
