//go:build !ramdisk

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/store"
	"github.com/metalctl/metalctl/fleet/term"
)

// passiveSide answers in the place of a server that does not act: how it does, and how it comes to act.
type passiveSide struct {
	// word is the role; peer the other server.
	word, peer string
	store      interface {
		Identity(context.Context) (fleet.StoreIdentity, error)
	}
	// fill adds what is known of the other server.
	fill    func(*api.Standby)
	promote func(ctx context.Context, force bool, by string) error
	refuses error
	refuse  func(http.ResponseWriter, *http.Request, error)
	mux     *http.ServeMux
	url     string
	// promoted is closed once this server's store acts.
	promoted chan struct{}
}

var _ server.Standby = (*passiveSide)(nil)

// open listens and makes the routes; what passive serves is then run by the caller. A hub, where there is one, lets the successor take what is left.
func (s *passiveSide) open(ctx context.Context, cfg serverConfig, st server.Store, r *serverRun, hub *standby.Hub) (*server.Passive, error) {
	s.mux, s.promoted = http.NewServeMux(), make(chan struct{})
	p, err := server.OpenPassive(ctx, cfg.serverConfig(), server.PassiveDeps{Store: st, Standby: s, Log: r.log})
	if err != nil {
		return nil, err
	}
	s.refuse, s.url = p.Refuse, p.URL()
	if hub != nil {
		hub.URL, hub.Nodes, hub.Refuse = p.URL(), p.NodesURL(), p.Refuse
		hub.Register(s.mux)
	}
	s.mux.HandleFunc("GET "+api.StandbyPath, s.serveStatus)
	s.mux.HandleFunc("GET "+api.RolePath, s.serveRole)
	s.mux.HandleFunc("POST "+api.StandbyPath+"/promote", s.servePromote)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.refuse(w, r, s.refuses) })
	return p, nil
}

// PartnerNodes implements server.Standby: what does not act boots nothing.
func (s *passiveSide) PartnerNodes() string { return "" }

// State implements server.Standby.
func (s *passiveSide) State(out *api.Standby) { s.fill(out) }

// Refuses implements server.Standby.
func (s *passiveSide) Refuses() error { return s.refuses }

// Settled implements server.Standby: nothing is committed here.
func (s *passiveSide) Settled(context.Context) error { return nil }

// ServeHTTP implements server.Standby.
func (s *passiveSide) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *passiveSide) serveRole(w http.ResponseWriter, r *http.Request) {
	id, err := s.store.Identity(r.Context())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	answerJSON(w, api.Role{Role: s.word, Peer: s.peer, Store: id})
}

func (s *passiveSide) status(ctx context.Context) (api.Standby, error) {
	id, err := s.store.Identity(ctx)
	out := api.Standby{Role: s.word, URL: s.url, Peer: s.peer, Revision: id.Revision, Generation: id.Generation(), Epoch: id.Epoch()}
	s.fill(&out)
	return out, err
}

func (s *passiveSide) serveStatus(w http.ResponseWriter, r *http.Request) {
	out, err := s.status(r.Context())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	answerJSON(w, out)
}

func (s *passiveSide) servePromote(w http.ResponseWriter, r *http.Request) {
	var in api.Promote
	d := json.NewDecoder(io.LimitReader(r.Body, 4096))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		s.refuse(w, r, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "the request is not valid: %w", err))
		return
	}
	// A caller who goes away leaves no fleet without a server: what was begun is ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 4*time.Minute)
	defer cancel()
	before, err := s.status(ctx)
	if err == nil {
		err = s.promote(ctx, in.Force, server.CallerOf(r.Context()))
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	before.Role = fleet.RoleActs.Word()
	answerJSON(w, before)
	close(s.promoted)
}

// run serves until ctx ends or the server acts.
func (s *passiveSide) run(ctx context.Context, p *server.Passive, beside ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.promoted:
			return errNextStage
		}
	})
	for _, f := range beside {
		g.Go(func() error { return f(ctx) })
	}
	return g.Wait()
}

