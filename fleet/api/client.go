package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Config says which server a Client talks to and how it knows that it is the right one.
type Config struct {
	// Server is the https URL of the server, without a path. Several stand with commas between them, in order: where one cannot be reached, or does not
	// act because another one does, the next is asked.
	Server string
	// Token is the bearer token.
	Token fleet.Secret
	// CACert is PEM of the authority that signed the server's certificate; nil means the system's.
	CACert []byte
	// Pin is the hash of the server's key (fleet.PinOf). With a pin the key alone is checked: not names and dates, and not CACert.
	Pin string
	// Timeout bounds one request, without what it was asked to wait; 0 means 60 s. Uploads and streams are bounded by their context alone.
	Timeout time.Duration
	// UserAgent names the program; "" means "metalctl".
	UserAgent string
}

// Client calls one server's REST API. Its methods may be called from several goroutines. Errors are *fleet.Error: what the server refused
// comes back with the Kind, Code, Hint and Fields that the server gave it. Only reads are tried again, and only where the server did not answer.
type Client struct {
	bases   []*url.URL
	at      atomic.Int32 // which of them is asked
	token   fleet.Secret
	agent   string
	timeout time.Duration
	http    *http.Client
}

// NewClient checks c and makes a Client; it does not call the server.
func NewClient(c Config) (*Client, error) {
	var bases []*url.URL
	for _, text := range strings.Split(c.Server, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, fleet.Errorf(fleet.Invalid, "MC-CLIENT-SERVER", "the server's address %q is not an https URL without path", text).
				WithHint("give --server https://HOST:PORT or set METALCTL_SERVER; two servers stand with a comma between them")
		}
		bases = append(bases, u)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	switch {
	case c.Pin != "":
		if t, err = fleet.TrustBy(c.Pin, nil); err != nil {
			return nil, fleet.Errorf(fleet.Invalid, "MC-CLIENT-PIN", "trust the server: %w", err)
		}
	case len(c.CACert) > 0:
		if t, err = fleet.TrustBy("", c.CACert); err != nil {
			return nil, fleet.Errorf(fleet.Invalid, "MC-CLIENT-CACERT", "trust the server: %w", err).WithHint("give --cacert DATA_DIR/ca.pem of the server")
		}
	}
	if c.Timeout == 0 {
		c.Timeout = 60 * time.Second
	}
	if c.UserAgent == "" {
		c.UserAgent = "metalctl"
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 30 * time.Second,
		DialContext:     (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		IdleConnTimeout: 60 * time.Second, MaxIdleConnsPerHost: 16,
	}
	// A redirect could carry the token to another host; the API has none.
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{bases: bases, token: c.Token, agent: c.UserAgent, timeout: c.Timeout, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one call: what is sent and how it may be repeated.
type request struct {
	method, path string
	query        url.Values
	body         any
	ifMatch      fleet.Revision
	key          string
	// extra is added to the client's timeout.
	extra time.Duration
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	_, err := c.do(ctx, request{method: http.MethodGet, path: path, query: query}, out)
	return err
}

// do sends r, again where that is safe, and decodes the answer into out unless that is nil.
func (c *Client) do(ctx context.Context, r request, out any) (http.Header, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", r.method, r.path, err)
		}
	}
	tries := 1
	if r.method == http.MethodGet {
		tries = 4
	}
	for try := 1; ; try++ {
		header, err := c.once(ctx, r, body, out)
		if err == nil || try == tries || fleet.KindOf(err) != fleet.Unavailable {
			return header, err
		}
		if waitErr := sleep(ctx, time.Duration(try*try)*200*time.Millisecond); waitErr != nil {
			return nil, err
		}
	}
}

func (c *Client) once(ctx context.Context, r request, body []byte, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+r.extra)
	defer cancel()
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	res, err := c.send(ctx, r, reader, "application/json")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	} else if res.StatusCode != http.StatusNoContent {
		err = json.NewDecoder(res.Body).Decode(out)
	}
	if err != nil {
		return nil, c.transportError(ctx, r, err)
	}
	return res.Header, nil
}

// send returns an answer of success, whose body the caller closes, or what the server said as an error. A server that did not get the request, or that
// does not act, is followed by the next.
func (c *Client) send(ctx context.Context, r request, body io.Reader, contentType string) (*http.Response, error) {
	for try := 1; ; try++ {
		at := c.at.Load()
		res, err := c.sendTo(ctx, c.bases[at], r, body, contentType)
		if err == nil || !elsewhere(err) || len(c.bases) == 1 {
			return res, err
		}
		c.at.CompareAndSwap(at, (at+1)%int32(len(c.bases)))
		again, ok := body.(io.Seeker)
		if try == len(c.bases) || body != nil && !ok {
			return nil, err
		}
		if ok {
			if _, seekErr := again.Seek(0, io.SeekStart); seekErr != nil {
				return nil, err
			}
		}
	}
}

// elsewhere reports whether the request was surely not done, and another server may do it.
func elsewhere(err error) bool {
	switch fleet.CodeOf(err) {
	case "MC-STANDBY-FOLLOWS", "MC-STANDBY-RETIRED", "MC-STANDBY-UNSURE", "MC-STANDBY-FENCED":
		return true
	}
	var dial *net.OpError
	return fleet.KindOf(err) == fleet.Unavailable && errors.As(err, &dial) && dial.Op == "dial"
}

// base is the server that is asked at present.
func (c *Client) base() *url.URL { return c.bases[c.at.Load()] }

func (c *Client) sendTo(ctx context.Context, base *url.URL, r request, body io.Reader, contentType string) (*http.Response, error) {
	u := *base
	plain, err := url.PathUnescape(r.path)
	if err != nil {
		return nil, fmt.Errorf("make request %s %s: %w", r.method, r.path, err)
	}
	u.Path, u.RawPath, u.RawQuery = plain, r.path, r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make request %s %s: %w", r.method, r.path, err)
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept", "application/json, application/problem+json")
	if !c.token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if r.ifMatch != 0 {
		req.Header.Set("If-Match", ETag(r.ifMatch))
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, r, err)
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		return nil, readProblem(res)
	}
	return res, nil
}

// ETag is the entity tag of an object at a revision.
func ETag(r fleet.Revision) string { return `"` + strconv.FormatInt(int64(r), 10) + `"` }

func (c *Client) transportError(ctx context.Context, r request, err error) error {
	switch {
	case fleet.Distrusts(err):
		return fleet.Errorf(fleet.Refused, "MC-CLIENT-TLS", "the server %s could not prove that it is ours: %w", c.base().Host, err).
			WithHint("give --cacert DATA_DIR/ca.pem of the server, or set METALCTL_CACERT")
	case errors.Is(ctx.Err(), context.Canceled):
		return fleet.Errorf(fleet.Timeout, "MC-CLIENT-CANCELLED", "%s %s was given up: %w", r.method, r.path, context.Canceled)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fleet.Errorf(fleet.Timeout, "MC-CLIENT-TIMEOUT", "the server %s did not answer %s %s in time: %w", c.base().Host, r.method, r.path, err).
			WithHint("look whether the server runs: curl -k %s/healthz", c.base())
	}
	return fleet.Errorf(fleet.Unavailable, "MC-CLIENT-UNREACHABLE", "the server %s cannot be reached: %w", c.base().Host, err).
		WithHint("start it with: metalctl server, or give another address with --server")
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
