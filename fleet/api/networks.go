package api

import (
	"context"
	"net/http"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Fabric is an InfiniBand fabric, with what was read of it last.
type Fabric struct {
	fleet.Fabric
	Revision fleet.Revision `json:"revision"`
	Reading
	// Keys is how many of its partition keys are used, Resting how many wait until they may be used again.
	Keys    int                `json:"keys"`
	Resting []fleet.RestingTag `json:"resting,omitempty"`
}

// Reading is what was read of a fabric or switch last.
type Reading struct {
	// State is "trusted", or what keeps nodes from being handed out: "unread", "stopped", or "unbound" where this server has no driver for it.
	State string `json:"state"`
	// Why says in words why it is not trusted.
	Why      string              `json:"why,omitempty"`
	ReadAt   time.Time           `json:"read_at,omitzero"`
	Ports    []fleet.PortView    `json:"ports,omitempty"`
	Findings []fleet.WireFinding `json:"findings,omitempty"`
}

// Switch is an Ethernet switch, with what was read of it last.
type Switch struct {
	fleet.Switch
	Revision fleet.Revision `json:"revision"`
	Reading
	// VLANs is how many of its domain's are used, Resting how many wait until they may be used again.
	VLANs   int                `json:"vlans"`
	Resting []fleet.RestingTag `json:"resting,omitempty"`
}

// Network is a network with the nodes that are in it.
type Network struct {
	fleet.Network
	Revision fleet.Revision `json:"revision"`
	// Nodes are the names of those whose ports are in it, or may still be.
	Nodes []string `json:"nodes"`
	// Given are the addresses of its subnets that members of leases have.
	Given []fleet.GivenAddress `json:"given,omitempty"`
}

// States of a fabric or switch.
const (
	FabricTrusted = "trusted"
	FabricStopped = "stopped"
	FabricUnread  = "unread"
	FabricUnbound = "unbound"
)

// Partition is a tenants' partition with the nodes that are in it.
type Partition struct {
	fleet.TenantPartition
	Revision fleet.Revision `json:"revision"`
	// Nodes are the names of those whose ports are in it, or may still be.
	Nodes []string `json:"nodes"`
}

// NetworkPlan is what would be written so that every port carries what it shall, and who reaches whom by it.
type NetworkPlan struct {
	// Digest names exactly this plan; with no changes it is "".
	Digest  string       `json:"digest"`
	Devices []DevicePlan `json:"devices"`
	// Gained and Lost are pairs of ports that could exchange a packet only afterwards, or only before.
	Gained []string `json:"gained"`
	Lost   []string `json:"lost"`
	// Notes are ports that no plan is made for, and why.
	Notes []string `json:"notes,omitempty"`
}

// DevicePlan is what would be written to one fabric.
type DevicePlan struct {
	Device  string             `json:"device"`
	Changes []fleet.WireChange `json:"changes"`
	// Refused says why nothing would be written although ports differ.
	Refused string `json:"refused,omitempty"`
}

// NetworkVerdict is who is where, as just read of every fabric.
type NetworkVerdict struct {
	// Proven: every port that was read carries what it shall, and nobody reaches whom they must not.
	Proven bool `json:"proven"`
	// Meetings are those who can exchange a packet and must not.
	Meetings []string `json:"meetings"`
	// Doubts are ports of which nothing is proven, and findings of fabrics.
	Doubts []string          `json:"doubts"`
	Nodes  []fleet.NodeWires `json:"nodes"`
}

// NetworkApply is the body of POST network/apply.
type NetworkApply struct {
	Digest string `json:"digest"`
}

// Fabrics lists fabrics by name.
func (c *Client) Fabrics(ctx context.Context) ([]Fabric, error) {
	l, err := list[Fabric](ctx, c, Base+"/fabrics", ListOptions{})
	return l.Items, err
}

// Fabric reads one fabric, its ports included.
func (c *Client) Fabric(ctx context.Context, name string) (Fabric, error) {
	var f Fabric
	return f, c.get(ctx, itemPath("fabrics", name), nil, &f)
}

// PutFabric creates or replaces a fabric.
func (c *Client) PutFabric(ctx context.Context, f fleet.Fabric) (Fabric, error) {
	var out Fabric
	_, err := c.do(ctx, request{method: http.MethodPut, path: itemPath("fabrics", f.Name), body: f}, &out)
	return out, err
}

// RemoveFabric drops a fabric that nothing uses; the devices are not touched.
func (c *Client) RemoveFabric(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("fabrics", name)}, nil)
	return err
}

// AdoptFabric takes a fabric's partition file over.
func (c *Client) AdoptFabric(ctx context.Context, name string) (Fabric, error) {
	var out Fabric
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("fabrics", name, "adopt"), extra: wiresTime}, &out)
	return out, err
}

// VerifyFabric reads a fabric now.
func (c *Client) VerifyFabric(ctx context.Context, name string) (Fabric, error) {
	var out Fabric
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("fabrics", name, "verify"), extra: wiresTime}, &out)
	return out, err
}

// wiresTime is how much longer than others a request may take that reads or writes switches and fabrics.
const wiresTime = 3 * time.Minute

// Partitions lists partitions by name.
func (c *Client) Partitions(ctx context.Context) ([]Partition, error) {
	l, err := list[Partition](ctx, c, Base+"/partitions", ListOptions{})
	return l.Items, err
}

// Partition reads one partition.
func (c *Client) Partition(ctx context.Context, name string) (Partition, error) {
	var p Partition
	return p, c.get(ctx, itemPath("partitions", name), nil, &p)
}

// CreatePartition makes a partition; a key that is 0 is chosen.
func (c *Client) CreatePartition(ctx context.Context, p fleet.TenantPartition) (Partition, error) {
	var out Partition
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/partitions", body: p}, &out)
	return out, err
}

// RemovePartition drops a partition that no node is in.
func (c *Client) RemovePartition(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("partitions", name)}, nil)
	return err
}

// NetworkPlan reads every fabric and says what differs from what it shall be; it writes nothing.
func (c *Client) NetworkPlan(ctx context.Context) (NetworkPlan, error) {
	var p NetworkPlan
	_, err := c.do(ctx, request{method: http.MethodGet, path: Base + "/network/plan", extra: wiresTime}, &p)
	return p, err
}

// ApplyNetwork does the plan with that digest, or nothing.
func (c *Client) ApplyNetwork(ctx context.Context, digest string) (NetworkVerdict, error) {
	var v NetworkVerdict
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/network/apply", body: NetworkApply{Digest: digest}, extra: wiresTime}, &v)
	return v, err
}

// VerifyNetwork reads every fabric and says who is where.
func (c *Client) VerifyNetwork(ctx context.Context) (NetworkVerdict, error) {
	var v NetworkVerdict
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/network/verify", extra: wiresTime}, &v)
	return v, err
}
