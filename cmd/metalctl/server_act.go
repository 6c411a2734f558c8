//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/fleet/standby"
	"github.com/metalctl/metalctl/fleet/store"
	"github.com/metalctl/metalctl/fleet/switchboard"
	"github.com/metalctl/metalctl/fleet/witness"
	"github.com/metalctl/metalctl/provision/vmedia"
)

// errNextStage ends a stage: the store's role has changed.
var errNextStage = errors.New("the store's role has changed")

// serverRun is one process of the server. It goes from stage to stage: it acts, or follows, or has retired, as its store's role says.
type serverRun struct {
	p   *program
	cfg serverConfig
	log *slog.Logger
	// ring is the end of what was logged, in whatever stage.
	ring *logRing
	// tenure is by what right it acts; nil: no arbiter is configured.
	tenure *tenure
}

// runServer runs the server until ctx ends.
func runServer(ctx context.Context, p *program, cfg serverConfig) error {
	log, ring, err := newLogger(p, cfg)
	if err != nil {
		return err
	}
	tenure, err := cfg.tenure(log)
	if err != nil {
		return err
	}
	r := &serverRun{p: p, cfg: cfg, log: log, ring: ring, tenure: tenure}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fleet.Errorf(fleet.Broken, "MC-SERVER-DATADIR", "make the data folder: %w", err).WithHint("give a writable --data-dir")
	}
	if tenure != nil {
		asking, cancel := context.WithCancel(ctx)
		var beside sync.WaitGroup
		defer beside.Wait()
		defer cancel()
		beside.Go(func() { _ = tenure.Run(asking) }) // it ends with its context and for no other reason
	}
	for {
		stage, err := r.stage()
		if err == nil {
			err = stage(ctx)
		}
		if errors.Is(err, errNextStage) && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, errNextStage) {
			return nil
		}
		return err
	}
}