// follow is the stage of a server that follows another one.
func (r *serverRun) follow(ctx context.Context) (err error) {
	cfg := r.cfg
	primary, err := cfg.primary()
	if err != nil {
		return err
	}
	defer primary.Close()
	replica, err := store.OpenReplica(cfg.DataDir, store.Options{KeyFile: cfg.KeyFile, Log: r.log, Backups: cfg.BackupDir})
	if err != nil {
		if fleet.CodeOf(err) == "MC-STORE-KEY" && fleet.KindOf(err) == fleet.NotFound {
			err = fleet.Errorf(fleet.NotFound, "MC-STORE-KEY", "a server that follows needs the key file of the other one: %w", err).
				WithHint("copy it from %s to %s, mode 600", cfg.Standby, cfg.KeyFile)
		}
		return err
	}
	defer func() { err = errors.Join(err, replica.Close()) }()
	others, nodes, err := server.Addresses(cfg.serverConfig())
	if err != nil {
		return err
	}
	f := &standby.Follower{Primary: primary, Copy: replica, Shelf: replica, Peer: cfg.Standby, Self: fleet.Follower{URL: others, Nodes: nodes}, Log: r.log}
	if r.tenure != nil {
		r.tenure.follows()
		f.Term, f.Mono = r.tenure, sinceBoot
	}
	if err := f.Begin(ctx); err != nil {
		return err
	}
	side := &passiveSide{word: string(fleet.RoleFollows), peer: cfg.Standby, store: replica}
	side.fill = func(s *api.Standby) {
		f.State(s)
		r.tenure.fill(s)
	}
	side.refuses = fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FOLLOWS", "this server follows %s and does nothing else", cfg.Standby).
		WithHint("ask that one: --server %s; where it is gone: metalctl standby promote --server %s", cfg.Standby, others)
	side.promote = func(ctx context.Context, force bool, by string) error {
		_, err := f.Promote(ctx, force, by)
		return err
	}
	fmt.Fprintf(r.p.stderr, "metalctl server follows %s\n", cfg.Standby)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.Run(ctx) })
	if cfg.Takeover == takeoverAutomatic {
		g.Go(func() error { return r.takeOver(ctx, f) })
	}
	g.Go(func() error {
		// What a takeover needs and takes time to make is made before.
		if _, err := cfg.media(ctx, r.log); err != nil && ctx.Err() == nil {
			r.log.Error("the boot ISO cannot be made; without it this server cannot take over", "err", err)
		}
		return nil
	})
	g.Go(func() error {
		if !f.Ready(ctx) {
			return ctx.Err()
		}
		p, err := side.open(ctx, cfg, replica, r, nil)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.p.stderr, "metalctl server at %s follows %s\n", p.URL(), cfg.Standby)
		return side.run(ctx, p)
	})
	return g.Wait()
}

// takeOver waits until the server that is followed is gone and the arbiter gives this one the term.
func (r *serverRun) takeOver(ctx context.Context, f *standby.Follower) error {
	t := time.NewTicker(lookForTerm)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		took, err := f.TakeOver(ctx)
		switch {
		case took && err != nil:
			return err
		case took:
			return errNextStage
		case err == nil || errors.Is(err, errTooEarly):
			said = ""
		case fleet.CodeOf(err) != said && ctx.Err() == nil:
			r.log.Warn("this server does not take over yet", "peer", f.Peer, "err", err)
			said = fleet.CodeOf(err)
		}
	}
}

// primary is a client for the server that is followed.
func (c serverConfig) primary() (*api.Client, error) {
	token, err := os.ReadFile(c.StandbyTokenFile)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-STANDBY-TOKEN", "read standby_token_file: %w", err).
			WithHint("on the other server: metalctl token create NAME --role standby > FILE")
	}
	ca, err := os.ReadFile(c.StandbyCACert)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-STANDBY-TOKEN", "read the other server's CA certificate: %w", err).
			WithHint("copy ca.pem from its data folder to %s, or give --standby-cacert", c.StandbyCACert)
	}
	return api.NewClient(api.Config{Server: c.Standby, Token: fleet.NewSecret(strings.TrimSpace(string(token))), CACert: ca})
}

// retired is the stage of a server that another one took over from: it hands out what is left, and points to the other.
func (r *serverRun) retired(ctx context.Context) (err error) {
	if r.tenure != nil {
		r.tenure.retired()
	}
	key, err := store.LoadKey(r.cfg.KeyFile)
	if err != nil {
		return err
	}
	db, err := store.Open(r.cfg.DataDir, store.Options{Key: key, Log: r.log, AnyRole: true, Backups: r.cfg.BackupDir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	role, err := db.Role(ctx)
	if err != nil {
		return err
	}
	hub := &standby.Hub{Log: db, Files: db, Store: db, Dir: r.cfg.DataDir, Logger: r.log}
	if err := hub.Begin(ctx); err != nil {
		return err
	}
	ask, err := newAsker(ctx, db, role.Peer)
	if err != nil {
		return err
	}
	side := &passiveSide{word: string(fleet.RoleRetired), peer: role.Peer, store: db}
	side.fill = func(s *api.Standby) { s.Why, s.Since = role.Why, role.Since }
	side.refuses = fleet.Errorf(fleet.Unavailable, "MC-STANDBY-RETIRED", "the server %s took over from this one at %s", role.Peer, role.Since.Format(time.RFC3339)).
		WithHint("ask that one: --server %s; to let this one follow it: metalctl server --standby %s", role.Peer, role.Peer)
	side.promote = func(ctx context.Context, force bool, by string) error { return r.promoteAlone(ctx, db, ask, force, by) }
	p, err := side.open(ctx, r.cfg, db, r, hub)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.p.stderr, "metalctl server at %s does not act: %s took over\n", p.URL(), role.Peer)
	return side.run(ctx, p)
}

// unsure is the stage of a server that acted, that another one followed, and that does not know whether that one has taken over. It asks on.
func (r *serverRun) unsure(ctx context.Context, db *store.DB, ask *asker, why error) error {
	side := &passiveSide{word: "unsure", peer: ask.url, store: db}
	side.fill = func(s *api.Standby) { s.Problem, s.Code = why.Error(), fleet.CodeOf(why) }
	side.refuses = fleet.Errorf(fleet.Unavailable, "MC-STANDBY-UNSURE", "the standby %s does not say whether it has taken over, so this server does not act", ask.url).
		WithHint("start that one; where it is off for certain and never took over: metalctl standby promote --force")
	side.promote = func(ctx context.Context, force bool, by string) error { return r.promoteAlone(ctx, db, ask, force, by) }
	p, err := side.open(ctx, r.cfg, db, r, nil)
	if err != nil {
		return errors.Join(err, why)
	}
	fmt.Fprintf(r.p.stderr, "metalctl server at %s does not act yet: %v\n", p.URL(), why)
	r.log.Warn("this server does not act yet: nobody knows whether its standby has taken over", "peer", ask.url, "err", why)
	return side.run(ctx, p, func(ctx context.Context) error {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
			}
			if v, err := ask.verdict(ctx); err == nil && !v.split {
				return errNextStage
			}
		}
	})
}

