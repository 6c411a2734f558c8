package api

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
)

// Ramdisk is a boot medium as the API shows it.
type Ramdisk struct {
	fleet.Ramdisk
	// Name is the first digits of its digest.
	Name string `json:"name"`
	// Roles say who boots it: "current", "previous" or "canary" of a class or of all others, and "pinned" by a class.
	Roles []RamdiskRole `json:"roles"`
	// Nodes is how many nodes were booted with it last.
	Nodes int `json:"nodes"`
}

// RamdiskRole is what a ramdisk is to a class.
type RamdiskRole struct {
	Role string `json:"role"`
	// Class is "" for all nodes whose class has no rollout of its own.
	Class  string        `json:"class,omitempty"`
	Canary *fleet.Canary `json:"canary,omitempty"`
}

// RamdiskCanary is the body of POST ramdisks/{id}/canary: some nodes boot it before the others do. At most one of Count, Percent and Nodes; without, one node.
type RamdiskCanary struct {
	// Class is whose nodes; "" for all whose class has no rollout of its own.
	Class   string   `json:"class,omitempty"`
	Count   int      `json:"count,omitempty" minimum:"0" maximum:"256"`
	Percent int      `json:"percent,omitempty" minimum:"0" maximum:"100"`
	Nodes   []string `json:"nodes,omitempty"`
	// StopAfter failures end it by itself; 0 means 2. AutoAfter plans that ended well, with no failure before, promote it by themselves; 0: never.
	StopAfter int `json:"stop_after,omitempty" minimum:"0"`
	AutoAfter int `json:"auto_after,omitempty" minimum:"0"`
}

// RamdiskPromote is the body of POST ramdisks/{id}/promote and of POST ramdisks:rollback.
type RamdiskPromote struct {
	Class string `json:"class,omitempty"`
}

// Ramdisks lists the boot media, newest first.
func (c *Client) Ramdisks(ctx context.Context) ([]Ramdisk, error) {
	l, err := list[Ramdisk](ctx, c, Base+"/ramdisks", ListOptions{})
	return l.Items, err
}

// Ramdisk reads one by its digest, the digits that begin it, or its program's version.
func (c *Client) Ramdisk(ctx context.Context, ref string) (Ramdisk, error) {
	var r Ramdisk
	return r, c.get(ctx, itemPath("ramdisks", ref), nil, &r)
}

// CanaryRamdisk lets some nodes boot a ramdisk before the others do.
func (c *Client) CanaryRamdisk(ctx context.Context, ref string, in RamdiskCanary) (fleet.Rollout, error) {
	var out fleet.Rollout
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("ramdisks", ref, "canary"), body: in}, &out)
	return out, err
}

// PromoteRamdisk makes a ramdisk what the nodes of a class boot from now on.
func (c *Client) PromoteRamdisk(ctx context.Context, ref string, in RamdiskPromote) (fleet.Rollout, error) {
	var out fleet.Rollout
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("ramdisks", ref, "promote"), body: in}, &out)
	return out, err
}

// RollbackRamdisk ends a canary, or where there is none goes back to the ramdisk before.
func (c *Client) RollbackRamdisk(ctx context.Context, in RamdiskPromote) (fleet.Rollout, error) {
	var out fleet.Rollout
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/ramdisks:rollback", body: in}, &out)
	return out, err
}
