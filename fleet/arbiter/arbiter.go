// Package arbiter is the third party that lends two servers the term: one small file, and one question over HTTPS.
package arbiter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/term"
)

// Config of an arbiter.
type Config struct {
	// Dir is its folder; Open makes what is missing in it: the state, the token, and the key and certificate that servers know it by.
	Dir string
	// Now is time since an arbitrary moment, which nobody sets and which runs on while the machine sleeps.
	Now func() time.Duration
	Log *slog.Logger
}

// Arbiter answers api.TermPath. Open makes it; Close lets go of its folder.
type Arbiter struct {
	cfg   Config
	token [sha256.Size]byte
	cert  tls.Certificate
	close func() error
	// failed gets why the state could not be kept: nobody knows then what a restart will read, so that this process must answer nothing more.
	failed chan error

	mu    sync.Mutex // guards judge and dead
	judge *term.Arbiter
	dead  bool
}

// Open reads the folder, or makes one. Errors: MC-ARBITER-STATE where it cannot be read or written, or another process uses it.
func Open(cfg Config) (*Arbiter, error) {
	s, err := openFolder(cfg.Dir)
	if err != nil {
		return nil, fleet.Errorf(fleet.Broken, "MC-ARBITER-STATE", "open the arbiter's folder %s: %w", cfg.Dir, err).
			WithHint("see that no other arbiter uses it and that it can be written; to begin anew: metalctl help MC-ARBITER-STATE")
	}
	return &Arbiter{cfg: cfg, token: sha256.Sum256([]byte(s.token)), cert: s.cert, close: s.unlock, failed: make(chan error, 1),
		judge: term.NewArbiter(s.state, randomHex(), cfg.Now())}, nil
}

// Close lets go of the folder.
func (a *Arbiter) Close() error { return a.close() }

// Serve answers on l until ctx ends, or the state cannot be kept.
func (a *Arbiter) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{Handler: a, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug)}
	served := make(chan error, 1)
	go func() {
		served <- h.Serve(tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{a.cert}}))
	}()
	var err error
	select {
	case err = <-served:
		return err
	case <-ctx.Done():
	case err = <-a.failed:
	}
	closing := h.Close()
	<-served
	return errors.Join(err, closing)
}

// ServeHTTP answers a question about the term, and nothing else.
func (a *Arbiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/healthz" && r.Method == http.MethodGet:
		io.WriteString(w, "ok\n") //nolint:errcheck // the caller is gone
		return
	case r.URL.Path != api.TermPath || r.Method != http.MethodPost:
		refuse(w, r, fleet.Errorf(fleet.NotFound, "MC-API-PATH", "there is no %s %.200s here", r.Method, r.URL.Path).WithHint("an arbiter answers servers alone"))
		return
	}
	got := sha256.Sum256([]byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
	if subtle.ConstantTimeCompare(got[:], a.token[:]) != 1 {
		refuse(w, r, fleet.Errorf(fleet.Denied, "MC-ARBITER-TOKEN", "the arbiter does not know this token").WithHint("copy %s from its folder to both servers", tokenFile))
		return
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, 16<<10))
	if err != nil {
		return // the caller is gone
	}
	q, err := parseRequest(text)
	if err != nil {
		refuse(w, r, err)
		return
	}
	reply, err := a.ask(q)
	if err != nil {
		refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(reply) //nolint:errcheck // the caller is gone
}

// ask judges, and keeps what was granted before anybody hears of it.
func (a *Arbiter) ask(q term.Request) (term.Reply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead {
		return term.Reply{}, errState
	}
	before := a.judge.State()
	next, reply := a.judge.Judge(a.cfg.Now(), q)
	if !reply.Granted {
		return reply, nil
	}
	if next != before {
		if err := writeState(a.cfg.Dir, next); err != nil {
			a.dead = true
			a.failed <- fleet.Errorf(fleet.Broken, "MC-ARBITER-STATE", "keep the term: %w", err).WithHint("make room, or mend the disk; then start the arbiter again")
			return term.Reply{}, errState
		}
	}
	if next.Number != before.Number {
		a.cfg.Log.Warn("the term goes to another server", "url", next.Holder, "peer", before.Holder, "term", next.Number, "why", string(q.Kind))
	}
	return a.judge.Accept(a.cfg.Now(), next), nil
}

var errState = fleet.Errorf(fleet.Broken, "MC-ARBITER-STATE", "the arbiter cannot keep its state").WithHint("look at its disk and start it again")

// parseRequest reads a question strictly.
func parseRequest(text []byte) (q term.Request, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "the question is not valid: %w", err).WithHint("the arbiter is upgraded before the servers")
	}
	ok := isServer(q.Server) && (q.Standby == "" || isServer(q.Standby)) && q.Standby != q.Server
	switch q.Kind {
	case term.Look, term.Renew, term.Claim:
	case term.Yield:
		ok = ok && q.Standby != ""
	default:
		ok = false
	}
	if !ok {
		return q, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "the question %.20q of %.200q with the standby %.200q has no meaning", q.Kind, q.Server, q.Standby).
			WithHint("the setting advertise of each server is its own https URL")
	}
	return q, nil
}

func isServer(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Host != "" && len(text) <= 300
}

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := api.NewProblem(err, r.URL.Path)
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) //nolint:errcheck // the caller is gone
}

func sumHex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
