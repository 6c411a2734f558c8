package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func policyFor(servers ...*httptest.Server) Policy {
	p := Policy{Allow: loopback, Wait: func(ctx context.Context, _ int) error { return ctx.Err() }}
	for _, s := range servers {
		p.Origins = append(p.Origins, s.URL)
	}
	return p
}

// breaking serves data and cuts each connection after a few hundred KiB.
func breaking(data []byte, cut int, requests *atomic.Int32, etag func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if tag := etag(); tag != "" {
			w.Header().Set("ETag", tag)
		}
		http.ServeContent(&cutter{w, cut}, r, "", time.Time{}, bytes.NewReader(data))
	}
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.left < len(p) {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func testData(n int) ([]byte, string) {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(b)
	sum := sha256.Sum256(b)
	return b, hex.EncodeToString(sum[:])
}

func TestABrokenConnectionIsTakenUpWhereItBroke(t *testing.T) {
	data, digest := testData(3 << 20)
	var requests atomic.Int32
	s := httptest.NewServer(breaking(data, 300<<10, &requests, func() string { return `"v1"` }))
	defer s.Close()
	o, err := Open(t.Context(), s.URL+"/debian.raw", policyFor(s))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	var got bytes.Buffer
	img := Image{Name: "x", Format: Raw, SHA256: digest, SizeBytes: int64(len(data))}
	res, err := Decode(t.Context(), o, img, func(e Extent) error { defer e.Release(); got.Write(e.Data); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) || res.DiskBytes != int64(len(data)) {
		t.Errorf("%d bytes arrived, want %d", got.Len(), len(data))
	}
	if n := requests.Load(); n < 10 || n > 16 {
		t.Errorf("%d requests, want about 12", n)
	}
}

func TestAFileGoesOnWhereItHasMovedTo(t *testing.T) {
	data, digest := testData(1 << 20)
	var first, second atomic.Int32
	tag := func() string { return `"v1"` }
	old, moved := httptest.NewServer(breaking(data, 300<<10, &first, tag)), httptest.NewServer(breaking(data, len(data), &second, tag))
	defer old.Close()
	defer moved.Close()
	p := policyFor(old, moved)
	p.Moved = func() string {
		if first.Load() < 2 {
			return ""
		}
		return moved.URL
	}
	fetch := func(p Policy) ([]byte, error) {
		first.Store(0)
		o, err := Open(t.Context(), old.URL+"/debian.raw", p)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		var got bytes.Buffer
		_, err = Decode(t.Context(), o, Image{Name: "x", Format: Raw, SHA256: digest, SizeBytes: int64(len(data))}, func(e Extent) error { defer e.Release(); got.Write(e.Data); return nil })
		return got.Bytes(), err
	}
	if got, err := fetch(p); err != nil || !bytes.Equal(got, data) || first.Load() != 2 || second.Load() != 1 {
		t.Errorf("%d bytes arrived by %d and %d requests, %v", len(got), first.Load(), second.Load(), err)
	}
	p.Origins = p.Origins[:1]
	if _, err := fetch(p); fleet.CodeOf(err) != "MC-IMAGE-ORIGIN" || second.Load() != 1 {
		t.Errorf("it was fetched from where nothing may be fetched from, with %d requests: %v", second.Load(), err)
	}
}

func TestAFileThatChangesOnTheWayIsRefused(t *testing.T) {
	data, digest := testData(1 << 20)
	var requests atomic.Int32
	s := httptest.NewServer(breaking(data, 300<<10, &requests, func() string { return fmt.Sprintf(`"v%d"`, requests.Load()/3) }))
	defer s.Close()
	o, err := Open(t.Context(), s.URL+"/debian.raw", policyFor(s))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Decode(t.Context(), o, Image{Name: "x", Format: Raw, SHA256: digest}, func(e Extent) error { e.Release(); return nil })
	if fleet.CodeOf(err) != "MC-IMAGE-DIGEST" {
		t.Errorf("got %v, want MC-IMAGE-DIGEST", err)
	}
}

func TestAnOriginWithoutRangesIsReadAgain(t *testing.T) {
	data, digest := testData(1 << 20)
	var requests atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		cut := len(data)
		if requests.Add(1) == 2 {
			cut = 500 << 10
		}
		_, _ = w.Write(data[:cut])
		if cut < len(data) {
			panic(http.ErrAbortHandler)
		}
	}))
	defer s.Close()
	o, err := Open(t.Context(), s.URL+"/x", policyFor(s))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(t.Context(), o, Image{Name: "x", Format: Raw, SHA256: digest}, func(e Extent) error { e.Release(); return nil }); err != nil {
		t.Error(err)
	}
	if _, err := o.ReadRange(t.Context(), 0, 10); fleet.CodeOf(err) != "MC-IMAGE-FETCH" {
		t.Errorf("a range: %v", err)
	}
}

