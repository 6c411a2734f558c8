package api

import (
	"context"
	"io"
	"net/http"
)

// Metrics reads at most so many bytes of the server's metrics, in Prometheus' text form.
func (c *Client) Metrics(ctx context.Context, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r := request{method: http.MethodGet, path: "/metrics"}
	res, err := c.send(ctx, r, nil, "")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return nil, c.transportError(ctx, r, err)
	}
	return b, nil
}
