package witness

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func line(event, epoch string, rev fleet.Revision, node string) Line {
	return Line{At: at, Event: event, Epoch: epoch, Generation: 1, Revision: rev, Node: fleet.NodeID(node), Name: node, Boots: int64(rev)}
}

func read(t *testing.T, l Log) []Line {
	t.Helper()
	var out []Line
	if err := l.Read(context.Background(), func(l Line) { out = append(out, l) }); err != nil {
		t.Fatal(err)
	}
	return out
}

func open(t *testing.T, target string) Log {
	t.Helper()
	l, err := Open(target, fleet.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "witness")
	l := open(t, path)
	want := []Line{line(Boot, "a", 1, "n1"), line(Handover, "a", 2, "n1")}
	for _, one := range want {
		if err := l.Append(context.Background(), []Line{one}); err != nil {
			t.Fatal(err)
		}
	}
	// A crash cut the last line off, and somebody wrote a note.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("moved to a new disk\n{\"at\":\"2026"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, read(t, l)); diff != "" {
		t.Error(diff)
	}
	// What comes next is not lost behind it.
	want = append(want, line(Boot, "a", 3, "n1"))
	if err := l.Append(context.Background(), want[2:]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, read(t, l)); diff != "" {
		t.Error(diff)
	}
}

func TestSyslog(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		text, _ := bufio.NewReader(conn).ReadString('\n')
		got <- text
	}()
	l := open(t, "syslog://"+listener.Addr().String())
	if err := l.Append(context.Background(), []Line{line(Boot, "a", 7, "n1")}); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if !strings.HasPrefix(text, "<133>1 2026-01-02T03:04:05Z ") || !strings.Contains(text, ` witness - {"at":`) || !strings.Contains(text, `"revision":7`) {
			t.Errorf("got %q", text)
		}
	case <-time.After(90 * time.Second):
		t.Fatal("nothing came")
	}
	if v := Compare(context.Background(), fleet.StoreIdentity{}, []Log{l}); v.Testimony != fleet.Silent {
		t.Errorf("a log that cannot be read says %+v", v)
	}
}

func TestHTTPS(t *testing.T) {
	var mu sync.Mutex
	var kept []byte
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Header.Get("Authorization") != "Bearer word":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost:
			b, _ := io.ReadAll(r.Body)
			kept = append(kept, b...)
		default:
			w.Write(kept) //nolint:errcheck // the test sees what is missing
		}
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	l := newRemote(u, fleet.NewSecret("word"))
	l.client = srv.Client()
	want := []Line{line(Boot, "a", 1, "n1"), line(Clean, "a", 2, "n1")}
	if err := l.Append(context.Background(), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, read(t, l)); diff != "" {
		t.Error(diff)
	}
	l.token = fleet.Secret{}
	if err := l.Append(context.Background(), want); err == nil {
		t.Error("an answer of 401 is no error")
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, target := range []string{"", "witness.log", "http://host/x", "syslog://host", "https://user:word@host/", "ftp://host/"} {
		if _, err := Open(target, fleet.Secret{}); fleet.CodeOf(err) != "MC-WITNESS-TARGET" {
			t.Errorf("%q: got %v", target, err)
		}
	}
}

func TestCompare(t *testing.T) {
	id := fleet.StoreIdentity{Lives: []fleet.StoreLife{{Epoch: "a"}, {Epoch: "b", From: 10}}, Revision: 20}
	for name, c := range map[string]struct {
		lines []Line
		want  fleet.Testimony
		nodes int
	}{
		"nothing yet":                       {nil, fleet.Silent, 0},
		"all of it is known":                {[]Line{line(Boot, "a", 10, "n1"), line(Boot, "b", 20, "n1")}, fleet.Agrees, 0},
		"after the backup that came back":   {[]Line{line(Boot, "a", 11, "n1"), line(Boot, "b", 20, "n2")}, fleet.Stale, 1},
		"the store went back":               {[]Line{line(Boot, "b", 21, "n1"), line(Handover, "b", 22, "n2")}, fleet.Stale, 2},
		"a life that the store never had":   {[]Line{line(Start, "c", 1, "")}, fleet.Stale, 0},
		"the same node twice counts as one": {[]Line{line(Boot, "b", 21, "n1"), line(Boot, "b", 22, "n1")}, fleet.Stale, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, filepath.Join(t.TempDir(), "witness"))
			if err := l.Append(context.Background(), c.lines); err != nil {
				t.Fatal(err)
			}
			v := Compare(context.Background(), id, []Log{l})
			if v.Testimony != c.want || len(v.Nodes) != c.nodes {
				t.Errorf("got %+v, want %s of %d nodes", v, c.want, c.nodes)
			}
		})
	}
	if v := Compare(context.Background(), id, []Log{open(t, "/nowhere/at/all")}); v.Testimony != fleet.Silent {
		t.Errorf("a witness that is gone says %+v", v)
	}
}