func TestAnOriginThatStaysAwayEndsInAnError(t *testing.T) {
	data, _ := testData(1 << 20)
	var requests atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := requests.Add(1); n > 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		http.ServeContent(&cutter{w, 100 << 10}, r, "", time.Time{}, bytes.NewReader(data))
	}))
	defer s.Close()
	p := policyFor(s)
	p.Tries = 4
	o, err := Open(t.Context(), s.URL+"/x", p)
	if err != nil {
		t.Fatal(err)
	}
	r, err := o.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if fleet.CodeOf(err) != "MC-IMAGE-FETCH" || fleet.KindOf(err) != fleet.Unavailable || n == 0 {
		t.Errorf("%d bytes, then %v; want MC-IMAGE-FETCH", n, err)
	}
	t.Log(err)
	if got := requests.Load(); got != 2+4-1 {
		t.Errorf("%d requests, want 5", got)
	}
}

func TestASilentConnectionIsGivenUp(t *testing.T) {
	t.Parallel() // it waits
	data, digest := testData(1 << 20)
	var requests atomic.Int32
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 2 {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:1000])
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-release:
			}
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	defer s.Close()
	defer close(release)
	p := policyFor(s)
	p.Stall = 3 * time.Second // on a slow machine one that is not silent may well take a second
	o, err := Open(t.Context(), s.URL+"/x", p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(t.Context(), o, Image{Name: "x", Format: Raw, SHA256: digest}, func(e Extent) error { e.Release(); return nil }); err != nil {
		t.Error(err)
	}
}

func TestOnlyAllowedOriginsAreFetchedFrom(t *testing.T) {
	data, _ := testData(1000)
	var asked atomic.Int32
	good := httptest.NewServer(nil)
	defer good.Close()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer other.Close()
	good.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch to := r.URL.Query().Get("to"); to {
		case "":
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		default:
			http.Redirect(w, r, to, http.StatusFound)
		}
	})
	goodPort := strings.TrimPrefix(good.URL, "http://127.0.0.1")
	for _, c := range []struct {
		name, url string
		change    func(*Policy)
		says      string
	}{
		{"allowed", good.URL + "/x", nil, ""},
		{"redirect within the origin", good.URL + "/x?to=/y", nil, ""},
		{"not on the list", other.URL + "/x", nil, "not on the allow-list"},
		{"another scheme", "ftp://127.0.0.1/x", nil, "only https and http"},
		{"a file", "file:///etc/shadow", nil, "only https and http"},
		{"another port", "http://127.0.0.1:1/x", nil, "not on the allow-list"},
		{"credentials in the address", strings.Replace(good.URL, "http://", "http://u:p@", 1), nil, "credentials"},
		{"a redirect to an origin not on the list", good.URL + "/x?to=" + other.URL, nil, "not on the allow-list"},
		{"a redirect to link-local", good.URL + "/x?to=http://169.254.169.254/latest", nil, "link-local"},
		{"two redirects", good.URL + "/x?to=" + url.QueryEscape("/x?to=/y"), nil, ""},
		{"loopback without exception", good.URL + "/x", func(p *Policy) { p.Allow = nil }, "loopback"},
		{"a name that resolves to loopback", "http://localhost" + goodPort + "/x", func(p *Policy) { p.Allow, p.Origins = nil, []string{"http://localhost" + goodPort} }, "resolves to"},
		{"an address among the BMCs", "http://10.1.2.3/x", func(p *Policy) {
			p.Origins, p.Deny = []string{"http://10.1.2.3"}, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
		}, "10.1.0.0/16"},
		{"the same written as IPv6", "http://[::ffff:10.1.2.3]/x", func(p *Policy) {
			p.Origins, p.Deny = []string{"http://[::ffff:10.1.2.3]"}, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
		}, "10.1.0.0/16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policyFor(good)
			if c.change != nil {
				c.change(&p)
			}
			_, err := Open(t.Context(), c.url, p)
			if c.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if fleet.CodeOf(err) != "MC-IMAGE-ORIGIN" || !strings.Contains(err.Error(), c.says) || fleet.KindOf(err) != fleet.Refused {
				t.Errorf("got %v, want MC-IMAGE-ORIGIN with %q", err, c.says)
			}
		})
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the other server was asked %d times", n)
	}
}

func TestTheWildcardCoversNamesBelowOnly(t *testing.T) {
	p := Policy{Origins: []string{"https://*.example.org"}}
	for address, want := range map[string]bool{"https://a.example.org/x": true, "https://a.b.example.org:443/x": true, "https://example.org/x": false,
		"https://evilexample.org/x": false, "http://a.example.org/x": false, "https://a.example.org:8443/x": false} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Check(u) == nil; got != want {
			t.Errorf("%s: allowed %v, want %v", address, got, want)
		}
	}
}

func TestSecretsStayWithTheirOrigin(t *testing.T) {
	var leaked atomic.Bool
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get("X-Token") != "")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("x"))
	}))
	defer second.Close()
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Token") != "secret" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.Redirect(w, r, second.URL, http.StatusFound)
	}))
	defer first.Close()
	p := policyFor(first, second)
	p.Header = http.Header{"X-Token": {"secret"}}
	if _, err := Open(t.Context(), first.URL, p); err != nil {
		t.Fatal(err)
	}
	if leaked.Load() {
		t.Error("the header went along to the other origin")
	}
}
