package redfish

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Time limits per class of call; connect and handshake have their own, as a BMC's processor takes seconds for TLS.
const (
	connectTimeout = 30 * time.Second
	readTimeout    = 30 * time.Second
	actionTimeout  = 60 * time.Second
	maxRedirects   = 3
)

// request is one thing to ask of the BMC. body is marshalled as JSON; nil sends none.
type request struct {
	method, uri string
	body        any
	ifMatch     string
	ifNoneMatch string // a 304 is then a success without a body
	token       string // X-Auth-Token
	basic       *Credentials
	timeout     time.Duration
	// session marks the making and ending of our own session, which is asked of nobody.
	session bool
}

// writes reports whether the request may change something at the BMC.
func (r request) writes() bool {
	return !r.session && r.method != http.MethodGet && r.method != http.MethodHead
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// wire is the one way out to a BMC: it bounds, redacts, traces and times each exchange, and knows nothing of sessions.
type wire struct {
	origin *url.URL
	single single
	scrub  *scrubber
	gate   *gate
	now    func() time.Time
	trace  func(Call)
	bodies bool
	before func(context.Context) error
	after  func()
	plain  atomic.Bool // no Accept-Encoding: this service answers 406 to identity
}

func newWire(origin *url.URL, trust Trust) (*wire, error) {
	v, err := newVerifier(trust)
	if err != nil {
		return nil, err
	}
	return &wire{origin: origin, scrub: &scrubber{}, single: single{address: hostPort(origin.String()), name: origin.Hostname(), trust: v}}, nil
}

// roundTrip sends one request and follows redirects on the same BMC. Every HTTP status is a success here.
func (w *wire) roundTrip(ctx context.Context, req request) (*response, error) {
	if err := acquire(ctx, w.gate.slots); err != nil {
		return nil, err
	}
	defer func() { <-w.gate.slots }()
	for hop := 0; ; hop++ {
		r, err := w.exchange(ctx, req)
		if err != nil {
			return nil, err
		}
		if r.status == http.StatusNotAcceptable && !w.plain.Load() {
			w.plain.Store(true)
			continue
		}
		next := ""
		switch r.status {
		case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			next = r.header.Get("Location")
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
			if req.method == http.MethodGet {
				next = r.header.Get("Location")
			}
		}
		if next == "" {
			return r, nil
		}
		if hop >= maxRedirects {
			return nil, protocolError("%s %s: more than %d redirects", req.method, req.uri, maxRedirects)
		}
		to, err := w.origin.Parse(next)
		if err != nil || to.Scheme != w.origin.Scheme || to.Host != w.origin.Host || to.User != nil {
			return nil, protocolError("%s %s: the BMC redirects to another server (%s)", req.method, req.uri, printable(w.scrub.text(next), 80))
		}
		req.uri = to.RequestURI()
	}
}

func protocolError(format string, args ...any) error {
	return fleet.Errorf(fleet.Broken, "MC-BMC-PROTOCOL", format, args...).
		WithHint("metalctl bmc probe URL --record FILE keeps what the BMC says; compare with its vendor")
}

func (w *wire) exchange(ctx context.Context, req request) (*response, error) {
	var body []byte
	if req.body != nil {
		var err error
		if body, err = json.Marshal(req.body); err != nil {
			return nil, fmt.Errorf("%s %s: %w", req.method, req.uri, err)
		}
	}
	limit := req.timeout
	if limit == 0 {
		limit = readTimeout
	}
	if w.before != nil && req.writes() {
		if err := w.before(ctx); err != nil {
			return nil, err
		}
		if w.after != nil {
			defer w.after()
		}
	}
	if req.method == http.MethodPost || req.method == http.MethodPatch {
		limit = max(limit, actionTimeout)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := w.now()
	began := time.Now() // durations are measured on the machine's clock, whatever clock was handed in
	r, err := w.send(limited, req, body)
	call := Call{Start: start, Duration: time.Since(began), Method: req.method, URI: w.scrub.text(req.uri)}
	if w.bodies {
		call.Request = cut(w.scrub.body(body))
	}
	if err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			err = fmt.Errorf("no answer within %s: %w", limit, err)
		}
		call.Err = w.scrub.text(err.Error())
		err = w.classify(ctx, req, err)
	} else {
		call.Status, call.BytesIn = r.status, len(r.body)
		if w.bodies {
			call.Response = cut(w.scrub.body(r.body))
		}
	}
	if w.trace != nil {
		w.trace(call)
	}
	return r, err
}

func cut(s string) string {
	if len(s) > 4<<10 {
		return s[:4<<10] + "…"
	}
	return s
}

func (w *wire) send(ctx context.Context, req request, body []byte) (*response, error) {
	u, err := w.origin.Parse(req.uri)
	if err != nil || u.Host != w.origin.Host || u.Scheme != w.origin.Scheme {
		return nil, protocolError("%s does not lead to this BMC", printable(req.uri, 80))
	}
	hr, err := http.NewRequestWithContext(ctx, req.method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	hr.Header.Set("Accept", "application/json")
	hr.Header.Set("OData-Version", "4.0")
	hr.Header.Set("User-Agent", "metalctl")
	if !w.plain.Load() {
		hr.Header.Set("Accept-Encoding", "identity")
	}
	if req.body != nil {
		hr.Header.Set("Content-Type", "application/json")
	}
	if req.ifMatch != "" {
		hr.Header.Set("If-Match", req.ifMatch)
	}
	if req.ifNoneMatch != "" {
		hr.Header.Set("If-None-Match", req.ifNoneMatch)
	}
	if req.token != "" {
		hr.Header.Set("X-Auth-Token", req.token)
	}
	if req.basic != nil {
		hr.SetBasicAuth(req.basic.User, req.basic.Password.Reveal())
	}
	resp, err := w.single.do(hr)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var from io.Reader = io.LimitReader(resp.Body, maxBody+1)
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if from, err = gzip.NewReader(from); err != nil {
			return nil, fmt.Errorf("%s %s: %w", req.method, req.uri, err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(from, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: answer cut short: %w", req.method, req.uri, err)
	}
	if len(b) > maxBody {
		return nil, protocolError("%s %s: answer is longer than %d bytes", req.method, req.uri, maxBody)
	}
	return &response{status: resp.StatusCode, header: resp.Header, body: b}, nil
}

// classify turns a transport error into what an operator reads.
func (w *wire) classify(ctx context.Context, req request, err error) error {
	var known *fleet.Error
	if errors.As(err, &known) {
		return err
	}
	if ctx.Err() != nil {
		return fleet.Errorf(fleet.Timeout, "MC-BMC-TIMEOUT", "%s %s: %w", req.method, w.scrub.text(req.uri), ctx.Err())
	}
	if isTLS(err) {
		return fleet.Errorf(fleet.Refused, "MC-BMC-TLS", "the certificate of the BMC %s is not trusted: %w", w.origin.Host, err).
			WithHint("check that this is the BMC (metalctl bmc probe %s prints its key), then: metalctl bmc credential set NODE --pin sha256/...", w.origin)
	}
	return fleet.Errorf(fleet.Unavailable, "MC-BMC-UNREACHABLE", "%s %s on the BMC %s: %w", req.method, w.scrub.text(req.uri), w.origin.Host, err).
		WithHint("check that the BMC's address and the way to it are right: metalctl bmc probe %s", w.origin)
}
