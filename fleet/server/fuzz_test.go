package server

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// A registration is a stranger's bytes: it is refused with words or yields a P-256 key, and never more.
func FuzzRegister(f *testing.F) {
	f.Add([]byte(`{"version":1,"node":"01900000-0000-7000-8000-000000000000","generation":1,"token":"x","csr":"-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"}`))
	f.Add([]byte(`{"version":1,"node":"x","boot":{"stages":{"a":1e309}}}`))
	f.Add([]byte(`{"macs":["00:00:00:00:00:00"]}{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var reg api.Register
		r := httptest.NewRequest(http.MethodPost, api.AgentRegisterPath, bytes.NewReader(body))
		if err := readBody(httptest.NewRecorder(), r, 64<<10, &reg); err != nil {
			if fleet.KindOf(err) != fleet.Invalid || fleet.CodeOf(err) == "" {
				t.Fatalf("got %v", err)
			}
			return
		}
		key, err := decodeRegister(&reg)
		if err == nil && key.Curve != elliptic.P256() {
			t.Fatalf("accepted a key on %s", key.Curve.Params().Name)
		}
		if err != nil && fleet.CodeOf(err) != "MC-AGENT-REGISTER" {
			t.Fatalf("got %v", err)
		}
	})
}

// Only what bootURI makes is read back, and as the same.
func FuzzBootURI(f *testing.F) {
	f.Add("metalctl://node/01900000-0000-7000-8000-000000000000/boot/3")
	f.Add("metalctl://node//boot/1")
	f.Add("metalctl://node/a/boot/01")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		id, generation, err := parseBootURI(u)
		if err != nil {
			return
		}
		if again, g, err := parseBootURI(bootURI(id, generation)); err != nil || again != id || g != generation || generation < 1 {
			t.Fatalf("%q became %q %d", text, id, generation)
		}
	})
}

// No address that this server did not make leads to an image.
func FuzzImageAddress(f *testing.F) {
	s := &Server{ca: &authority{secret: bytes.Repeat([]byte{7}, 32)}}
	op := fleet.OperationID("01900000-0000-7000-8000-000000000000")
	good := s.imageToken(op, "debian")
	f.Add(good, "debian")
	f.Add(good, "ubuntu")
	f.Add(strings.Repeat("0", 36)+".", "../../key")
	f.Fuzz(func(t *testing.T, token, name string) {
		if token == good && name == "debian" {
			return
		}
		// Without a store an accepted address would panic.
		if _, _, err := s.imageOf(t.Context(), token, name); err != errNoImage {
			t.Fatalf("%q %q: %v", token, name, err)
		}
	})
}

// A continue mark is a caller's bytes.
func FuzzContinue(f *testing.F) {
	f.Add("eyJrIjoiYiIsImkiOiJiIn0", 1)
	f.Add("", 0)
	f.Add("%", 2)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		all := []string{"c", "a", "b"}
		l, err := page(all, Paging{Limit: min(max(limit, 0), 1000), Continue: text}, false, func(s string) mark { return mark{s, s} })
		if err != nil {
			if fleet.KindOf(err) != fleet.Invalid {
				t.Fatalf("got %v", err)
			}
			return
		}
		if len(l.Items) > 3 || l.Items == nil {
			t.Fatalf("got %v", l)
		}
	})
}

// What a reader of events asks for is refused with the parameter's name, or begins at an id, at the oldest or at the newest.
func FuzzStreamQuery(f *testing.F) {
	f.Add("after=7&limit=3&follow=true&progress=0&format=sse", "")
	f.Add("after=-1", "99999999999999999999")
	f.Add("after=1;limit=2&follow&colour=%zz", "0")
	f.Fuzz(func(t *testing.T, query, last string) {
		db := nothingStored{}
		s := &Server{Deps: Deps{Store: db}}
		r := httptest.NewRequest(http.MethodGet, "/api/v1/events", nil)
		r.URL.RawQuery = query
		r.Header.Set("Last-Event-ID", last)
		if r.URL.Query().Get("node") != "" {
			return // a name is looked up in the store
		}
		q, err := s.parseStream(r)
		if err != nil {
			if fleet.KindOf(err) != fleet.Invalid || fleet.CodeOf(err) == "" {
				t.Fatalf("got %v", err)
			}
			return
		}
		if q.after < 0 || q.limit < 0 || q.oldest != (q.after == 0) {
			t.Fatalf("%q, %q: got %+v", query, last, q)
		}
	})
}

// nothingStored is a store that knows its newest event alone.
type nothingStored struct{ Store }

func (nothingStored) LastEvent(context.Context) (int64, error) { return 41, nil }

// BMC addresses come into one form, which is a fixed point.
func FuzzBMCAddress(f *testing.F) {
	for _, s := range []string{"https://10.0.0.1", "https://[FE80::1]:443/", "HTTPS://Host:8443", "https://a@b", "http://x", "https://[::1%25eth0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		one, err := bmcAddress(text)
		if err != nil {
			return
		}
		two, err := bmcAddress(one)
		if err != nil || two != one {
			t.Fatalf("%q became %q became %q (%v)", text, one, two, err)
		}
	})
}
