package api

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/metalctl/metalctl/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server and a client that trusts it by its authority.
func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, *Client) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s, newClient(t, Config{Server: s.URL, CACert: caOf(s), Token: fleet.NewSecret("mc-token"), Timeout: time.Minute})
}

func caOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func newClient(t *testing.T, c Config) *Client {
	t.Helper()
	client, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func wantCode(t *testing.T, err error, kind fleet.Kind, code string) {
	t.Helper()
	if fleet.CodeOf(err) != code || fleet.KindOf(err) != kind {
		t.Errorf("got %v (%s, %s), want %s, %s", err, fleet.KindOf(err), fleet.CodeOf(err), kind, code)
	}
}

// What the server had as an error, the client has: the CLI's exit codes and hints depend on it.
func TestProblemRoundTrip(t *testing.T) {
	for kind := fleet.Broken; kind <= fleet.Timeout; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			want := &fleet.Error{Kind: kind, Code: "MC-TEST", Msg: "it did not work", Hint: "try again", Fields: []fleet.FieldError{{Field: "a.b", Message: "is wrong"}}}
			p := NewProblem(want, "/x")
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			var back Problem
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, back.Err()); diff != "" {
				t.Error(diff)
			}
			if p.Status < 400 || p.Title == "" || p.Instance != "/x" || p.Type != "urn:metalctl:problem:MC-TEST" {
				t.Errorf("got %+v", p)
			}
			// A proxy that drops what it does not know leaves at least the kind's family.
			back.Kind = ""
			if got := StatusOf(back.Err()); got/100 != p.Status/100 {
				t.Errorf("without its kind %s becomes %d, was %d", kind, got, p.Status)
			}
		})
	}
}

// Errors wrapped on their way keep kind, code, hint and words; those without a code are the server's own business.
func TestProblemOfWrappedErrors(t *testing.T) {
	inner := fleet.Errorf(fleet.Unavailable, "MC-BMC-BUSY", "the BMC is busy").WithHint("wait")
	p := NewProblem(fmt.Errorf("enrol n1: %w", inner), "")
	if p.Status != 503 || p.Code != "MC-BMC-BUSY" || p.Hint != "wait" || p.Detail != "enrol n1: the BMC is busy" {
		t.Errorf("got %+v", p)
	}
	p = NewProblem(errors.New("dial 10.0.0.1 with hunter2"), "")
	if p.Status != 500 || p.Code != "MC-API-BROKEN" || strings.Contains(p.Detail, "hunter2") {
		t.Errorf("got %+v", p)
	}
}

func TestNewClientRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		c    Config
		code string
	}{
		"no address":        {Config{}, "MC-CLIENT-SERVER"},
		"plain http":        {Config{Server: "http://h"}, "MC-CLIENT-SERVER"},
		"a path":            {Config{Server: "https://h/api"}, "MC-CLIENT-SERVER"},
		"a user":            {Config{Server: "https://u:p@h"}, "MC-CLIENT-SERVER"},
		"a CA that is not":  {Config{Server: "https://h", CACert: []byte("x")}, "MC-CLIENT-CACERT"},
		"a pin that is not": {Config{Server: "https://h", Pin: "sha256/x"}, "MC-CLIENT-PIN"},
	} {
		if _, err := NewClient(tt.c); fleet.CodeOf(err) != tt.code || fleet.KindOf(err) != fleet.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// No token leaves before the server has proven itself.
func TestWhomTheClientTrusts(t *testing.T) {
	var asked atomic.Int32
	s, good := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, `{}`)
	})
	if _, err := good.Site(context.Background()); err != nil {
		t.Fatal(err)
	}
	pinned := newClient(t, Config{Server: strings.Replace(s.URL, "127.0.0.1", "localhost", 1), Pin: fleet.PinOf(s.Certificate()), Timeout: time.Minute})
	if _, err := pinned.Site(context.Background()); err != nil {
		t.Errorf("by its pin: %v", err)
	}
	before := asked.Load()
	for name, c := range map[string]Config{
		"the system's authorities": {Server: s.URL},
		"another pin":              {Server: s.URL, Pin: "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
	} {
		c.Timeout = time.Minute
		_, err := newClient(t, c).Site(context.Background())
		if fleet.CodeOf(err) != "MC-CLIENT-TLS" || fleet.KindOf(err) != fleet.Refused {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if asked.Load() != before {
		t.Error("a server that was not trusted got a request")
	}
}

func TestOnlyReadsAreTriedAgain(t *testing.T) {
	var calls atomic.Int32
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"isolation":"none"}`)
	})
	site, err := c.Site(context.Background())
	if err != nil || site.Isolation != "none" || calls.Load() != 3 {
		t.Errorf("got %v, %v after %d calls", site, err, calls.Load())
	}
	calls.Store(0)
	_, err = c.CreateLease(context.Background(), LeaseCreate{}, "")
	wantCode(t, err, fleet.Unavailable, "MC-CLIENT-ANSWER")
	if calls.Load() != 1 {
		t.Errorf("a write was sent %d times", calls.Load())
	}
}

func TestAnswersThatAreNotOurs(t *testing.T) {
	for name, tt := range map[string]struct {
		h    http.HandlerFunc
		kind fleet.Kind
		code string
	}{
		"a page of a proxy": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); fmt.Fprint(w, "<html>") }, fleet.NotFound, "MC-CLIENT-ANSWER"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example", http.StatusFound)
		}, fleet.Broken, "MC-CLIENT-ANSWER"},
		"an empty problem": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); fmt.Fprint(w, `{}`) }, fleet.Broken, "MC-CLIENT-ANSWER"},
		"a problem": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(409)
			fmt.Fprint(w, `{"status":409,"detail":"no","code":"MC-X","kind":"conflict"}`)
		}, fleet.Conflict, "MC-X"},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := serve(t, tt.h)
			_, err := c.Node(context.Background(), "n1")
			wantCode(t, err, tt.kind, tt.code)
		})
	}
}

func TestUnreachableAndGivenUp(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	s.Close()
	c := newClient(t, Config{Server: s.URL, CACert: caOf(s)})
	wantCode(t, c.ForgetNode(context.Background(), "n1"), fleet.Unavailable, "MC-CLIENT-UNREACHABLE")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantCode(t, c.ForgetNode(ctx, "n1"), fleet.Timeout, "MC-CLIENT-CANCELLED")

	hang := make(chan struct{})
	_, slow := serve(t, func(http.ResponseWriter, *http.Request) { <-hang })
	defer close(hang)
	slow.timeout = 50 * time.Millisecond
	_, err := slow.Site(context.Background())
	wantCode(t, err, fleet.Timeout, "MC-CLIENT-TIMEOUT")
}

// Names travel in paths: what is not a name must not become another path.
func TestNamesAreEscaped(t *testing.T) {
	var got string
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) { got = r.URL.EscapedPath(); fmt.Fprint(w, `{}`) })
	if _, err := c.Node(context.Background(), "../site"); err != nil {
		t.Fatal(err)
	}
	if got != "/api/v1/nodes/..%2Fsite" {
		t.Errorf("got %s", got)
	}
}

func TestListsFollowPages(t *testing.T) {
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer mc-token" {
			t.Error("the token is missing")
		}
		switch r.URL.Query().Get("continue") {
		case "":
			fmt.Fprint(w, `{"items":[{"name":"a"},{"name":"b"}],"continue":"x","revision":7}`)
		case "x":
			fmt.Fprint(w, `{"items":[{"name":"c"}],"revision":8}`)
		}
	})
	l, err := c.Nodes(context.Background(), ListOptions{Selector: "rack=r1"})
	if err != nil || len(l.Items) != 3 || l.Items[2].Name != "c" || l.Continue != "" {
		t.Errorf("got %+v, %v", l, err)
	}
	l, err = c.Nodes(context.Background(), ListOptions{Limit: 2})
	if err != nil || len(l.Items) != 2 || l.Continue != "x" {
		t.Errorf("got %+v, %v", l, err)
	}
}

// A stream that is cut goes on after the last event that was seen, also where that was not for this reader.
func TestWatchResumes(t *testing.T) {
	var asked []string
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		after := r.URL.Query().Get("after")
		asked = append(asked, after)
		switch after {
		case "5":
			fmt.Fprint(w, ": hello\n\nevent: node.state\nid: 6\ndata: {\"id\":6,\"type\":\"node.state\",\"text\":\"a\"}\n\nevent: progress\ndata: {\"percent\":40}\n\nevent: position\nid: 9\ndata: {}\n\nevent: node.state\nid: 10\ndata: {\"id\"")
		case "9":
			fmt.Fprint(w, "event: node.state\nid: 10\ndata: {\"id\":10,\"type\":\"node.state\",\"text\":\"b\"}\n\nevent: problem\ndata: {\"status\":410,\"detail\":\"gone\",\"code\":\"MC-EVENTS-GONE\",\"kind\":\"not found\"}\n\n")
		}
	})
	var seen []string
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := c.Watch(ctx, WatchOptions{After: 5,
		Event:    func(e fleet.Event) error { seen = append(seen, e.Text); return nil },
		Progress: func(p fleet.Progress) error { seen = append(seen, fmt.Sprint(p.Percent)); return nil }})
	wantCode(t, err, fleet.NotFound, "MC-EVENTS-GONE")
	if diff := cmp.Diff([]string{"a", "40", "b"}, seen); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"5", "9"}, asked); diff != "" {
		t.Error(diff)
	}
}

// The stream is a server's bytes: whatever they are, reading them ends and does not panic.
func FuzzStream(f *testing.F) {
	f.Add("event: a\nid: 1\ndata: {}\n\n")
	f.Add("event: progress\ndata: {\"percent\":1}\n\n")
	f.Add("event: problem\ndata: {}\n\nid: x\nevent: a\n\n")
	f.Add(": \n\n\n:\ndata\nid\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		o := WatchOptions{Event: func(fleet.Event) error { return nil }, Progress: func(fleet.Progress) error { return nil }}
		_, err := o.read(strings.NewReader(text))
		if err == nil && o.After < 0 && !strings.Contains(text, "-") {
			t.Fatalf("the stream is at %d", o.After)
		}
	})
}
