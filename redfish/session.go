package redfish

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Basic authentication sends the password with each request and counts each failure, so it is used only where sessions do not
// exist, which is settled at first contact; a 401 never leads to it.

// shortestSession is the shortest life of an idle session that was seen (DGX H100, iLO).
const shortestSession = 30 * time.Second

// token returns the session token, empty before login and with basic authentication.
func (b *BMC) token() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.session.Token.Reveal()
}

// login makes a session in place of the one with token stale, unless somebody did so meanwhile.
func (b *BMC) login(ctx context.Context, stale string) error {
	if err := acquire(ctx, b.breaker.login); err != nil {
		return err
	}
	defer func() { <-b.breaker.login }()
	if t := b.token(); t != "" && t != stale {
		return nil
	}
	if b.Auth() == AuthBasic {
		return b.settleBasic(ctx)
	}
	if stale == "" && b.adopt(ctx) {
		return nil
	}
	uri := b.sessionsURI()
	if uri == "" {
		if b.Auth() == AuthUnknown {
			return b.settleBasic(ctx)
		}
		uri = rootURI + "SessionService/Sessions"
	}
	if err := b.breaker.allow(b.now(), b.opts.Password); err != nil {
		return err
	}
	req := request{method: http.MethodPost, uri: uri, session: true, body: map[string]string{"UserName": b.opts.User, "Password": b.opts.Password.Reveal()}}
	r, err := b.retry(ctx, req, b.wire.roundTrip)
	if err != nil {
		return b.loginRefused(ctx, err)
	}
	return b.begin(ctx, uri, r)
}

// loginRefused sorts the answers to a login that was none.
func (b *BMC) loginRefused(ctx context.Context, err error) error {
	e := AsError(err)
	if e == nil {
		return fmt.Errorf("log in: %w", err)
	}
	switch e.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		if b.Auth() == AuthUnknown {
			return b.settleBasic(ctx)
		}
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		// 400 is iLO's answer to a wrong password; whatever it means, the same login will not do better.
		b.breaker.trip(b.now(), b.opts.Password, e.Error())
		return fleet.Errorf(fleet.Denied, "MC-BMC-AUTH", "the BMC refuses user %q or its password: %w", b.opts.User, err).
			WithHint("metalctl bmc credential set NODE; until then nobody here uses this password, so that the account is not locked")
	}
	return explain(err, "log in")
}

// begin keeps the session of an accepted login and removes the one that a crash left.
func (b *BMC) begin(ctx context.Context, sessions string, r *response) error {
	token := r.header.Get("X-Auth-Token")
	if token == "" || len(token) > 8<<10 {
		return protocolError("log in: the BMC answers %d without an X-Auth-Token", r.status)
	}
	b.wire.scrub.add(token)
	s := SavedSession{URI: pathOfLocation(r.header.Get("Location")), Token: fleet.NewSecret(token)}
	if body, err := parseResource(sessions, r); err == nil {
		if s.URI == "" {
			s.URI = body.link("@odata.id")
		}
		if e := parseError(r.status, http.MethodPost, sessions, r.body); e.Has("PasswordChangeRequired") {
			b.drop(ctx, s)
			return fleet.Errorf(fleet.Denied, "MC-BMC-PASSWORD-CHANGE", "the BMC wants user %q to change the password first", b.opts.User).
				WithHint("change it at the BMC, then: metalctl bmc credential set NODE")
		}
	}
	b.breaker.taken(b.opts.Password)
	b.mu.Lock()
	old, replaced, fresh := b.opts.Session, b.session, b.now().Sub(b.used) < shortestSession
	b.opts.Session = SavedSession{}
	b.session, b.auth, b.used = s, AuthSession, b.now()
	b.mu.Unlock()
	b.tellSession(s)
	if old.URI != s.URI && old.Token.IsZero() {
		b.drop(ctx, SavedSession{URI: old.URI, Token: s.Token})
	}
	if replaced.URI != s.URI && fresh { // it was refused although it cannot have expired; it may live on
		b.drop(ctx, SavedSession{URI: replaced.URI, Token: s.Token})
	}
	return nil
}

// adopt takes over the saved session where the BMC still knows it.
func (b *BMC) adopt(ctx context.Context) bool {
	b.mu.Lock()
	s := b.opts.Session
	b.mu.Unlock()
	if s.URI == "" || s.Token.IsZero() {
		return false
	}
	r, err := b.wire.roundTrip(ctx, request{method: http.MethodGet, uri: s.URI, token: s.Token.Reveal()})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opts.Session = SavedSession{}
	if err != nil || r.status != http.StatusOK {
		return false
	}
	b.session, b.auth = s, AuthSession
	return true
}

// drop deletes a session and does not mind if that fails: sessions end by themselves.
func (b *BMC) drop(ctx context.Context, s SavedSession) {
	if s.URI == "" {
		return
	}
	r, err := b.wire.roundTrip(ctx, request{method: http.MethodDelete, uri: s.URI, token: s.Token.Reveal(), session: true})
	if err != nil || !gone(r.status) {
		b.log().DebugContext(ctx, "an old session stays on the BMC until it expires", "err", err)
	}
}

