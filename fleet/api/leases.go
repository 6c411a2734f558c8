package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Operations lists operations, newest first.
func (c *Client) Operations(ctx context.Context, o ListOptions) (List[Operation], error) {
	return list[Operation](ctx, c, Base+"/operations", o)
}

// Operation reads an operation; with wait it answers when the operation is over, or after that time with its present state.
func (c *Client) Operation(ctx context.Context, id fleet.OperationID, wait time.Duration) (Operation, error) {
	q := url.Values{}
	if wait > 0 {
		q.Set("wait", wait.String())
	}
	var op Operation
	_, err := c.do(ctx, request{method: http.MethodGet, path: itemPath("operations", string(id)), query: q, extra: wait}, &op)
	return op, err
}

// CancelOperation asks the running plan to abort; it acts where the running step allows it.
func (c *Client) CancelOperation(ctx context.Context, id fleet.OperationID, reason string) (Operation, error) {
	var op Operation
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("operations", string(id), "cancel"), body: OperationCancel{Reason: reason}}, &op)
	return op, err
}

// OperationCancel is the body of POST operations/{id}/cancel.
type OperationCancel struct {
	Reason string `json:"reason,omitempty"`
}

// Leases lists leases.
func (c *Client) Leases(ctx context.Context, o ListOptions) (List[Lease], error) {
	return list[Lease](ctx, c, Base+"/leases", o)
}

// Lease reads one lease by id or name.
func (c *Client) Lease(ctx context.Context, idOrName string) (Lease, error) {
	var l Lease
	return l, c.get(ctx, itemPath("leases", idOrName), nil, &l)
}

// CreateLease reserves and deploys nodes. The same idempotencyKey, unless "", gets the same lease for 24 hours.
func (c *Client) CreateLease(ctx context.Context, l LeaseCreate, idempotencyKey string) (Lease, error) {
	var out Lease
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/leases", body: l, key: idempotencyKey}, &out)
	return out, err
}

// ExtendLease moves the end of the lease.
func (c *Client) ExtendLease(ctx context.Context, idOrName string, until time.Time) (Lease, error) {
	var out Lease
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("leases", idOrName, "extend"), body: LeaseExtend{Until: until}}, &out)
	return out, err
}

// LeaseRelease is the body of POST leases/{id}/release; it may be left out.
type LeaseRelease struct {
	// Plan is the digest of a release that was shown: exactly that runs, or nothing.
	Plan string `json:"plan,omitempty"`
}

// LeasePlan is what the release of a lease would run.
type LeasePlan struct {
	Lease  fleet.LeaseID    `json:"lease"`
	Name   string           `json:"name,omitempty"`
	State  fleet.LeaseState `json:"state"`
	Digest string           `json:"digest"`
	// GraceSeconds is how long the disks stay untouched after the release; then they are erased.
	GraceSeconds int64 `json:"grace_seconds"`
	// Nodes are the lease's nodes with their plans; none where the lease is being released or over.
	Nodes []NodePlan `json:"nodes"`
}

// NodePlan is the plan of one node of several.
type NodePlan struct {
	Node string `json:"node"`
	Plan Plan   `json:"plan"`
}

// ReleasePlan says what the release of a lease would run, and changes nothing.
func (c *Client) ReleasePlan(ctx context.Context, idOrName string) (LeasePlan, error) {
	var p LeasePlan
	return p, c.get(ctx, itemPath("leases", idOrName, "plan"), nil, &p)
}

// ReleaseLeaseAs is ReleaseLease where the plan with that digest is what would run, and else changes nothing: MC-PLAN-DIGEST.
func (c *Client) ReleaseLeaseAs(ctx context.Context, idOrName, plan string) (Lease, error) {
	var out Lease
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("leases", idOrName, "release"), body: LeaseRelease{Plan: plan}}, &out)
	return out, err
}

// ReleaseLease ends the lease: its nodes are isolated, then cleaned. It is idempotent.
func (c *Client) ReleaseLease(ctx context.Context, idOrName string) (Lease, error) {
	var out Lease
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("leases", idOrName, "release")}, &out)
	return out, err
}

// PlanLease says which nodes such a lease would get and why, or why none, and takes nothing.
func (c *Client) PlanLease(ctx context.Context, l LeaseCreate) (fleet.Choice, error) {
	var out fleet.Choice
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/leases:plan", body: l}, &out)
	return out, err
}

// LeaseReplace is the body of POST leases/{id}/replace and leases/{id}/plan-replace.
type LeaseReplace struct {
	// Node is the one that goes; With is the one that comes, by name or id, "" where the server chooses.
	Node string `json:"node"`
	With string `json:"with,omitempty"`
	// KeepIdentity gives the one that comes the host name, the index and the instance id of the one that goes. It is deployed when that is separated from the lease.
	KeepIdentity bool `json:"keep_identity,omitempty"`
}

// LeaseSwap is what a replacement would do.
type LeaseSwap struct {
	Lease        fleet.LeaseID `json:"lease"`
	Out          string        `json:"out"`
	In           string        `json:"in"`
	Hostname     string        `json:"hostname"`
	KeepIdentity bool          `json:"keep_identity,omitempty"`
	Choice       fleet.Choice  `json:"choice"`
}

// ReplaceNode puts another node into the place of one of the lease's.
func (c *Client) ReplaceNode(ctx context.Context, idOrName string, r LeaseReplace) (Lease, error) {
	var out Lease
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("leases", idOrName, "replace"), body: r}, &out)
	return out, err
}

// PlanReplace says what ReplaceNode would do, and changes nothing.
func (c *Client) PlanReplace(ctx context.Context, idOrName string, r LeaseReplace) (LeaseSwap, error) {
	var out LeaseSwap
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("leases", idOrName, "plan-replace"), body: r}, &out)
	return out, err
}
