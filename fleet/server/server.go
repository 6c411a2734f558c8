package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Config is what an operator sets.
type Config struct {
	// Listen is host:port for https, everything; "" means 127.0.0.1:8443. Port 0 takes a free one.
	Listen string
	// ListenBoot is host:port for plain http, boot media and images only; "" means none.
	ListenBoot string
	// Advertise is the https URL that BMCs and nodes reach Listen at; "" means the address listened on.
	Advertise string
	// AdvertiseNodes is the https URL that nodes reach Listen at, where their network is another than the BMCs'; without a port it takes
	// Listen's, and "" means Advertise.
	AdvertiseNodes string
	// AdvertiseBoot is the http URL that BMCs reach ListenBoot at; "" means the address listened on.
	AdvertiseBoot string
	// Servers are further servers for the agents' credentials, in order, after this one.
	Servers []fleet.ServerRef
	// DataDir holds images/, packs/ and ca.pem.
	DataDir string
	// Console is a further device for the agents' messages, such as "ttyS1,115200".
	Console string
	// MediaLife is how long a boot medium may be read after it was issued; 0 means 24 h.
	MediaLife       time.Duration
	Version, Commit string
	// Drivers are the names of what is bound, for GET capabilities.
	Drivers map[string]string

	// agentVersion is the newest version of the agent's protocol that is spoken; tests of what becomes of older agents set it, 0 means api.AgentVersion.
	agentVersion int
}

// Store is where the server keeps everything durable.
type Store interface {
	fleet.Store
	// LastEvent returns the newest event's id, 0 where there was none.
	LastEvent(context.Context) (int64, error)
}

// Deps are the server's neighbours. All are needed where nothing else is said.
type Deps struct {
	Store       Store
	Blobs       fleet.Blobs
	Timeline    fleet.Timeline
	Enroller    Enroller
	Credentials Credentials
	Power       Powerer
	Media       Media
	Images      ImageChecker
	Packs       PackChecker
	// Boards may be nil: then there are no baseboards to compare with.
	Boards Boards
	// Wires may be nil: then there are no fabrics.
	Wires Wires
	// Backups and Physician may be nil: what they answer then is refused.
	Backups   Backups
	Physician Physician
	// Log is nil for silence.
	Log *slog.Logger
	// Now is the clock; nil takes time.Now.
	Now func() time.Time
	// Stored is told of each uploaded image and pack, as images/SHA256 or packs/SHA256; nil: nobody is.
	Stored func(path string)
	// Profiles are the burn-in profiles that ship; the store has the site's own.
	Profiles []fleet.BurnProfile
	// Standby is what the server has to do with a second one; nil: nothing.
	Standby Standby
	// Metrics is what /metrics shows; nil makes one of its own.
	Metrics *prometheus.Registry
}

// Server answers the API. Open makes it, so that Issue, Expire and Up can be handed to the engine; Run serves.
type Server struct {
	cfg Config
	Deps
	ca       *authority
	admin    string // hex SHA-256 of the admin token
	presence *presence
	progress *progressHub
	media    *mediaIndex
	engine   Engine
	calls    calls
	ctx      context.Context // set by Run; ends streams and long polls when the server stops
	process  string          // tells this process from earlier ones
	agents   int             // the newest version of the agent's protocol that is spoken
	// durations is filled by observe.
	durations *prometheus.HistogramVec
	// burnChecks is filled by observe.
	burnChecks *prometheus.CounterVec
	redfish    *prometheus.HistogramVec
	leaseWait  prometheus.Histogram // filled by observe
	powering   sync.Map             // node ids whose power is being set by hand
	uploads    sync.Mutex           // one upload or removal of image files at a time changes the folder's names

	listener, bootListener                   net.Listener
	advertise, advertiseNodes, advertiseBoot *url.URL
}

// Open listens, reads or makes the server's authority, and writes its certificate to DATA_DIR/ca.pem. The admin token must be there
// (EnsureAdminToken). Call Run or Close afterwards.
func Open(ctx context.Context, cfg Config, d Deps) (s *Server, err error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:8443"
	}
	if cfg.MediaLife == 0 {
		cfg.MediaLife = 24 * time.Hour
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Metrics == nil {
		d.Metrics = prometheus.NewRegistry()
	}
	if d.Wires == nil {
		d.Wires = unwired{}
	}
	if d.Stored == nil {
		d.Stored = func(string) {}
	}
	s = &Server{cfg: cfg, Deps: d, ctx: context.Background(), process: newToken(), progress: newProgressHub(), media: newMediaIndex(), agents: cmp.Or(cfg.agentVersion, api.AgentVersion)}
	s.presence, s.durations, s.burnChecks = newPresence(d.Now), newDurations(), newBurnChecks()
	s.redfish, s.leaseWait = newRedfishDurations(), newLeaseWait()
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
	if cfg.ListenBoot != "" {
		if s.bootListener, s.advertiseBoot, err = listen(cfg.ListenBoot, "http", cfg.AdvertiseBoot, "listen_boot", "advertise_boot"); err != nil {
			return nil, err
		}
	}
	if s.ca, err = openAuthority(ctx, d.Store, s.certNames(), d.Now); err != nil {
		return nil, err
	}
	if err = s.learnRamdisks(ctx); err != nil {
		return nil, err
	}
	for _, dir := range []string{s.imageDir(), s.packDir()} {
		if err = os.MkdirAll(dir, 0o700); err != nil {
			return nil, diskError("make the folder for images and packs", err)
		}
		if err = dropUnfinished(dir); err != nil {
			return nil, diskError("clear the folder for images and packs", err)
		}
	}
	if err = writeCA(cfg.DataDir, s.ca.caPEM); err != nil {
		return nil, err
	}
	return s, nil
}

