package images

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Policy says where images may be fetched from. Both the server and the agents apply it, for every redirect again and for the address that is really
// dialled, so a name that resolves to a BMC does not help.
type Policy struct {
	// Origins are the allow-list: "https://images.example.org", "http://10.0.0.5:8080" or "https://*.example.org" for all names below it.
	// Scheme, name and port must agree; nothing is fetched from elsewhere.
	Origins []string
	// Deny are further networks that are never dialled: BMCs, management, switches. Loopback, link-local, multicast and unspecified addresses are
	// always among them.
	Deny []netip.Prefix
	// Allow are the exceptions, which only an administrator's configuration may name.
	Allow []netip.Prefix
	// TLS verifies the origins; nil: the system's authorities.
	TLS *tls.Config
	// Proxy chooses the proxy of a request, as in http.Transport; nil: none is used. A proxy dials for us, so only its own address is held to Deny: it is for
	// an origin that is trusted by its key, the agent's own server.
	Proxy func(*http.Request) (*url.URL, error)
	// Moved is asked before each attempt for the scheme and host that serve the same files at present, "https://HOST:PORT"; nil or "": those of the address
	// that was opened. It is for the agent's own servers, of which one takes over from another; Origins holds for what it says, too.
	Moved func() string
	// Header goes to the first origin only, never along a redirect to another one.
	Header http.Header
	// Shown is what errors call the address; "" means the address without password and query.
	Shown string
	// Stall is how long no byte may come before the connection counts as broken; 0: 30 s.
	Stall time.Duration
	// Tries is how many attempts in a row may bring no byte; 0: 10, which is about a minute.
	Tries int
	// Wait pauses before an attempt; nil: exponentially longer with jitter, at most 10 s.
	Wait func(ctx context.Context, attempt int) error
}

func (p Policy) refuse(u *url.URL, format string, args ...any) error {
	return fleet.Errorf(fleet.Refused, "MC-IMAGE-ORIGIN", "%s: "+format, append([]any{p.shown(u)}, args...)...).
		WithHint("add the origin to image_origins of the Site: metalctl site apply -f FILE; or upload the image: metalctl image add NAME --file FILE")
}

// shown is an address as errors may name it: neither password nor query, which may be a signature.
func (p Policy) shown(u *url.URL) string {
	if p.Shown != "" {
		return p.Shown
	}
	return fleet.WithoutQuery(u.Redacted())
}

// plain is an error of net/http without the address that it repeats, as a redirect or a signed origin has secrets in it.
func plain(err error) error {
	var refused *fleet.Error
	if errors.As(err, &refused) {
		return refused
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if text := err.Error(); fleet.WithoutQueries(text) != text {
		return &shownError{fleet.WithoutQueries(text), err}
	}
	return err
}

// shownError is an error with another text.
type shownError struct {
	text string
	err  error
}

func (e *shownError) Error() string { return e.text }
func (e *shownError) Unwrap() error { return e.err }

// Check says whether u is on the allow-list; what its name resolves to is checked when it is dialled.
func (p Policy) Check(u *url.URL) error {
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return p.refuse(u, "only https and http are fetched")
	case u.User != nil:
		return p.refuse(u, "credentials do not belong into an address")
	case u.Host == "":
		return p.refuse(u, "no host")
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		if why := p.denied(addr); why != "" {
			return p.refuse(u, "%s is %s", addr, why)
		}
	}
	for _, origin := range p.Origins {
		if matches(origin, u) {
			return nil
		}
	}
	return p.refuse(u, "its origin is not on the allow-list")
}

func matches(origin string, u *url.URL) bool {
	o, err := url.Parse(origin)
	if err != nil || o.Scheme != u.Scheme || port(o) != port(u) {
		return false
	}
	have, want := strings.ToLower(u.Hostname()), strings.ToLower(o.Hostname())
	if below, ok := strings.CutPrefix(want, "*."); ok {
		return strings.HasSuffix(have, "."+below)
	}
	return have == want
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// nat64 is RFC 6052's well-known prefix: an IPv4 address in disguise.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// denied says what forbids an address; "" where nothing does.
func (p Policy) denied(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, n := range p.Allow {
		if n.Contains(addr) {
			return ""
		}
	}
	switch {
	case addr.IsLoopback():
		return "a loopback address"
	case addr.IsLinkLocalUnicast():
		return "a link-local address"
	case addr.IsMulticast(), addr.IsUnspecified(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "no host's address"
	}
	for _, n := range p.Deny {
		if n.Contains(addr) {
			return "in the network " + n.String() + ", which images are not fetched from"
		}
	}
	return ""
}

// client follows redirects only as far as the policy goes and looks at every address that it dials. Without p.Proxy it uses no
// proxy, whatever the environment says: that would dial for it.
func (p Policy) client() *http.Client {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if why := p.denied(ap.Addr()); why != "" {
				return fleet.Errorf(fleet.Refused, "MC-IMAGE-ORIGIN", "the name resolves to %s, %s", ap.Addr(), why).
					WithHint("serve the image at another address, or upload it: metalctl image add NAME --file FILE")
			}
			return nil
		}}
	return &http.Client{
		Transport: &http.Transport{Proxy: p.Proxy, DialContext: dialer.DialContext, TLSClientConfig: p.TLS, TLSHandshakeTimeout: 15 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second, DisableCompression: true, ForceAttemptHTTP2: false, MaxIdleConnsPerHost: 2,
			MaxResponseHeaderBytes: 64 << 10, ReadBufferSize: 256 << 10, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) >= 5 {
				return p.refuse(req.URL, "more than five redirects")
			}
			if !strings.EqualFold(req.URL.Host, via[0].URL.Host) || req.URL.Scheme != via[0].URL.Scheme {
				for k := range p.Header {
					req.Header.Del(k)
				}
			}
			return p.Check(req.URL)
		},
	}
}

func (p Policy) stall() time.Duration {
	if p.Stall > 0 {
		return p.Stall
	}
	return 30 * time.Second
}

func (p Policy) tries() int {
	if p.Tries > 0 {
		return p.Tries
	}
	return 10
}

func (p Policy) wait(ctx context.Context, attempt int) error {
	if p.Wait != nil {
		return p.Wait(ctx, attempt)
	}
	d := min(250*time.Millisecond<<min(attempt, 10), 10*time.Second)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