func (b *BMC) tellSession(s SavedSession) {
	if b.opts.OnSession != nil {
		b.opts.OnSession(s)
	}
}

// sessionsURI is where sessions are made, from the service root; empty where the root knows no sessions.
func (b *BMC) sessionsURI() string {
	if !b.rooted() {
		return rootURI + "SessionService/Sessions"
	}
	if l := b.service().sessions; l != "" {
		return l
	}
	if l := b.service().sessionService; l != "" {
		return strings.TrimSuffix(l, "/") + "/Sessions"
	}
	return ""
}

// settleBasic checks the password once by a read, alone, before anybody else sends it.
func (b *BMC) settleBasic(ctx context.Context) error {
	if err := b.breaker.allow(b.now(), b.opts.Password); err != nil {
		return err
	}
	uri := first(b.service().systems, rootURI+"Systems")
	req := request{method: http.MethodGet, uri: uri, basic: &b.opts.Credentials}
	_, err := b.retry(ctx, req, b.wire.roundTrip)
	if err != nil {
		if slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden}, statusOf(err)) {
			return b.basicRefused(err)
		}
		return explain(err, "log in")
	}
	b.breaker.taken(b.opts.Password)
	b.mu.Lock()
	b.auth = AuthBasic
	b.mu.Unlock()
	return nil
}

func (b *BMC) basicRefused(err error) error {
	b.breaker.trip(b.now(), b.opts.Password, err.Error())
	return fleet.Errorf(fleet.Denied, "MC-BMC-AUTH", "the BMC refuses user %q or its password: %w", b.opts.User, err).
		WithHint("metalctl bmc credential set NODE; until then nobody here uses this password, so that the account is not locked")
}

// authorised sends a request with the session, and logs in again once where the session is no more: some BMCs end it after
// 30 s, so that is the usual way, not a failure.
func (b *BMC) authorised(ctx context.Context, req request) (*response, error) {
	if b.Auth() == AuthUnknown || b.Auth() == AuthSession && b.token() == "" {
		if err := b.login(ctx, ""); err != nil {
			return nil, err
		}
	}
	if b.Auth() == AuthBasic {
		return b.withBasic(ctx, req)
	}
	token := b.token()
	if b.surelyLost() {
		if err := b.login(ctx, token); err != nil {
			return nil, err
		}
		token = b.token()
	}
	req.token = token
	r, err := b.wire.roundTrip(ctx, req)
	if err != nil {
		return nil, err
	}
	lost := sessionLost(r)
	b.mu.Lock()
	b.idle.learn(b.now().Sub(b.used), lost)
	if !lost {
		b.used = b.now()
	}
	b.mu.Unlock()
	if !lost {
		return r, nil
	}
	if err := b.login(ctx, token); err != nil {
		return nil, err
	}
	req.token = b.token()
	return b.wire.roundTrip(ctx, req)
}

// idleLoss learns after which idle time a BMC ends sessions, so that one at rest is not asked in vain with each look: two requests, not three.
type idleLoss struct {
	after time.Duration // the shortest idle time of the last losses
	times int           // losses in a row
	spent int           // logins without asking first
}

// learn takes what became of a session that was idle for so long. One loss may be a restart of the BMC.
func (l *idleLoss) learn(idle time.Duration, lost bool) {
	switch {
	case idle < shortestSession:
	case !lost:
		*l = idleLoss{}
	case l.times == 0 || idle < l.after:
		l.after = idle
		fallthrough
	default:
		l.times++
	}
}

// surelyLost reports whether the session has ended by all that was seen of this BMC; now and then it is asked all the same.
func (b *BMC) surelyLost() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &b.idle
	if b.auth != AuthSession || l.times < 2 || b.now().Sub(b.used) < l.after {
		return false
	}
	l.spent++
	return l.spent%32 != 0
}

// sessionLost reports whether an answer says that the session, not the account, is the trouble.
func sessionLost(r *response) bool {
	switch r.status {
	case http.StatusUnauthorized:
		return true
	case http.StatusForbidden: // seen after a BMC restart
		return parseError(r.status, "", "", r.body).Has("NoValidSession", "SessionTerminated", "InvalidSession")
	}
	return false
}

// withBasic sends the password with the request. Requests take turns, so that a changed password fails once, not thrice.
func (b *BMC) withBasic(ctx context.Context, req request) (*response, error) {
	if err := acquire(ctx, b.breaker.login); err != nil {
		return nil, err
	}
	defer func() { <-b.breaker.login }()
	if err := b.breaker.allow(b.now(), b.opts.Password); err != nil {
		return nil, err
	}
	req.basic = &b.opts.Credentials
	r, err := b.wire.roundTrip(ctx, req)
	if err == nil && r.status == http.StatusUnauthorized {
		return nil, b.basicRefused(b.failure(req, r))
	}
	return r, err
}
