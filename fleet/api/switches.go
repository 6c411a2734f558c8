package api

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
)

// Switches lists Ethernet switches by name.
func (c *Client) Switches(ctx context.Context) ([]Switch, error) {
	l, err := list[Switch](ctx, c, Base+"/switches", ListOptions{})
	return l.Items, err
}

// Switch reads one switch, its ports included.
func (c *Client) Switch(ctx context.Context, name string) (Switch, error) {
	var x Switch
	return x, c.get(ctx, itemPath("switches", name), nil, &x)
}

// PutSwitch creates or replaces a switch.
func (c *Client) PutSwitch(ctx context.Context, x fleet.Switch) (Switch, error) {
	var out Switch
	_, err := c.do(ctx, request{method: http.MethodPut, path: itemPath("switches", x.Name), body: x}, &out)
	return out, err
}

// RemoveSwitch drops a switch that no node is at; it is not touched.
func (c *Client) RemoveSwitch(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("switches", name)}, nil)
	return err
}

// AdoptSwitch takes a switch over; nothing is written.
func (c *Client) AdoptSwitch(ctx context.Context, name string) (Switch, error) {
	var out Switch
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("switches", name, "adopt"), extra: wiresTime}, &out)
	return out, err
}

// VerifySwitch reads a switch now.
func (c *Client) VerifySwitch(ctx context.Context, name string) (Switch, error) {
	var out Switch
	_, err := c.do(ctx, request{method: http.MethodPost, path: itemPath("switches", name, "verify"), extra: wiresTime}, &out)
	return out, err
}

// Networks lists networks by name.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	l, err := list[Network](ctx, c, Base+"/networks", ListOptions{})
	return l.Items, err
}

// Network reads one network.
func (c *Client) Network(ctx context.Context, name string) (Network, error) {
	var n Network
	return n, c.get(ctx, itemPath("networks", name), nil, &n)
}

// PutNetwork creates a network, with a VLAN of the domain's where it names none, or changes its subnets and MTU.
func (c *Client) PutNetwork(ctx context.Context, n fleet.Network) (Network, error) {
	var out Network
	_, err := c.do(ctx, request{method: http.MethodPut, path: itemPath("networks", n.Name), body: n}, &out)
	return out, err
}

// RemoveNetwork drops a network that no node is in.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("networks", name)}, nil)
	return err
}
