package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
)

// Packs lists packs by name.
func (c *Client) Packs(ctx context.Context) ([]fleet.Pack, error) {
	l, err := list[fleet.Pack](ctx, c, Base+"/packs", ListOptions{})
	return l.Items, err
}

// Pack reads one pack by NAME@VERSION or "sha256:" and its digest.
func (c *Client) Pack(ctx context.Context, ref string) (fleet.Pack, error) {
	var p fleet.Pack
	return p, c.get(ctx, itemPath("packs", ref), nil, &p)
}

// AddPack streams a pack to the server, which keeps it where a key that the site trusts signed it; id is NAME@VERSION. progress, unless nil, is called with
// the bytes sent so far.
func (c *Client) AddPack(ctx context.Context, id string, r io.Reader, progress func(sent int64)) (fleet.Pack, error) {
	req := request{method: http.MethodPut, path: itemPath("packs", id, "content")}
	res, err := c.send(ctx, req, &countingReader{r: r, progress: progress}, "application/octet-stream")
	if err != nil {
		return fleet.Pack{}, err
	}
	defer res.Body.Close()
	var out fleet.Pack
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return fleet.Pack{}, c.transportError(ctx, req, err)
	}
	return out, nil
}

// RemovePack drops a pack and its file.
func (c *Client) RemovePack(ctx context.Context, ref string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("packs", ref)}, nil)
	return err
}
