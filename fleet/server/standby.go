package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Standby is what a server has to do with a second one.
type Standby interface {
	// ServeHTTP answers api.StandbyPath, all below it, and api.RolePath; who asks for the former was let pass.
	http.Handler
	// PartnerNodes is the address that agents reach the other one of two servers at, "" where there is none.
	PartnerNodes() string
	// State fills in what is known of the other server.
	State(*api.Standby)
	// Refuses says why nothing is taken any more; nil while the server acts.
	Refuses() error
	// Settled waits until what was committed may be acknowledged; an error where it may not, as another server may have taken over without it.
	Settled(context.Context) error
}

func (s *Server) standbyRoutes(mux *http.ServeMux) {
	if s.Standby == nil {
		return
	}
	mux.Handle(api.StandbyPath, s.authorized(s.Standby))
	mux.Handle(api.StandbyPath+"/", s.authorized(s.Standby))
	mux.Handle("GET "+api.RolePath, s.Standby)
}

// allowed keeps a second server's token to what it is for, and others from what only that one needs.
func allowed(t fleet.Token, path string) error {
	below, ours := strings.CutPrefix(path, api.StandbyPath)
	ours = ours && (below == "" || below[0] == '/')
	switch {
	case t.Role == fleet.RoleStandby && !ours:
		return fleet.Errorf(fleet.Denied, "MC-TOKEN-RIGHTS", "the token %s is a second server's and good for following alone", t.Name).WithHint("metalctl token create NAME, for a person")
	case t.Role != fleet.RoleStandby && t.Name != adminName && ours && below != "" && below != "/promote":
		return fleet.Errorf(fleet.Denied, "MC-TOKEN-RIGHTS", "the token %s may not read the whole store", t.Name).WithHint("metalctl token create NAME --role standby")
	case t.Role == fleet.RoleStandby && below == "/promote":
		return fleet.Errorf(fleet.Denied, "MC-TOKEN-RIGHTS", "the token %s follows, and promotes nobody", t.Name).WithHint("use a person's token")
	}
	return nil
}

// CallerOf is the name of the token that a request carried which was let pass.
func CallerOf(ctx context.Context) string { return callerOf(ctx) }

// calls counts requests that change something, so that a server that steps down can wait for them.
type calls struct {
	mu   sync.Mutex // guards n and idle
	n    int
	idle chan struct{} // closed when n is 0; nil where nobody waits
}

func (c *calls) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// wait waits until no call runs.
func (c *calls) wait(ctx context.Context) error {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Quiesce waits until every request that was taken before Standby.Refuses said something has been answered, but for those that only read.
func (s *Server) Quiesce(ctx context.Context) error { return s.calls.wait(ctx) }

// acting refuses what comes to a server that does not act any more.
func (s *Server) acting(next http.Handler) http.Handler {
	if s.Standby == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Counted first and asked afterwards: who refuses from now on and then waits misses no call.
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			s.calls.begin()
			defer s.calls.end()
		}
		if err := s.Standby.Refuses(); err != nil {
			s.refuse(w, r, err)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w = &settling{ResponseWriter: w, s: s, r: r}
		}
		next.ServeHTTP(w, r)
	})
}

// settling is the answer to a request that may have changed something. Nothing of it is sent before that may be acknowledged.
type settling struct {
	http.ResponseWriter
	s             *Server
	r             *http.Request
	begun, failed bool
}

// Unwrap is for http.ResponseController.
func (w *settling) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *settling) WriteHeader(status int) {
	if !w.begun && status >= 200 {
		w.begun = true
		if err := w.s.Standby.Settled(w.r.Context()); err != nil {
			w.failed = true
			w.s.refuse(w.ResponseWriter, w.r, err)
		}
	}
	if !w.failed {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *settling) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.failed {
		return len(b), nil // the caller got another answer
	}
	return w.ResponseWriter.Write(b)
}

// Trust is what proves this fleet's servers: the pin of their key and the certificate of their authority. All that have the store have both. NotFound
// where the store has none yet.
func Trust(ctx context.Context, st fleet.Store) (pin string, caPEM []byte, err error) {
	a, err := readAuthority(ctx, st, nil, time.Now)
	if err != nil {
		return "", nil, err
	}
	return a.pin, a.caPEM, nil
}

// PassiveDeps are the neighbours of a server that does not act.
type PassiveDeps struct {
	Store   Store
	Standby Standby
	Log     *slog.Logger
}

// Passive answers in the place of a server that does not act: how it does, and for everything else where to go. Open it, then Run.
type Passive struct{ s *Server }

// OpenPassive listens, and writes the authority's certificate to DATA_DIR/ca.pem. Close or Run ends it.
func OpenPassive(ctx context.Context, cfg Config, d PassiveDeps) (p *Passive, err error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, Deps: Deps{Store: d.Store, Standby: d.Standby, Log: d.Log, Now: time.Now}, ctx: context.Background()}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.admin, err = adminHash(ctx, d.Store); err != nil {
		return nil, err
	}
	if s.listener, s.advertise, err = listen(cfg.Listen, "https", cfg.Advertise, "listen", "advertise"); err != nil {
		return nil, err
	}
	if s.advertiseNodes, err = nodesURL(cfg.AdvertiseNodes, s.advertise, s.listener); err != nil {
		return nil, err
	}
	if s.ca, err = readAuthority(ctx, d.Store, s.certNames(), s.Now); err != nil {
		return nil, err
	}
	if err = writeCA(cfg.DataDir, s.ca.caPEM); err != nil {
		return nil, err
	}
	return &Passive{s}, nil
}

// Refuse sends err as problem+json.
func (s *Server) Refuse(w http.ResponseWriter, r *http.Request, err error) { s.refuse(w, r, err) }

// Refuse sends err as problem+json.
func (p *Passive) Refuse(w http.ResponseWriter, r *http.Request, err error) { p.s.refuse(w, r, err) }

// URL is where it is reached, as advertised; NodesURL where agents will.
func (p *Passive) URL() string      { return p.s.URL() }
func (p *Passive) NodesURL() string { return p.s.NodesURL() }

// Close ends it without Run.
func (p *Passive) Close() { p.s.Close() }

// Run serves until ctx ends.
func (p *Passive) Run(ctx context.Context) error {
	s := p.s
	mux := http.NewServeMux()
	s.standbyRoutes(mux)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.refuse(w, r, s.Standby.Refuses()) })
	group, ctx := errgroup.WithContext(ctx)
	s.ctx = ctx
	h := s.httpServer(ctx, s.safely(mux))
	group.Go(func() error {
		return served(h.Serve(tls.NewListener(s.listener, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.ca.serverCert, NextProtos: []string{"h2", "http/1.1"}})))
	})
	group.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if err := h.Shutdown(grace); err != nil {
			return errors.Join(h.Close())
		}
		return nil
	})
	return group.Wait()
}

// Addresses are the URLs that a server with this configuration answers at, for others and for agents, where they are known without listening.
func Addresses(cfg Config) (others, nodes string, err error) {
	others = cfg.Advertise
	if others == "" {
		others = "https://" + cfg.Listen
	}
	nodes = cfg.AdvertiseNodes
	if nodes == "" {
		return others, others, nil
	}
	u, err := url.Parse(nodes)
	if err != nil {
		return "", "", fleet.Errorf(fleet.Invalid, "MC-SERVER-ADVERTISE", "the setting advertise_nodes %q is not an https URL without path", nodes)
	}
	if u.Port() == "" {
		if o, err := url.Parse(others); err == nil && o.Port() != "" {
			u.Host = u.Hostname() + ":" + o.Port()
		}
	}
	return others, u.String(), nil
}