// listen opens a listener and says at which URL others reach it.
func listen(address, scheme, advertise, setting, advertiseSetting string) (net.Listener, *url.URL, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, fleet.Errorf(fleet.Unavailable, "MC-SERVER-LISTEN", "listen on %s: %w", address, err).
			WithHint("give another address with the setting %s, or stop what uses this one: ss -ltnp", setting)
	}
	if advertise == "" {
		host, port, _ := net.SplitHostPort(l.Addr().String())
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		return l, &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port)}, nil
	}
	u, err := url.Parse(advertise)
	if err != nil || u.Scheme != scheme || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, nil, errors.Join(fleet.Errorf(fleet.Invalid, "MC-SERVER-ADVERTISE", "the setting %s %q is not an %s URL without path", advertiseSetting, advertise, scheme).
			WithHint("set %s: %s://HOST:PORT, as BMCs and nodes reach this server", advertiseSetting, scheme), l.Close())
	}
	u.Path = ""
	return l, u, nil
}

// nodesURL is where nodes reach the server.
func nodesURL(setting string, advertise *url.URL, l net.Listener) (*url.URL, error) {
	if setting == "" {
		return advertise, nil
	}
	u, err := url.Parse(setting)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fleet.Errorf(fleet.Invalid, "MC-SERVER-ADVERTISE", "the setting advertise_nodes %q is not an https URL without path", setting).
			WithHint("set advertise_nodes: https://HOST:PORT, as nodes reach this server")
	}
	u.Path = ""
	if u.Port() == "" {
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, fmt.Errorf("take the port of %s: %w", l.Addr(), err)
		}
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// certNames are the names that the server's certificate carries: every address it may be reached at.
func (s *Server) certNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1", s.advertise.Hostname(), s.advertiseNodes.Hostname()}
	host, _, _ := net.SplitHostPort(s.listener.Addr().String())
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return append(names, host)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names // the advertised name is there; addresses of the machine are a convenience
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			names = append(names, n.IP.String())
		}
	}
	return names
}

// URL is where the server is reached, as advertised.
func (s *Server) URL() string { return s.advertise.String() }

// NodesURL is where agents reach the server.
func (s *Server) NodesURL() string { return s.advertiseNodes.String() }

// KeyPin is the pin of the server's key; it does not change while the store lives.
func (s *Server) KeyPin() string { return s.ca.pin }

// CACert is the certificate of the server's authority as PEM.
func (s *Server) CACert() []byte { return s.ca.caPEM }

// Close closes listeners that Run does not serve. After Run it does nothing.
func (s *Server) Close() {
	for _, l := range []net.Listener{s.listener, s.bootListener} {
		if l != nil {
			l.Close() //nolint:errcheck // a listener that was closed already says so
		}
	}
}

// Run serves until ctx ends, then lets requests finish for up to 10 s. It returns nil when ctx ended.
func (s *Server) Run(ctx context.Context, e Engine) error {
	s.engine = e
	group, ctx := errgroup.WithContext(ctx)
	s.ctx = ctx
	// Before anybody can ask for anything, so that all of it is measured.
	after, err := s.Store.LastEvent(ctx)
	main := s.httpServer(ctx, s.handler())
	group.Go(func() error {
		tlsConfig := &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: s.ca.serverCert, NextProtos: []string{"h2", "http/1.1"},
			// Client certificates are agents'; what they are worth is judged per request, so that a refusal has words.
			ClientAuth: tls.RequestClientCert,
		}
		return served(main.Serve(tls.NewListener(s.listener, tlsConfig)))
	})
	servers := []*http.Server{main}
	if s.bootListener != nil {
		boot := s.httpServer(ctx, s.bootHandler())
		servers = append(servers, boot)
		group.Go(func() error { return served(boot.Serve(s.bootListener)) })
	}
	group.Go(func() error { return s.sweep(ctx) })
	group.Go(func() error { return s.tally(ctx) })
	group.Go(func() error { return s.wakeAgents(ctx) })
	group.Go(func() error { return s.observe(ctx, after, err) })
	group.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		for _, h := range servers {
			if err := h.Shutdown(grace); err != nil {
				h.Close() //nolint:errcheck // what is still open after the grace time is cut
			}
		}
		return nil
	})
	s.Log.Info("serving", "url", s.URL(), "listen", s.listener.Addr().String())
	return group.Wait()
}

func (s *Server) httpServer(ctx context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// sweep drops what has expired, each hour.
func (s *Server) sweep(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := s.dropOldAnswers(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("old answers are kept for another hour", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
