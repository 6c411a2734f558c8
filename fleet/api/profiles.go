package api

import (
	"context"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
)

// Profiles lists burn-in profiles: those that ship and the site's own.
func (c *Client) Profiles(ctx context.Context) ([]fleet.BurnProfile, error) {
	l, err := list[fleet.BurnProfile](ctx, c, Base+"/profiles", ListOptions{})
	return l.Items, err
}

// Profile reads one burn-in profile.
func (c *Client) Profile(ctx context.Context, name string) (fleet.BurnProfile, error) {
	var out fleet.BurnProfile
	return out, c.get(ctx, itemPath("profiles", name), nil, &out)
}

// PutProfile creates or replaces a burn-in profile of the site's own.
func (c *Client) PutProfile(ctx context.Context, p fleet.BurnProfile) (fleet.BurnProfile, error) {
	var out fleet.BurnProfile
	_, err := c.do(ctx, request{method: http.MethodPut, path: itemPath("profiles", p.Name), body: p}, &out)
	return out, err
}

// RemoveProfile drops a burn-in profile that no class names.
func (c *Client) RemoveProfile(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("profiles", name)}, nil)
	return err
}