// fenced is the stage of a server that has no right to act: neither the arbiter nor its standby lends it one. It lets the standby follow, which may give it the right
// by that, and asks on.
func (r *serverRun) fenced(ctx context.Context, db *store.DB, ask *asker, why error) error {
	side := &passiveSide{word: "fenced", peer: ask.url, store: db}
	hub := &standby.Hub{Log: db, Files: db, Store: db, Dir: r.cfg.DataDir, Logger: r.log, Tenure: r.tenure, Mono: sinceBoot}
	stepped := make(chan fleet.Position, 1)
	hub.StepDown = func(ctx context.Context, to string) (fleet.Position, error) {
		if err := r.tenure.handOver(ctx, hub, db.Position(), to); err != nil {
			return fleet.Position{}, err
		}
		last, err := db.Retire(ctx, to, "it was asked to step down")
		if err == nil {
			stepped <- last
		}
		return last, err
	}
	if err := hub.Begin(ctx); err != nil {
		return err
	}
	side.fill = func(s *api.Standby) {
		hub.State(s)
		r.tenure.fill(s)
		if err := r.tenure.held(); err != nil {
			s.Problem, s.Code = err.Error(), fleet.CodeOf(err)
		}
	}
	side.refuses = why
	side.promote = func(ctx context.Context, force bool, by string) error { return r.promoteAlone(ctx, db, ask, force, by) }
	p, err := side.open(ctx, r.cfg, db, r, hub)
	if err != nil {
		return err
	}
	r.tenure.served(hub)
	fmt.Fprintf(r.p.stderr, "metalctl server at %s does not act: %v\n", p.URL(), why)
	return side.run(ctx, p, func(ctx context.Context) error {
		look, right := time.NewTicker(standby.LookEvery), time.NewTicker(lookForTerm)
		defer look.Stop()
		defer right.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case last := <-stepped:
				wait, cancel := context.WithTimeout(ctx, 10*time.Second)
				hub.Even(wait, last)
				cancel()
				return errNextStage
			case <-right.C:
				if r.tenure.held() == nil {
					return errNextStage
				}
			case <-look.C:
				asking, cancel := context.WithTimeout(ctx, standby.LookEvery)
				v, err := ask.verdict(asking)
				cancel()
				if err == nil && v.took {
					return errNextStage
				}
			}
		}
	})
}

// promoteAlone lets a server act again that has retired or is unsure. Who forces it vouches for the other one.
func (r *serverRun) promoteAlone(ctx context.Context, db *store.DB, ask *asker, force bool, by string) error {
	if !force {
		return fleet.Errorf(fleet.Refused, "MC-STANDBY-UNSURE", "this server does not follow %s, so nothing can be taken over from it", ask.url).
			WithHint("to take over all the same, where that one is off for certain and never took over: metalctl standby promote --force")
	}
	if v, err := ask.verdict(ctx); err == nil && (v.took || v.split) {
		return fleet.Errorf(fleet.Refused, "MC-STANDBY-PRIMARY-ACTS", "the server %s has taken over, and answers", v.by).
			WithHint("to let this one follow it: metalctl server --standby %s", v.by)
	}
	if r.tenure != nil {
		if a, err := r.tenure.look(ctx); err == nil && a.State.Holder != r.tenure.self && a.SilentMS < term.Length.Milliseconds() {
			return fleet.Errorf(fleet.Refused, "MC-STANDBY-PRIMARY-ACTS", "the arbiter heard %s a moment ago, which has the term", a.State.Holder).
				WithHint("metalctl standby status --server %s; repeat the command where that one is off for certain", a.State.Holder)
		}
		r.tenure.retired()
	}
	_, err := db.Promote(ctx, fmt.Sprintf("acts again by force by %s; %s did not say that it had taken over", by, ask.url), true)
	return err
}
