package redfish

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestAddress(t *testing.T) {
	for _, address := range []string{"http://10.0.0.1", "10.0.0.1", "", "https://", "ftp://x", "https://user:pw@10.0.0.1", "https://10.0.0.1/api", "https://10.0.0.1?x=1", "https://[::1"} {
		_, err := Dial(t.Context(), address, Options{})
		if fleet.CodeOf(err) != "MC-BMC-SCHEME" || fleet.KindOf(err) != fleet.Invalid {
			t.Errorf("%q: %v", address, err)
		}
		if err != nil && strings.Contains(err.Error(), "user:pw") {
			t.Errorf("%q: the password is shown: %v", address, err)
		}
	}
}

func TestTrust(t *testing.T) {
	f := newFake(t)
	other := httptest.NewUnstartedServer(nil)
	t.Cleanup(other.Close)
	otherPin := "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, tc := range []struct {
		name  string
		trust Trust
		code  string
	}{
		{"its CA", Trust{CAPEM: f.ca()}, ""},
		{"the system's roots", Trust{}, "MC-BMC-TLS"},
		{"a CA file without certificates", Trust{CAPEM: []byte("no")}, "MC-BMC-TLS"},
		{"its pin", Trust{Mode: TrustPin, Pin: fleet.PinOf(f.cert())}, ""},
		{"another pin", Trust{Mode: TrustPin, Pin: otherPin}, "MC-BMC-TLS"},
		{"no pin", Trust{Mode: TrustPin}, "MC-BMC-TLS"},
		{"a broken pin", Trust{Mode: TrustPin, Pin: "sha256/xyz"}, "MC-BMC-TLS"},
		{"first use", Trust{Mode: TrustFirstUse}, ""},
		{"first use after it was pinned", Trust{Mode: TrustFirstUse, Pin: otherPin}, "MC-BMC-TLS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.mu.Lock()
			f.log = nil
			f.mu.Unlock()
			o := f.options()
			o.Trust = tc.trust
			b, err := Dial(t.Context(), f.srv.URL, o)
			if fleet.CodeOf(err) != tc.code {
				t.Fatalf("got %v", err)
			}
			if tc.code != "" {
				if len(f.log) != 0 {
					t.Errorf("an untrusted BMC was sent %q", f.log)
				}
				return
			}
			if b.wire.single.trust.observed() != fleet.PinOf(f.cert()) {
				t.Errorf("observed %q", b.wire.single.trust.observed())
			}
			if err := b.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	if pin, err := PinAt(t.Context(), f.srv.URL); err != nil || pin != fleet.PinOf(f.cert()) {
		t.Errorf("PinAt: %q, %v", pin, err)
	}
}

func TestRedirects(t *testing.T) {
	leaked := ""
	evil := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked = r.Header.Get("X-Auth-Token") + "!" }))
	t.Cleanup(evil.Close)
	for _, tc := range []struct{ name, to, code string }{
		{"to the same resource with a slash", "/redfish/v1/Systems/1/", ""},
		{"to another host", evil.URL + "/redfish/v1/Systems/1", "MC-BMC-PROTOCOL"},
		{"to plain http", "http://127.0.0.1/", "MC-BMC-PROTOCOL"},
		{"in circles", "/redfish/v1/Systems/1", "MC-BMC-PROTOCOL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			b := f.dial(func(o *Options) { o.System = "/redfish/v1/Systems/1" })
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path == "/redfish/v1/Systems/1" {
					http.Redirect(w, r, tc.to, http.StatusPermanentRedirect)
					return true
				}
				return false
			}
			if _, err := b.Power(t.Context()); fleet.CodeOf(err) != tc.code {
				t.Errorf("got %v", err)
			}
			if leaked != "" {
				t.Errorf("the other host was asked, with token %q", leaked)
			}
		})
	}
}

func TestAnswersBeyondBounds(t *testing.T) {
	for _, tc := range []struct {
		name string
		send func(w http.ResponseWriter)
	}{
		{"too long", func(w http.ResponseWriter) { io.Copy(w, io.LimitReader(zeros{}, maxBody+1)) }},
		{"a gzip bomb", func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.Copy(z, io.LimitReader(zeros{}, maxBody+1))
			z.Close()
		}},
		{"too deep", func(w http.ResponseWriter) {
			io.WriteString(w, strings.Repeat(`{"a":`, 65)+"1"+strings.Repeat("}", 65))
		}},
		{"HTML", func(w http.ResponseWriter) { io.WriteString(w, "<html>login</html>") }},
		{"a list", func(w http.ResponseWriter) { io.WriteString(w, "[1]") }},
		{"empty", func(w http.ResponseWriter) {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			b := f.dial()
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path == "/redfish/v1/Systems/1" {
					tc.send(w)
					return true
				}
				return false
			}
			if _, err := b.Power(t.Context()); fleet.CodeOf(err) != "MC-BMC-PROTOCOL" {
				t.Errorf("got %v", err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestEndlessCollection(t *testing.T) {
	f := newFake(t)
	f.resources["/redfish/v1/Systems"]["Members@odata.nextLink"] = "/redfish/v1/Systems"
	b := f.dial()
	if _, err := b.Power(t.Context()); fleet.CodeOf(err) != "MC-BMC-PROTOCOL" {
		t.Errorf("got %v", err)
	}
}

func TestOffOriginLinksAreNotFollowed(t *testing.T) {
	f := newFake(t)
	f.resources["/redfish/v1/Systems"]["Members"] = []any{link("https://evil.example/redfish/v1/Systems/1"), link("//evil.example/x"), link("/redfish/v1/Systems/1")}
	b := f.dial()
	if s, err := b.Power(t.Context()); err != nil || s != PowerOff {
		t.Errorf("%s, %v", s, err)
	}
}

func TestCompressedAndPicky(t *testing.T) {
	f := newFake(t)
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Header.Get("Accept-Encoding") == "identity" {
			answer(w, 406, nil)
			return true
		}
		return false
	}
	b := f.dial()
	if s, err := b.Power(t.Context()); err != nil || s != PowerOff {
		t.Errorf("%s, %v", s, err)
	}
}

func TestNoRedfishThere(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a web server":   http.NotFound,
		"a login page":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"some other API": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"hello":1}`) },
	} {
		srv := httptest.NewTLSServer(h)
		_, err := Dial(t.Context(), srv.URL, Options{Trust: Trust{Mode: TrustFirstUse}, Sleep: newClock().Sleep})
		if fleet.CodeOf(err) != "MC-BMC-PROTOCOL" {
			t.Errorf("%s: %v", name, err)
		}
		srv.Close()
	}
	srv := httptest.NewTLSServer(nil)
	srv.Close()
	_, err := Dial(t.Context(), srv.URL, Options{Trust: Trust{Mode: TrustFirstUse}, Sleep: newClock().Sleep})
	if fleet.CodeOf(err) != "MC-BMC-UNREACHABLE" || fleet.KindOf(err) != fleet.Unavailable {
		t.Errorf("nobody listens: %v", err)
	}
}
