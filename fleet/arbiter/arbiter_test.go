package arbiter

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/term"
)

const mc1, mc2 = "https://mc1:8443", "https://mc2:8443"

func open(t *testing.T, dir string, now func() time.Duration) *Arbiter {
	t.Helper()
	a, err := Open(Config{Dir: dir, Now: now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ask asks with the newest mark.
func ask(t *testing.T, a *Arbiter, q term.Request) term.Reply {
	t.Helper()
	look, err := a.ask(term.Request{Kind: term.Look, Server: q.Server})
	if err != nil {
		t.Fatal(err)
	}
	q.Mark = look.Mark
	r, err := a.ask(q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRestartKeepsTheTerm: what was granted is known to the next process, which grants nothing new before the old term may be over.
func TestRestartKeepsTheTerm(t *testing.T) {
	dir, now := t.TempDir(), time.Hour
	clock := func() time.Duration { return now }
	a := open(t, dir, clock)
	if r := ask(t, a, term.Request{Kind: term.Renew, Server: mc1}); r.Granted || r.Why != term.Early {
		t.Fatalf("a new arbiter granted at once: %+v", r)
	}
	now += term.Length
	granted := ask(t, a, term.Request{Kind: term.Renew, Server: mc1, Standby: mc2, Even: true})
	if !granted.Granted {
		t.Fatalf("%+v", granted)
	}
	if _, err := Open(Config{Dir: dir, Now: clock, Log: slog.New(slog.DiscardHandler)}); fleet.CodeOf(err) != "MC-ARBITER-STATE" {
		t.Errorf("two processes use one folder: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	now += 2 * term.Length
	a = open(t, dir, clock)
	if r := ask(t, a, term.Request{Kind: term.Claim, Server: mc2}); r.Why != term.Early {
		t.Errorf("granted right after a restart: %+v", r)
	}
	now += term.Length
	if r, err := a.ask(term.Request{Kind: term.Claim, Server: mc2, Mark: granted.Mark}); err != nil || r.Why != term.Stale {
		t.Errorf("a mark of another process: %+v, %v", r, err)
	}
	r := ask(t, a, term.Request{Kind: term.Claim, Server: mc2})
	want := term.State{ID: granted.State.ID, Number: 2, Holder: mc2, Claimed: true}
	if d := cmp.Diff(r.State, want); !r.Granted || d != "" {
		t.Errorf("%+v: %s", r, d)
	}
	if r := ask(t, a, term.Request{Kind: term.Renew, Server: mc1, Standby: mc2}); r.Why != term.Held {
		t.Errorf("the server before has it, too: %+v", r)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStateThatCannotBeKept ends the arbiter: nobody knows what a restart would read.
func TestStateThatCannotBeKept(t *testing.T) {
	dir, now := t.TempDir(), time.Hour
	a := open(t, dir, func() time.Duration { return now })
	defer a.Close() //nolint:errcheck // its folder is gone
	now += term.Length
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	look, err := a.ask(term.Request{Kind: term.Look, Server: mc1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r, err := a.ask(term.Request{Kind: term.Renew, Server: mc1, Mark: look.Mark}); fleet.CodeOf(err) != "MC-ARBITER-STATE" {
			t.Errorf("granted without a file: %+v, %v", r, err)
		}
	}
	if err := <-a.failed; fleet.CodeOf(err) != "MC-ARBITER-STATE" {
		t.Error(err)
	}
}

// TestOverTheNetwork: the key and the token decide who speaks to whom.
func TestOverTheNetwork(t *testing.T) {
	dir, start := t.TempDir(), time.Now()
	a := open(t, dir, func() time.Duration { return time.Since(start) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	token, err := os.ReadFile(TokenFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(CertFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token, server, code string
	}{
		{"as it should be", string(token[:len(token)-1]), mc1, ""},
		{"another token", "x", mc1, "MC-ARBITER-TOKEN"},
		{"no server", string(token[:len(token)-1]), "mc1", "MC-API-INVALID"},
	} {
		cl, err := api.NewClient(api.Config{Server: "https://" + l.Addr().String(), Token: fleet.NewSecret(c.token), Pin: fleet.PinOf(cert)})
		if err != nil {
			t.Fatal(err)
		}
		r, err := cl.AskTerm(ctx, term.Request{Kind: term.Look, Server: c.server})
		if fleet.CodeOf(err) != c.code || err == nil && r.State.ID == "" {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
		cl.Close()
	}
}

func FuzzState(f *testing.F) {
	dir := f.TempDir()
	if err := writeState(dir, term.State{ID: "x", Number: 3, Holder: mc1, Standby: mc2, Even: true}); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte(`{"state":{},"sha256":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseState(text)
		if err != nil {
			return
		}
		dir := t.TempDir()
		if err := writeState(dir, s); err != nil {
			t.Fatal(err)
		}
		again, err := os.ReadFile(filepath.Join(dir, stateFile))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseState(again); err != nil || got != s {
			t.Errorf("%+v became %+v, %v", s, got, err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"kind":"renew","server":"https://mc1:8443","mark":"a/1","standby":"https://mc2:8443","even":true}`))
	f.Add([]byte(`{"kind":"yield","server":"https://mc1:8443","mark":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := parseRequest(text)
		if err != nil {
			return
		}
		a := term.NewArbiter(term.State{ID: "x"}, "", 0)
		q.Mark = "/0"
		if next, r := a.Judge(term.Length, q); r.Granted && (q.Kind == term.Claim || q.Kind == term.Yield || next.Holder != q.Server) {
			t.Errorf("%s was granted %+v", text, next)
		}
	})
}
