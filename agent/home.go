package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Most lines that wait to be reported, and the most bytes of one.
const (
	maxLines = 4096
	maxLine  = 2048
)

// Home is the agent's own server, as steps, log and boot see it: they fetch from it and report to it. The zero value is ready: lines reported before
// registration wait, up to 4,096 of them.
type Home struct {
	mu      sync.Mutex
	client  *client      // guarded by mu: nil before registration
	clock   *clock       // guarded by mu
	waiting []api.Report // guarded by mu
	lines   int          // guarded by mu: lines in waiting
	lost    int          // guarded by mu: lines that found no room
}

func (h *Home) begin(c *client, clock *clock) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.client, h.clock = c, clock
}

// Client returns a client that trusts only the present server's key and shows the certificate of this boot, and that server's URL without a slash at its
// end. Before registration the error is of kind Unavailable.
func (h *Home) Client() (*http.Client, string, error) {
	client, base, _, err := h.at()
	return client, base, err
}

// at is Client, and the URLs of all servers with the present one's key.
func (h *Home) at() (client *http.Client, base string, servers []string, err error) {
	h.mu.Lock()
	c := h.client
	h.mu.Unlock()
	if c == nil {
		return nil, "", nil, fleet.Errorf(fleet.Unavailable, "", "the agent is not registered with a server yet")
	}
	p := c.server()
	for _, ref := range c.cfg.Credential.Servers {
		if ref.KeyPin == p.ref.KeyPin {
			servers = append(servers, strings.TrimRight(ref.URL, "/"))
		}
	}
	return p.http, strings.TrimRight(p.ref.URL, "/"), servers, nil
}

// Reach is how the present server is reached, for clients that bring their own transport.
type Reach struct {
	// URL is the server's, without a slash at its end.
	URL string
	// TLS proves the server to us and us to it.
	TLS *tls.Config
	// Proxy is nil where the boot network names none.
	Proxy func(*http.Request) (*url.URL, error)
	// Servers are the URLs of all servers of the credential that have the same key, this one among them: what TLS proves of one it proves of each.
	Servers []string
}

// Reach says how the present server is reached; its error is Client's.
func (h *Home) Reach() (Reach, error) {
	client, base, servers, err := h.at()
	if err != nil {
		return Reach{}, err
	}
	t, ok := client.Transport.(*http.Transport)
	if !ok {
		return Reach{}, fmt.Errorf("the server's transport is a %T", client.Transport)
	}
	return Reach{URL: base, TLS: t.TLSClientConfig.Clone(), Proxy: t.Proxy, Servers: servers}, nil
}

// Fetch reads a small document, of at most limit bytes, at a path of the own server. Server errors and a server that cannot be reached are of kind Unavailable.
func (h *Home) Fetch(ctx context.Context, path string, limit int64) ([]byte, error) {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return nil, fleet.Errorf(fleet.Invalid, "MC-AGENT-TASK", "%q is not a path on the agent's server", path)
	}
	client, base, err := h.Client()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch from the server: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fleet.Errorf(fleet.Unavailable, "MC-AGENT-FETCH", "fetch from the server: %w", plainURLError(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		kind := fleet.Broken
		if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
			kind = fleet.Unavailable
		}
		return nil, fleet.Errorf(kind, "MC-AGENT-FETCH", "fetch from the server: %w", readStatus(resp))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fleet.Errorf(fleet.Unavailable, "MC-AGENT-FETCH", "fetch from the server: %w", err)
	case int64(len(b)) > limit:
		return nil, fleet.Errorf(fleet.Invalid, "MC-AGENT-FETCH", "what the server sends has more than %d bytes", limit)
	}
	return b, nil
}

// Report sends lines to the server when it can be reached; it never blocks. kind is log, panic, stage or shutdown.
func (h *Home) Report(kind string, lines ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := time.Now()
	if h.clock != nil {
		at = h.clock.now()
	}
	for _, l := range lines {
		if len(l) > maxLine {
			l = l[:maxLine]
		}
		l = strings.ToValidUTF8(l, "?")
		if h.lines >= maxLines {
			h.lost++
			continue
		}
		if n := len(h.waiting); n > 0 && h.waiting[n-1].Kind == kind && len(h.waiting[n-1].Lines) < 128 {
			h.waiting[n-1].Lines = append(h.waiting[n-1].Lines, l)
		} else {
			h.waiting = append(h.waiting, api.Report{Kind: kind, At: at, Lines: []string{l}})
		}
		h.lines++
	}
}

// take returns the oldest report that waits and removes it.
func (h *Home) take() (api.Report, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		return api.Report{}, false
	}
	r := h.waiting[0]
	h.waiting = h.waiting[1:]
	h.lines -= len(r.Lines)
	if len(h.waiting) == 0 && h.lost > 0 {
		r.Lines = append(r.Lines, fmt.Sprintf("(%d lines were lost: the server could not be reached)", h.lost))
		h.lost = 0
	}
	return r, true
}

// putBack returns what could not be sent to the front.
func (h *Home) putBack(r api.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = append([]api.Report{r}, h.waiting...)
	h.lines += len(r.Lines)
}

func (h *Home) sendReports(ctx context.Context, c *client, cfg Config) error {
	tick := time.NewTicker(cfg.Pace.Progress)
	defer tick.Stop()
	pause := newBackoff(cfg.Pace)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		err := h.sendWaiting(ctx, c, cfg)
		switch {
		case err == nil:
			pause.reset()
		case isOver(err):
			return err
		default:
			// Not logged: the log itself may be what is being reported.
			if err := pause.wait(ctx); err != nil {
				return err
			}
		}
	}
}

func (h *Home) sendWaiting(ctx context.Context, c *client, cfg Config) error {
	for {
		r, ok := h.take()
		if !ok {
			return nil
		}
		_, err := c.member(ctx, cfg.Pace.Call, http.MethodPost, api.AgentReportPath, r, nil, 0)
		if code := statusOf(err); code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnprocessableEntity {
			continue // it will never be taken
		}
		if err != nil {
			h.putBack(r)
			return err
		}
	}
}

// flush sends what waits, for a last time and not for long.
func (h *Home) flush(ctx context.Context, c *client, cfg Config) {
	ctx, cancel := context.WithTimeout(ctx, min(cfg.Pace.Call, cfg.Pace.Farewell))
	defer cancel()
	h.Report("shutdown", "powering off")
	if err := h.sendWaiting(ctx, c, cfg); err != nil && !errors.Is(err, context.Canceled) {
		cfg.Log.Debug("the last report was not sent", "err", err)
	}
}

// Handler returns a slog handler that reports every record of next's level beside handing it on.
func (h *Home) Handler(next slog.Handler) slog.Handler { return &reporter{home: h, next: next} }
