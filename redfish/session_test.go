package redfish

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

func TestCredentialsNeverPrint(t *testing.T) {
	c := Credentials{User: "admin", Password: fleet.NewSecret(testPassword)}
	s := SavedSession{URI: "/s/1", Token: fleet.NewSecret(testPassword)}
	var out strings.Builder
	for _, v := range []any{c, &c, s, &s, Options{Credentials: c, Session: s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, v := range []any{c, s} {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	for _, bad := range []string{testPassword, "hunter2", fmt.Sprintf("%x", testPassword), fmt.Sprintf("%X", testPassword)} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q is printed:\n%s", bad, out.String())
		}
	}
}

func TestExpiredSessionLogsInOnce(t *testing.T) {
	f := newFake(t)
	b := f.dial()
	if _, err := b.Power(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	clear(f.tokens)
	f.mu.Unlock()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := b.Power(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if f.logins != 2 {
		t.Errorf("%d logins, want 2", f.logins)
	}
}

func TestWrongPasswordStopsAllUse(t *testing.T) {
	f := newFake(t)
	all := NewBreakers()
	o := f.options()
	o.Password = fleet.NewSecret("wrong-password-1")
	o.Breaker = all.For(f.srv.URL, "admin")
	_, err := Dial(t.Context(), f.srv.URL, o)
	if fleet.CodeOf(err) != "MC-BMC-AUTH" || fleet.KindOf(err) != fleet.Denied {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "wrong-password") {
		t.Errorf("the BMC's echo of the password is shown: %v", err)
	}
	for range 5 { // other workers, the same credential
		o.Breaker = all.For(f.srv.URL, "admin")
		if _, err := Dial(t.Context(), f.srv.URL, o); fleet.CodeOf(err) != "MC-BMC-BREAKER" {
			t.Fatalf("got %v", err)
		}
	}
	if f.logins != 1 {
		t.Errorf("%d logins, want 1", f.logins)
	}
	if s := o.Breaker.State(); !s.Open || s.Why == "" || s.NextTry.Sub(s.Since) < 10*time.Minute {
		t.Errorf("state is %+v", s)
	}
	right := o
	right.Password = fleet.NewSecret(testPassword) // somebody types it again, right
	b, err := Dial(t.Context(), f.srv.URL, right)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := o.Breaker.State(); s.Open {
		t.Errorf("state with a working password is %+v", s)
	}
	if _, err := Dial(t.Context(), f.srv.URL, o); fleet.CodeOf(err) != "MC-BMC-BREAKER" { // a worker with the stale one stays out
		t.Errorf("got %v", err)
	}
	if f.logins != 2 {
		t.Errorf("%d logins, want 2", f.logins)
	}
	o.Breaker.Reset()
	if _, err := Dial(t.Context(), f.srv.URL, o); fleet.CodeOf(err) != "MC-BMC-AUTH" {
		t.Errorf("after Reset: %v", err)
	}
}

func TestBreakerAdmitsOneTryInTenMinutes(t *testing.T) {
	b, c, pw := newBreaker(newGate()), newClock(), fleet.NewSecret("wrong")
	b.trip(c.Now(), pw, "refused")
	for _, step := range []struct {
		after time.Duration
		ok    bool
	}{{0, false}, {9 * time.Minute, false}, {61 * time.Second, true}, {0, false}, {11 * time.Minute, true}} {
		c.Sleep(t.Context(), step.after)
		if err := b.allow(c.Now(), pw); (err == nil) != step.ok {
			t.Errorf("after %s more: %v", step.after, err)
		}
	}
}

func TestPasswordChangedWhileOpen(t *testing.T) {
	f := newFake(t)
	b := f.dial()
	f.mu.Lock()
	clear(f.tokens)
	f.mu.Unlock()
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method != "POST" || !strings.HasSuffix(r.URL.Path, "/Sessions") {
			return false
		}
		f.mu.Lock()
		f.logins++
		f.mu.Unlock()
		answer(w, 401, nil)
		return true
	}
	for i := range 4 {
		_, err := b.Power(t.Context())
		want := "MC-BMC-BREAKER"
		if i == 0 {
			want = "MC-BMC-AUTH"
		}
		if fleet.CodeOf(err) != want {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if f.logins != 2 {
		t.Errorf("%d logins, want the first and one more", f.logins)
	}
}

func TestBasicOnlyWithoutSessions(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int // of the login; 0: the root names no session service
		auth   AuthMode
		want   AuthMode
		code   string
	}{
		{"no session service", 0, AuthUnknown, AuthBasic, ""},
		{"not found", 404, AuthUnknown, AuthBasic, ""},
		{"not allowed", 405, AuthUnknown, AuthBasic, ""},
		{"no sessions at all", 501, AuthUnknown, AuthBasic, ""},
		{"unauthorised is never a reason", 401, AuthUnknown, AuthUnknown, "MC-BMC-AUTH"},
		{"forbidden is never a reason", 403, AuthUnknown, AuthUnknown, "MC-BMC-AUTH"},
		{"recorded as session", 404, AuthSession, AuthSession, "MC-BMC-REFUSED"},
		{"recorded as basic", 404, AuthBasic, AuthBasic, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			f.noSession = true
			if tc.status == 0 {
				delete(f.resources["/redfish/v1"], "Links")
				delete(f.resources["/redfish/v1"], "SessionService")
			}
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == "POST" && strings.HasSuffix(r.URL.Path, "/Sessions") {
					answer(w, tc.status, nil)
					return true
				}
				return false
			}
			o := f.options()
			o.Auth = tc.auth
			b, err := Dial(t.Context(), f.srv.URL, o)
			if fleet.CodeOf(err) != tc.code {
				t.Fatalf("got %v", err)
			}
			if tc.code != "" {
				if f.logins != 0 {
					t.Errorf("the password was sent %d times by basic authentication", f.logins)
				}
				return
			}
			if b.Auth() != tc.want {
				t.Errorf("authentication is %s", b.Auth())
			}
			if s, err := b.Power(t.Context()); err != nil || s != PowerOff {
				t.Errorf("power is %s, %v", s, err)
			}
		})
	}
}

func TestBasicWrongPasswordIsSentOnce(t *testing.T) {
	f := newFake(t)
	f.noSession = true
	o := f.options()
	o.Auth, o.Password, o.Breaker = AuthBasic, fleet.NewSecret("wrong-password"), newBreaker(newGate())
	for i := range 3 {
		_, err := Dial(t.Context(), f.srv.URL, o)
		if c := fleet.CodeOf(err); i == 0 && c != "MC-BMC-AUTH" || i > 0 && c != "MC-BMC-BREAKER" {
			t.Errorf("dial %d: %v", i, err)
		}
	}
	if f.logins != 1 {
		t.Errorf("the password was sent %d times", f.logins)
	}
}

func TestSavedSession(t *testing.T) {
	f := newFake(t)
	var told []SavedSession
	first := f.dial(func(o *Options) { o.OnSession = func(s SavedSession) { told = append(told, s) } })
	saved := first.Session()
	if len(told) != 1 || told[0] != saved || saved.URI == "" {
		t.Fatalf("told %v, session %v", told, saved)
	}
	t.Run("with its token it is adopted", func(t *testing.T) {
		b := f.dial(func(o *Options) { o.Session = saved })
		if _, err := b.Power(t.Context()); err != nil || b.Session() != saved || f.logins != 1 {
			t.Errorf("%v, session %v, %d logins", err, b.Session(), f.logins)
		}
	})
	t.Run("without it is deleted after login", func(t *testing.T) {
		o := f.options()
		o.Session = SavedSession{URI: "/redfish/v1/SessionService/Sessions/7"}
		f.mu.Lock()
		f.tokens["of a crashed program"] = o.Session.URI
		f.mu.Unlock()
		b, err := Dial(t.Context(), f.srv.URL, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(f.tokens) != 1 { // the first test's own
			t.Errorf("sessions left: %v", f.tokens)
		}
	})
	t.Run("one that the BMC forgot is replaced", func(t *testing.T) {
		b := f.dial(func(o *Options) {
			o.Session = SavedSession{URI: "/redfish/v1/SessionService/Sessions/9", Token: fleet.NewSecret("forgotten")}
		})
		if _, err := b.Power(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPasswordChangeRequired(t *testing.T) {
	f := newFake(t)
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method != "POST" {
			return false
		}
		w.Header().Set("X-Auth-Token", "temporary-token")
		w.Header().Set("Location", "/redfish/v1/SessionService/Sessions/1")
		answer(w, 201, obj{"@odata.id": "/redfish/v1/SessionService/Sessions/1", "@Message.ExtendedInfo": []any{
			obj{"MessageId": "Base.1.8.PasswordChangeRequired", "Message": "change it"}}})
		return true
	}
	if _, err := Dial(t.Context(), f.srv.URL, f.options()); fleet.CodeOf(err) != "MC-BMC-PASSWORD-CHANGE" {
		t.Errorf("got %v", err)
	}
}

func TestSessionLimitIsWaitedOut(t *testing.T) {
	f := newFake(t)
	refusals := 2
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == "POST" && refusals > 0 {
			refusals--
			answer(w, 503, redfishError("RAC0218"))
			return true
		}
		return false
	}
	b := f.dial()
	if b.Session().URI == "" || refusals != 0 {
		t.Errorf("session %v, %d refusals left", b.Session(), refusals)
	}
}

func TestCancelledWhileWaiting(t *testing.T) {
	f := newFake(t)
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		w.Header().Set("Retry-After", "60")
		answer(w, 503, nil)
		return true
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := f.options()
	o.Sleep = func(ctx context.Context, d time.Duration) error {
		if d != 60*time.Second {
			t.Errorf("waits %s instead of what Retry-After says", d)
		}
		cancel()
		return ctx.Err()
	}
	if _, err := Dial(ctx, f.srv.URL, o); err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
}

func TestRefusedSessionIsNotLeaked(t *testing.T) {
	f := newFake(t)
	b := f.dial()
	refuse := true
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if refuse && r.Method == "GET" {
			refuse = false
			answer(w, 401, nil)
			return true
		}
		return false
	}
	if _, err := b.Power(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(f.tokens) != 1 || f.logins != 2 {
		t.Errorf("%d sessions after %d logins", len(f.tokens), f.logins)
	}
}

func TestBreakerForgetsTheOldest(t *testing.T) {
	b, c := newBreaker(newGate()), newClock()
	for i := range maxRefused + 1 {
		b.trip(c.Now(), fleet.NewSecret(fmt.Sprint("wrong ", i)), "refused")
		c.Sleep(t.Context(), time.Second)
	}
	if len(b.refused) != maxRefused || b.allow(c.Now(), fleet.NewSecret("wrong 0")) != nil || b.allow(c.Now(), fleet.NewSecret("wrong 1")) == nil {
		t.Errorf("%d refusals are remembered", len(b.refused))
	}
}
