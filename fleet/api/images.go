package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/metalctl/metalctl/fleet"
)

// Images lists images by name.
func (c *Client) Images(ctx context.Context) ([]fleet.Image, error) {
	l, err := list[fleet.Image](ctx, c, Base+"/images", ListOptions{})
	return l.Items, err
}

// Image reads one image.
func (c *Client) Image(ctx context.Context, name string) (fleet.Image, error) {
	var i fleet.Image
	return i, c.get(ctx, itemPath("images", name), nil, &i)
}

// AddImage records an image. With no URL its bytes are expected by UploadImage next.
func (c *Client) AddImage(ctx context.Context, i ImageCreate) (fleet.Image, error) {
	var out fleet.Image
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/images", body: i}, &out)
	return out, err
}

// UploadImage streams the bytes of an image that AddImage named; the server refuses them where digest or size differ. progress, unless nil, is
// called with the bytes sent so far.
func (c *Client) UploadImage(ctx context.Context, name string, r io.Reader, progress func(sent int64)) (fleet.Image, error) {
	req := request{method: http.MethodPut, path: itemPath("images", name, "content")}
	res, err := c.send(ctx, req, &countingReader{r: r, progress: progress}, "application/octet-stream")
	if err != nil {
		return fleet.Image{}, err
	}
	defer res.Body.Close()
	var out fleet.Image
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return fleet.Image{}, c.transportError(ctx, req, err)
	}
	return out, nil
}

type countingReader struct {
	r        io.Reader
	sent     int64
	progress func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sent += int64(n)
	if c.progress != nil && n > 0 {
		c.progress(c.sent)
	}
	return n, err
}

// VerifyImage reads the whole image again, from the server's disk or its origin, and compares its digest. It is bounded by ctx alone.
func (c *Client) VerifyImage(ctx context.Context, name string) (ImageVerified, error) {
	req := request{method: http.MethodPost, path: itemPath("images", name, "verify")}
	res, err := c.send(ctx, req, nil, "")
	if err != nil {
		return ImageVerified{}, err
	}
	defer res.Body.Close()
	var out ImageVerified
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return ImageVerified{}, c.transportError(ctx, req, err)
	}
	return out, nil
}

// RemoveImage drops the record and, where the server holds it, the file.
func (c *Client) RemoveImage(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("images", name)}, nil)
	return err
}

// Classes lists classes by name.
func (c *Client) Classes(ctx context.Context) ([]fleet.Class, error) {
	l, err := list[fleet.Class](ctx, c, Base+"/classes", ListOptions{})
	return l.Items, err
}

// Class reads one class.
func (c *Client) Class(ctx context.Context, name string) (fleet.Class, error) {
	var out fleet.Class
	return out, c.get(ctx, itemPath("classes", name), nil, &out)
}

// PutClass creates or replaces a class.
func (c *Client) PutClass(ctx context.Context, cl fleet.Class) (fleet.Class, error) {
	var out fleet.Class
	_, err := c.do(ctx, request{method: http.MethodPut, path: itemPath("classes", cl.Name), body: cl}, &out)
	return out, err
}

// RemoveClass drops a class that no node names.
func (c *Client) RemoveClass(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: itemPath("classes", name)}, nil)
	return err
}

// Site reads the site's settings.
func (c *Client) Site(ctx context.Context) (fleet.Site, error) {
	var s fleet.Site
	return s, c.get(ctx, Base+"/site", nil, &s)
}

// PutSite replaces the site's settings.
func (c *Client) PutSite(ctx context.Context, s fleet.Site) (fleet.Site, error) {
	var out fleet.Site
	_, err := c.do(ctx, request{method: http.MethodPut, path: Base + "/site", body: s}, &out)
	return out, err
}

// Capabilities reads what the server is and can do.
func (c *Client) Capabilities(ctx context.Context) (Capabilities, error) {
	var out Capabilities
	return out, c.get(ctx, Base+"/capabilities", nil, &out)
}