// TestFollow: what is committed is said outside, once, and a follower that begins anew says only what is new.
func TestFollow(t *testing.T) {
	db := contract.OpenStore(t)
	l := open(t, filepath.Join(t.TempDir(), "witness"))
	put := func(n fleet.Node) {
		t.Helper()
		_, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}}, Events: []fleet.Event{{Type: "node.state", Node: n.ID}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	said := func() (out []string) {
		if _, err := os.Stat(l.String()); err != nil {
			return nil
		}
		for _, x := range read(t, l) {
			out = append(out, x.Event+" "+x.Name)
		}
		return out
	}
	follow := func(want string, change func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			(&Follower{Store: db, Logs: []Log{l}, Now: func() time.Time { return at }, Log: slog.New(slog.DiscardHandler)}).Run(ctx) //nolint:errcheck // it ends with ctx
		}()
		defer func() { cancel(); <-ended }()
		begun := strings.Count(strings.Join(said(), ","), Start)
		until(t, func() bool {
			return strings.Count(strings.Join(said(), ","), Start) > begun || begun > 0 && len(said()) > 0
		})
		change()
		until(t, func() bool { return strings.HasSuffix(strings.Join(said(), ","), want) })
	}
	n := fleet.Node{ID: "1", Name: "n1", State: fleet.Available, Boot: fleet.BootRecord{Generation: 1}}
	follow("start ,boot n1,handover n1", func() {
		put(n)
		until(t, func() bool { return strings.HasSuffix(strings.Join(said(), ","), "boot n1") })
		put(n) // nothing new
		n.Handovers, n.Dirty = 1, "lease"
		put(n)
	})
	n.Dirty = "" // while nobody looked
	put(n)
	follow("handover n1,start ,clean n1", func() {})
	id, err := db.Identity(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if v := Compare(context.Background(), id, []Log{l}); v.Testimony != fleet.Agrees {
		t.Errorf("got %+v", v)
	}
}

// hasty is a store in which something is committed the moment that the last event is asked for.
type hasty struct {
	Store
	first func()
}

func (h *hasty) LastEvent(ctx context.Context) (int64, error) {
	if h.first != nil {
		h.first()
		h.first = nil
	}
	return h.Store.LastEvent(ctx)
}

// TestFollowFromTheFirst commits a node's handover while the follower begins: it is said, whenever in that moment it came.
func TestFollowFromTheFirst(t *testing.T) {
	db := contract.OpenStore(t)
	l := open(t, filepath.Join(t.TempDir(), "witness"))
	s := &hasty{Store: db, first: func() {
		n := fleet.Node{ID: "1", Name: "n1", State: fleet.Available, Handovers: 1, Dirty: "lease"}
		if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n}}, Events: []fleet.Event{{Type: "node.state", Node: n.ID}}}); err != nil {
			t.Error(err)
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&Follower{Store: s, Logs: []Log{l}, Now: func() time.Time { return at }, Log: slog.New(slog.DiscardHandler)}).Run(ctx) //nolint:errcheck // it ends with ctx
	}()
	defer func() { cancel(); <-ended }()
	until(t, func() bool {
		if _, err := os.Stat(l.String()); err != nil {
			return false
		}
		lines := read(t, l)
		return len(lines) > 0 && lines[len(lines)-1].Event == Handover
	})
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"at":"2026-01-02T03:04:05Z","event":"boot","epoch":"a","revision":1}` + "\nnonsense\n")
	f.Fuzz(func(t *testing.T, text string) {
		parse(strings.NewReader(text), func(l Line) { //nolint:errcheck // a line that is too long ends it
			if l.Epoch == "" || l.Revision < 0 {
				t.Errorf("took %+v for a line", l)
			}
		})
	})
}
