package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// ListOptions choose and page a collection; zero fields choose everything.
type ListOptions struct {
	// Limit is the size of a page; 0 follows all pages.
	Limit    int
	Continue string
	// State and Class filter nodes; State also leases and operations.
	State, Class string
	// Selector filters nodes by labels: "rack=r1,gpu!=none,spare".
	Selector string
	// Node filters operations and leases by a node's id or name.
	Node string
	// Sort is "name" (default), "state", "class" or "created"; a "-" before it turns the order round.
	Sort string
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	for k, v := range map[string]string{"continue": o.Continue, "state": o.State, "class": o.Class, "selector": o.Selector, "node": o.Node, "sort": o.Sort} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return q
}

// list reads one page, or all where no limit was given.
func list[T any](ctx context.Context, c *Client, path string, o ListOptions) (List[T], error) {
	var all List[T]
	for {
		var page List[T]
		if err := c.get(ctx, path, o.query(), &page); err != nil {
			return List[T]{}, err
		}
		page.Items = append(all.Items, page.Items...)
		all = page
		if o.Limit > 0 || page.Continue == "" {
			return all, nil
		}
		o.Continue = page.Continue
	}
}

func nodePath(idOrName string, rest ...string) string { return itemPath("nodes", idOrName, rest...) }

func itemPath(collection, id string, rest ...string) string {
	p := Base + "/" + collection + "/" + url.PathEscape(id)
	for _, r := range rest {
		p += "/" + r
	}
	return p
}

// Nodes lists nodes.
func (c *Client) Nodes(ctx context.Context, o ListOptions) (List[Node], error) {
	return list[Node](ctx, c, Base+"/nodes", o)
}

// Node reads one node.
func (c *Client) Node(ctx context.Context, idOrName string) (Node, error) {
	var n Node
	return n, c.get(ctx, nodePath(idOrName), nil, &n)
}

// CreateNode enrols a node: the server opens its BMC with reads only. It can take a minute.
func (c *Client) CreateNode(ctx context.Context, n NodeCreate, idempotencyKey string) (NodeCreated, error) {
	var out NodeCreated
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/nodes", body: n, key: idempotencyKey, extra: 2 * time.Minute}, &out)
	return out, err
}

// PatchNode changes settings. At ifMatch other than 0 it is refused with MC-API-STALE where the node has changed since that revision.
// With another address or trust the server opens the BMC first, which can take a minute.
func (c *Client) PatchNode(ctx context.Context, idOrName string, p NodePatch, ifMatch fleet.Revision) (Node, error) {
	var n Node
	r := request{method: http.MethodPatch, path: nodePath(idOrName), body: p, ifMatch: ifMatch}
	if p.TLS != nil || p.Address != nil {
		r.extra = 2 * time.Minute
	}
	_, err := c.do(ctx, r, &n)
	return n, err
}

// ForgetNode drops the record; nothing is touched.
func (c *Client) ForgetNode(ctx context.Context, idOrName string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: nodePath(idOrName)}, nil)
	return err
}

// NodeVerb asks a verb of the node. The operation is "" for verbs that start nothing.
func (c *Client) NodeVerb(ctx context.Context, idOrName, verb string, v NodeVerb) (fleet.OperationID, error) {
	var out VerbAccepted
	_, err := c.do(ctx, request{method: http.MethodPost, path: nodePath(idOrName, url.PathEscape(verb)), body: v}, &out)
	return out.Operation, err
}

// Inventory reads the newest inventory.
func (c *Client) Inventory(ctx context.Context, idOrName string) (fleet.Inventory, error) {
	var inv fleet.Inventory
	return inv, c.get(ctx, nodePath(idOrName, "inventory"), nil, &inv)
}

// Baseboard reads what the BMC showed of the GPU baseboard at the newest inspection.
func (c *Client) Baseboard(ctx context.Context, idOrName string) (fleet.Baseboard, error) {
	var b fleet.Baseboard
	return b, c.get(ctx, nodePath(idOrName, "baseboard"), nil, &b)
}

// Cleaning reads the record of the newest cleaning, or of the one after a lease.
func (c *Client) Cleaning(ctx context.Context, idOrName, lease string) (fleet.CleaningRecord, error) {
	v := url.Values{}
	if lease != "" {
		v.Set("lease", lease)
	}
	var rec fleet.CleaningRecord
	return rec, c.get(ctx, nodePath(idOrName, "cleaning"), v, &rec)
}

// NodePlan shows what would run, without side effects.
func (c *Client) NodePlan(ctx context.Context, idOrName string, q PlanQuery) (Plan, error) {
	v := url.Values{"use": {q.Use}, "device": q.Devices}
	if q.OutOfBand {
		v.Set("out_of_band", "true")
	}
	if q.AllowReboot {
		v.Set("allow_reboot", "true")
	}
	if q.Image != "" {
		v.Set("image", q.Image)
	}
	if q.Profile != "" {
		v.Set("profile", q.Profile)
	}
	var p Plan
	return p, c.get(ctx, nodePath(idOrName, "plan"), v, &p)
}

// Power reads the power state from the BMC.
func (c *Client) Power(ctx context.Context, idOrName string) (Power, error) {
	var p Power
	return p, c.get(ctx, nodePath(idOrName, "power"), nil, &p)
}

// SetPower does action (on, off, cycle, shutdown) and returns the state that was read back.
func (c *Client) SetPower(ctx context.Context, idOrName, action string) (Power, error) {
	var p Power
	_, err := c.do(ctx, request{method: http.MethodPost, path: nodePath(idOrName, "power"), body: Power{Action: action}, extra: 5 * time.Minute}, &p)
	return p, err
}
