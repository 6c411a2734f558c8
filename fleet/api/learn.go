package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Learned is a class that was made of what a node is; nothing of it is stored.
type Learned struct {
	Node        string      `json:"node"`
	InventoryAt time.Time   `json:"inventory_at"`
	Class       fleet.Class `json:"class"`
	// Suspicions are what a person should look at before others are held to it; none of them blocks.
	Suspicions []fleet.Difference `json:"suspicions,omitempty"`
	// Unread is what nobody could read of the node, so that the class says nothing of it.
	Unread []fleet.Missing `json:"unread,omitempty"`
}

// LearnClass makes a class of what a node is. It is called name; "" keeps the name of the node's own class.
func (c *Client) LearnClass(ctx context.Context, idOrName, name string) (Learned, error) {
	var l Learned
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	_, err := c.do(ctx, request{method: http.MethodGet, path: nodePath(idOrName, "learned-class"), query: q}, &l)
	return l, err
}
