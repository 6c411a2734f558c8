package nvue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

const (
	codeSilent = "MC-SWITCH-SILENT" // no answer, or one that nobody understands
	codeApply  = "MC-SWITCH-APPLY"  // the device did not take a revision
)

// Access is how a device is reached and known.
type Access struct {
	// Address is an https URL without path; NVUE listens on port 8765 if not told otherwise.
	Address  string
	User     string
	Password fleet.Secret
	// Pin is the hash of the device's key (fleet.PinOf), CAPEM the authorities that may have signed its certificate: one of the two.
	Pin   string
	CAPEM []byte
}

// Client calls the REST API of one device. What is an answer of the API and what is a failure of it is told apart here; what the answers mean is not: Cumulus
// Linux, NVOS and HBN on BlueField share all of this. Its methods may be called by several goroutines.
type Client struct {
	base   *url.URL
	access Access
	http   *http.Client
	at     string // host and port, for messages
}

const (
	// callTime is how long one call may take: releases up to 5.9 answer a change with the whole configuration.
	callTime = 30 * time.Second
	// largest is the most that is read of an answer. The operational state of 128 ports has about 5 MiB.
	largest = 32 << 20
	// tries is how often a call is made that may be made again.
	tries = 5
)

// NewClient checks a; it does not call the device.
func NewClient(a Access) (*Client, error) {
	u, err := url.Parse(a.Address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fleet.Errorf(fleet.Invalid, "MC-NET-INVALID", "the switch's address %q is no https URL without path, such as https://10.0.0.2:8765", a.Address)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "8765")
	}
	t, err := fleet.TrustBy(a.Pin, a.CAPEM)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-NET-INVALID", "trust the switch %s: %w", u.Host, err).WithHint("the server's configuration, under switches.NAME.tls")
	}
	transport := &http.Transport{TLSClientConfig: t, TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 2,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	// A redirect could carry the password to another host; the API has none.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: u, access: a, at: u.Host, http: &http.Client{Transport: transport, CheckRedirect: stay, Timeout: callTime}}, nil
}

// get reads a resource, again where an answer got lost.
func (c *Client) get(ctx context.Context, path string, query url.Values) (object, error) {
	return c.again(ctx, http.MethodGet, path, query, nil)
}

// again is a call that does the same however often it is made.
func (c *Client) again(ctx context.Context, method, path string, query url.Values, body any) (object, error) {
	for n := 1; ; n++ {
		o, err := c.call(ctx, method, path, query, body)
		if err == nil || n == tries || !lost(err) {
			return o, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Duration(n) * 50 * time.Millisecond):
		}
	}
}

// lost reports whether a call may have got nowhere, or its answer: the device is down, or too busy.
func lost(err error) bool { return fleet.KindOf(err) == fleet.Unavailable }

// call makes one request. Path elements are escaped already.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body any) (object, error) {
	u := c.base.String() + "/nvue_v1" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode a request for the switch %s: %w", c.at, err)
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u, send)
	if err != nil {
		return nil, fmt.Errorf("make a request for the switch %s: %w", c.at, err)
	}
	req.SetBasicAuth(c.access.User, c.access.Password.Reveal())
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.gone(err)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, largest+1))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, c.gone(err)
	}
	return c.understand(method+" "+path, res.StatusCode, b)
}

// understand takes an answer apart.
func (c *Client) understand(what string, status int, b []byte) (object, error) {
	switch {
	case len(b) > largest:
		return nil, fleet.Errorf(fleet.Broken, codeSilent, "the switch %s answers %s with more than %d MiB", c.at, what, largest>>20)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return nil, fleet.Errorf(fleet.Denied, codeSilent, "the switch %s refuses user %s (%d)", c.at, c.access.User, status)
	case status == http.StatusNotFound:
		return nil, fleet.Errorf(fleet.NotFound, codeSilent, "the switch %s does not know %s", c.at, what)
	case status >= 500:
		return nil, fleet.Errorf(fleet.Unavailable, codeSilent, "the switch %s answers %s with %d%s", c.at, what, status, problem(b))
	case status < 200 || status > 299:
		return nil, fleet.Errorf(fleet.Broken, codeSilent, "the switch %s answers %s with %d%s", c.at, what, status, problem(b))
	case len(bytes.TrimSpace(b)) == 0:
		return nil, nil
	}
	o, err := decode(b)
	if err != nil {
		return nil, fleet.Errorf(fleet.Broken, codeSilent, "the answer of the switch %s to %s: %w", c.at, what, err)
	}
	return o, nil
}

// problem is what an answer that is a failure says of itself, cut to a line.
func problem(b []byte) string {
	o, err := decode(b)
	if err != nil {
		return ""
	}
	for _, k := range []string{"detail", "message", "title"} {
		if s, _ := o[k].(string); s != "" {
			return ": " + clip(s)
		}
	}
	return ""
}

// clip makes one short line of what a device said.
func clip(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)), " ")
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}

func (c *Client) gone(err error) error {
	if fleet.Distrusts(err) {
		return fleet.Errorf(fleet.Denied, codeSilent, "the switch %s is not the one that is trusted, and was told nothing: %w", c.at, err)
	}
	return fleet.Errorf(fleet.Unavailable, codeSilent, "the switch %s does not answer: %w", c.at, err)
}
