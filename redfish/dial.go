package redfish

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish/quirk"
)

const rootURI = "/redfish/v1/"

// BMC is one open management controller. It polls nothing by itself; its methods may be called from several goroutines, and
// those that write take turns with all others that share the breaker.
type BMC struct {
	opts    Options
	wire    *wire
	breaker *Breaker
	now     func() time.Time
	sleep   func(context.Context, time.Duration) error
	root    unique.Handle[serviceRoot] // zero before it could be read

	mu       sync.Mutex // guards the rest
	auth     AuthMode
	session  SavedSession
	used     time.Time // when the session last worked
	idle     idleLoss
	places   unique.Handle[places] // zero before the survey
	learned  Learned
	inserted inserted
	seen     map[string]*resource // what was read, with Options.ReadOnce
	console  *string              // the entries of the console's log, "" where there is none; nil before it was looked for
}

// Dial opens the BMC at address (https://host[:port]) and logs in. It reads the service root and makes a session; nothing else
// is written. Close ends the session.
func Dial(ctx context.Context, address string, opts Options) (*BMC, error) {
	b, err := open(address, opts)
	if err != nil {
		return nil, err
	}
	if err := b.contact(ctx); err != nil {
		return nil, fmt.Errorf("open BMC %s: %w", b.wire.origin.Host, err)
	}
	return b, nil
}

func open(address string, opts Options) (*BMC, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	switch {
	case err != nil || u.Host == "" && u.Scheme != "http":
		return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-SCHEME", "the BMC address %q is not https://HOST[:PORT]", printable(fleet.WithoutUser(address), 80)).
			WithHint("write it as https://10.0.0.11")
	case u.Scheme != "https":
		return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-SCHEME", "the BMC address %q has scheme %q; passwords are only sent by https", printable(fleet.WithoutUser(address), 80), printable(u.Scheme, 10)).
			WithHint("write it as https://%s", u.Host)
	case u.User != nil:
		return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-SCHEME", "the BMC address carries a user; give --user and --password-file instead")
	case strings.Trim(u.Path, "/") != "" && strings.Trim(u.Path, "/") != "redfish/v1" && strings.Trim(u.Path, "/") != "redfish", u.RawQuery != "", u.Fragment != "":
		return nil, fleet.Errorf(fleet.Invalid, "MC-BMC-SCHEME", "the BMC address %q has a path; only https://HOST[:PORT] is wanted", printable(fleet.WithoutUser(address), 80))
	}
	u = &url.URL{Scheme: u.Scheme, Host: u.Host}
	w, err := newWire(u, opts.Trust)
	if err != nil {
		return nil, err
	}
	b := &BMC{opts: opts, wire: w, breaker: opts.Breaker, now: opts.Now, sleep: opts.Sleep, auth: opts.Auth, learned: opts.Learned}
	if b.breaker == nil {
		b.breaker = newBreaker(newGate())
	}
	if b.now == nil {
		b.now = time.Now
	}
	if b.sleep == nil {
		b.sleep = sleep
	}
	w.gate, w.now, w.trace, w.bodies, w.before, w.after = b.breaker.gate, b.now, opts.Trace, opts.Bodies, opts.Before, opts.After
	w.scrub.addBasic(opts.User, opts.Password.Reveal())
	w.scrub.add(opts.Session.Token.Reveal())
	return b, nil
}

// contact reads the service root without a credential (DSP0266 section 13.3 lets anybody) and settles how to authenticate.
func (b *BMC) contact(ctx context.Context) error {
	r, err := b.retry(ctx, request{method: http.MethodGet, uri: rootURI}, b.wire.roundTrip)
	if err != nil && statusOf(err) != http.StatusUnauthorized {
		if s := statusOf(err); s == http.StatusNotFound {
			return fleet.Errorf(fleet.Broken, "MC-BMC-PROTOCOL", "there is no Redfish service: %w", err).
				WithHint("check that the address is a BMC's and that Redfish is turned on there")
		}
		return explain(err, "read the service root")
	}
	if err == nil {
		root, err := parseResource(rootURI, r)
		if err != nil {
			return protocolError("this is no Redfish service: %w", err)
		}
		if !root.has("RedfishVersion") && !root.has("@odata.id") {
			return protocolError("this is no Redfish service: %s has neither RedfishVersion nor @odata.id", rootURI)
		}
		b.root = rootOf(root)
	}
	if err := b.login(ctx, ""); err != nil {
		return err
	}
	if !b.rooted() { // a service that shows its root only to those who are logged in
		root, err := b.get(ctx, rootURI)
		if err != nil {
			return explain(err, "read the service root")
		}
		b.root = rootOf(root)
	}
	return nil
}

// Close deletes the session. The BMC cannot be used afterwards; closing twice is no error.
func (b *BMC) Close(ctx context.Context) error {
	b.mu.Lock()
	s := b.session
	b.session = SavedSession{}
	b.mu.Unlock()
	if s.URI == "" || s.Token.IsZero() {
		return nil
	}
	r, err := b.wire.roundTrip(ctx, request{method: http.MethodDelete, uri: s.URI, token: s.Token.Reveal(), session: true})
	if err != nil {
		return fmt.Errorf("delete session: %w", err)
	}
	if !gone(r.status) {
		return explain(b.failure(request{method: http.MethodDelete, uri: s.URI}, r), "delete session")
	}
	b.tellSession(SavedSession{})
	return nil
}

// gone reports whether a DELETE's status means that the thing is no more.
func gone(status int) bool {
	return status < 300 || slices.Contains([]int{401, 404, 410}, status)
}

// Session returns the session in use, to be saved.
func (b *BMC) Session() SavedSession {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.session
}

// Auth returns how the BMC takes credentials.
func (b *BMC) Auth() AuthMode {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.auth
}

// profile returns the quirks recorded for this BMC; before the survey those of the service root alone.
func (b *BMC) profile() quirk.Profile {
	name := b.opts.Quirk
	if p, ok := b.surveyed(); ok {
		name = p.profile
	}
	if p, ok := quirk.Named(name); ok && name != "" {
		return p
	}
	return quirk.Generic
}

// log says of each line which BMC it is about, and which node where that is known. It is made when there is something to say: of ten thousand BMCs none keeps one.
func (b *BMC) log() *slog.Logger {
	if b.opts.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	l := b.opts.Log.With("bmc", b.wire.origin.Host)
	if b.opts.Node != "" {
		l = l.With(fleet.LogNode, b.opts.Node)
	}
	return l
}