// stage says what this process does next. Without another server to follow that shows when the store is opened.
func (r *serverRun) stage() (func(context.Context) error, error) {
	if r.cfg.Standby == "" {
		return r.act, nil
	}
	role, there, err := store.RoleOf(r.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if !there || role.Kind != fleet.RoleActs {
		return r.follow, nil
	}
	return r.act, nil
}

func openStore(cfg serverConfig, log *slog.Logger, may func() error) (*store.DB, error) {
	key, err := store.LoadOrCreateKey(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	return store.Open(cfg.DataDir, store.Options{Key: key, Log: log, Backups: cfg.BackupDir, May: may})
}

// serverConfig is what the server room gets.
func (c serverConfig) serverConfig() server.Config {
	return server.Config{
		Listen: c.Listen, ListenBoot: c.ListenBoot, Advertise: c.Advertise, AdvertiseNodes: c.AdvertiseNodes,
		AdvertiseBoot: c.AdvertiseBoot, DataDir: c.DataDir, Console: c.Console, Version: version, Commit: commit(),
		Drivers: map[string]string{"store": "bbolt", "bmc": "redfish", "boot": "vmedia", "network": c.networkDrivers()},
	}
}

// act wires the rooms together: this is the support matrix.
func (r *serverRun) act(ctx context.Context) (err error) {
	cfg, log := r.cfg, r.log
	db, err := openStore(cfg, log, r.tenure.held)
	switch fleet.CodeOf(err) {
	case "MC-STANDBY-RETIRED":
		return r.retired(ctx)
	case "MC-STANDBY-FOLLOWS":
		return fleet.Errorf(fleet.Refused, "MC-STANDBY-FOLLOWS", "no standby is configured, and %w", err).WithHint("metalctl server --standby URL --standby-token-file FILE")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	role, err := db.Role(ctx)
	if err != nil {
		return err
	}
	if err := r.mayAct(ctx, db); err != nil {
		return err
	}
	logs, err := cfg.witnesses()
	if err != nil {
		return err
	}
	if err := hearWitness(ctx, db, logs, time.Now, log); err != nil {
		return err
	}
	tokenFile := filepath.Join(cfg.DataDir, "admin.token")
	if err := server.EnsureAdminToken(ctx, db, tokenFile); err != nil {
		return err
	}
	media, err := cfg.media(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, media.close()) }()
	powerOnFor, err := time.ParseDuration(cfg.PowerOnFor)
	if err != nil {
		return usageError("power_on_for: %v", err)
	}

	kept, err := cfg.backups(db, log)
	if err != nil {
		return err
	}
	observeEvery, err := time.ParseDuration(cfg.ObserveEvery)
	if err != nil {
		return usageError("observe_every: %v", err)
	}
	if observeEvery == 0 {
		observeEvery = -1
	}

	controllers := newBMCs(db, db, log)
	second := &actingSide{db: db, log: log, tenure: r.tenure, controllers: controllers, handsOff: cfg.handsOff}
	doctor := &physician{cfg: cfg, db: db, bmcs: controllers, kept: kept, witnesses: &witness.Follower{Store: db, Logs: logs, Now: time.Now, Log: log}, ring: r.ring, standby: second, now: cfg.now, began: cfg.now(), ran: ranSince(time.Now())}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		controllers.close(closing)
	}()
	fabricEvery, err := time.ParseDuration(cfg.FabricEvery)
	if err != nil {
		return usageError("fabric_every: %v", err)
	}
	drivers := cfg.drivers()
	defer func() { err = errors.Join(err, drivers.close()) }()
	panel := &switchPanel{configs: cfg.Switches, now: cfg.now, bound: map[string]switchboard.Driver{}}
	defer func() { err = errors.Join(err, panel.close()) }()
	board := &switchboard.Board{Store: db, Drive: drivers.drive, DriveSwitch: panel.driveSwitch, Now: cfg.now, Log: log, May: r.tenure.held, Every: fabricEvery}
	canary := cfg.canary(time.Now, log)
	if canary != nil {
		board.Canary = canary
	}
	profiles, err := standardProfiles()
	if err != nil {
		return err
	}
	srv, err := server.Open(ctx, cfg.serverConfig(), server.Deps{
		Wires: board,
		Store: db, Blobs: db, Timeline: db, Enroller: controllers, Credentials: controllers, Power: controllers, Boards: controllers,
		Media: media, Images: imageChecker{}, Packs: packChecker{}, Log: log, Backups: kept, Physician: doctor, Standby: second, Stored: db.Stored, Profiles: profiles,
	})
	if err != nil {
		return err
	}
	doctor.agents = srv
	controllers.ours = srv.MediaOrigins()
	controllers.measure = srv.ObserveRedfish
	controllers.plain, controllers.firmware = srv.PlainAddress, srv.FirmwareAddress
	driver := &vmedia.Driver{Dial: controllers.dial, Medium: srv}
	loop := reconcile.New(&reconcile.Loop{
		Now: cfg.now, Store: db, Blobs: db, Timeline: db, Funcs: driver.Funcs(), Agents: srv, Machine: controllers, Evidence: controllers,
		Boards: controllers, Console: controllers, Firmware: controllers, Wires: board, Prober: board,
		Sources: imageSources(srv), Progress: srv.PutProgress, PowerOnFor: powerOnFor, ObserveEvery: observeEvery, Log: log,
		Profiles: profiles, Program: version, Origin: srv.URL(), Layout: media.layout, ForgetKeys: srv.ForgetKeys, CheckDrive: checkDrive, Denied: srv.BMCRanges, TrustWall: cfg.trustClock, Breaker: controllers.Breaker, Silent: controllers.Silent,
		// The store is locked by this process, so that whoever held claims under this name before is gone; of another server that is waited for.
		Worker: "server", Sole: !role.HandsOff,
	})
	if err := second.begin(ctx, srv, loop, role); err != nil {
		srv.Close()
		return err
	}
	fmt.Fprintf(r.p.stderr, "metalctl server at %s\n  token: %s\n  CA:    %s\n", srv.URL(), tokenFile, filepath.Join(cfg.DataDir, "ca.pem"))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return second.loop(ctx) })
	g.Go(func() error { return second.run(ctx) })
	g.Go(func() error { return board.Run(ctx) })
	if canary != nil {
		g.Go(func() error { return canary.Run(ctx) })
	}
	g.Go(func() error { return sweepDaily(ctx, db, srv, log) })
	g.Go(func() error { return kept.Run(ctx) })
	g.Go(func() error {
		input := stopInput{path: cfg.LoadStopFile, store: db, stop: loop.StopLoad, log: log}
		return input.run(ctx)
	})
	g.Go(func() error { return doctor.settleDoubts(ctx, controllers.doubted, log) })
	g.Go(func() error { return doctor.witnesses.Run(ctx) })
	g.Go(func() error {
		return srv.Run(ctx, server.Engine{Verbs: loop, Leases: loop, Choices: loop, Work: loop, Plans: loop, Words: loop, Brakes: loop, Loads: loop})
	})
	return g.Wait()
}

// mayAct asks the server that followed this one whether it has taken over, before anything is done. Where it does not answer, nobody knows: this server
// then waits, and says so, until it does or a person decides.
func (r *serverRun) mayAct(ctx context.Context, db *store.DB) error {
	f, err := standby.FollowerOf(ctx, db)
	if err != nil {
		return err
	}
	patience := time.Minute
	if r.tenure != nil {
		r.tenure.acts(f)
		if f != nil && r.tenure.held() != nil {
			r.tenure.renew(ctx, f.URL, false) //nolint:errcheck // held says what came of it
		}
		patience = standby.LookEvery
	}
	if f == nil {
		return nil
	}
	ask, err := newAsker(ctx, db, f.URL)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := ask.verdict(asking)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && v.took:
		return ask.retire(ctx, v)
	case err == nil && v.split:
	case r.tenure != nil:
		if why := r.tenure.held(); why != nil {
			return r.fenced(ctx, db, ask, why)
		}
		return nil
	case err == nil:
		return nil
	}
	if err == nil {
		err = fleet.Errorf(fleet.Conflict, "MC-STANDBY-SPLIT", "the server %s acts, too, and neither store is what became of the other", f.URL).
			WithHint("stop one of the two for good; metalctl doctor --world on the other one")
	}
	return r.unsure(ctx, db, ask, err)
}
