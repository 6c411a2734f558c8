//go:build !ramdisk

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/reconcile"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/fleet/store"
	"github.com/metalctl/metalctl/fleet/witness"
	"github.com/metalctl/metalctl/provision/vmedia"
)

func serverNoun(p *program) *cobra.Command {
	var file string
	var over serverConfig
	c := &cobra.Command{
		Use: "server", Short: "Run the fleet server",
		Long: `Server runs the fleet server until it is interrupted. With no configuration it listens on loopback, keeps an embedded store, and
writes the admin token to DATA_DIR/admin.token and its authority's certificate to DATA_DIR/ca.pem.`,
		Example: "  metalctl server\n  metalctl server --config /etc/metalctl.yaml",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadServerConfig(file)
			if err != nil {
				return err
			}
			over.onto(c, &cfg)
			cfg.trustClock = over.trustClock
			if err := cfg.check(); err != nil {
				return err
			}
			return runServer(c.Context(), p, cfg)
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "", "configuration file")
	f.StringVar(&over.Listen, "listen", "", "address for https, everything (default "+defaultListen+")")
	f.StringVar(&over.ListenBoot, "listen-boot", "", "address for plain http, boot media only, for BMCs that cannot do https")
	f.StringVar(&over.Advertise, "advertise", "", "https URL that BMCs and nodes reach the server at")
	f.StringVar(&over.AdvertiseNodes, "advertise-nodes", "", "https URL that nodes reach the server at, where it differs from --advertise")
	f.StringVar(&over.AdvertiseBoot, "advertise-boot", "", "http URL that BMCs reach --listen-boot at")
	f.StringVar(&over.DataDir, "data-dir", "", "folder of the store (default "+defaultDataDir()+")")
	f.StringVar(&over.KeyFile, "key-file", "", "file with the key that seals secrets (default: master.key in the data folder)")
	f.StringVar(&over.RAMDisk, "ramdisk", "", "boot ISO made by `metalctl ramdisk build` (default: build one and keep it in the data folder)")
	f.StringVar(&over.Kernel, "kernel", "", "kernel to build the boot ISO from: a release, a .deb, a folder, generic or cloud")
	f.StringVar(&over.Console, "console", "", "a further console for agents, such as ttyS1,115200")
	f.StringVar(&over.PowerOnFor, "power-on-for", "", "how long a machine must stay on to count as running where nothing better shows it (default 3m)")
	f.StringVar(&over.BackupDir, "backup-dir", "", "folder of the hourly backups (default: backups in the data folder)")
	f.StringVar(&over.BackupEvery, "backup-every", "", "how often the store is backed up and the backup checked; 0 for never (default 1h)")
	f.IntVar(&over.BackupKeep, "backup-keep", 0, "how many such backups are kept (default 48)")
	f.StringArrayVar(&over.Witness, "witness", nil, "log outside of the store that boots, handovers and erases are written to: a path on another disk, syslog://HOST:PORT, or an https URL; may be given again")
	f.StringVar(&over.WitnessTokenFile, "witness-token-file", "", "file with the bearer token for an https witness")
	f.StringVar(&over.LogLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&over.LogFormat, "log-format", "", "text or json (default text)")
	f.BoolVar(&over.trustClock, "trust-clock", false, "believe a clock that jumped by more than a day while no server ran; give it once, after looking at the clock")
	c.AddCommand(serverCheck(p), serverBackup(p), serverRestore(p))
	return c
}

// onto lays the flags that were given over the file's settings.
func (o serverConfig) onto(c *cobra.Command, cfg *serverConfig) {
	for flag, to := range map[string]*string{
		"listen": &cfg.Listen, "listen-boot": &cfg.ListenBoot, "advertise": &cfg.Advertise, "advertise-nodes": &cfg.AdvertiseNodes, "advertise-boot": &cfg.AdvertiseBoot,
		"data-dir": &cfg.DataDir, "key-file": &cfg.KeyFile, "ramdisk": &cfg.RAMDisk, "kernel": &cfg.Kernel, "console": &cfg.Console,
		"power-on-for": &cfg.PowerOnFor, "backup-dir": &cfg.BackupDir, "backup-every": &cfg.BackupEvery, "witness-token-file": &cfg.WitnessTokenFile, "log-level": &cfg.LogLevel, "log-format": &cfg.LogFormat,
	} {
		if f := c.Flags().Lookup(flag); f.Changed {
			*to = f.Value.String()
		}
	}
	if c.Flags().Lookup("backup-keep").Changed {
		cfg.BackupKeep = o.BackupKeep
	}
	if c.Flags().Lookup("witness").Changed {
		cfg.Witness = o.Witness
	}
}

// newLogger logs to the program's stderr and keeps the end of it for who helps.
func newLogger(p *program, cfg serverConfig) (*slog.Logger, *logRing, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return nil, nil, usageError("log_level %q: want debug, info, warn or error", cfg.LogLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	ring := &logRing{}
	out := io.MultiWriter(ring, p.stderr) // the ring first: it never fails
	if cfg.LogFormat == "json" {
		return slog.New(fleet.LogHandler(slog.NewJSONHandler(out, o))), ring, nil
	}
	return slog.New(fleet.LogHandler(slog.NewTextHandler(out, o))), ring, nil
}

func openStore(cfg serverConfig, log *slog.Logger) (*store.DB, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fleet.Errorf(fleet.Broken, "MC-SERVER-DATADIR", "make the data folder: %w", err).WithHint("give a writable --data-dir")
	}
	key, err := store.LoadOrCreateKey(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	return store.Open(cfg.DataDir, store.Options{Key: key, Log: log, Backups: cfg.BackupDir})
}

// runServer wires the rooms together: this is the support matrix.
func runServer(ctx context.Context, p *program, cfg serverConfig) (err error) {
	if os.Getenv("GOGC") == "" {
		// What a large fleet keeps changes little: collecting twice as often costs less than keeping as much again in garbage.
		debug.SetGCPercent(50)
	}
	log, ring, err := newLogger(p, cfg)
	if err != nil {
		return err
	}
	db, err := openStore(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
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
	doctor := &physician{cfg: cfg, db: db, bmcs: controllers, kept: kept, logs: logs, ring: ring, now: cfg.now, began: cfg.now(), ran: ranSince(time.Now())}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		controllers.close(closing)
	}()
	srv, err := server.Open(ctx, server.Config{
		Listen: cfg.Listen, ListenBoot: cfg.ListenBoot, Advertise: cfg.Advertise, AdvertiseNodes: cfg.AdvertiseNodes,
		AdvertiseBoot: cfg.AdvertiseBoot, DataDir: cfg.DataDir, Console: cfg.Console, Version: version, Commit: commit(),
		Drivers: map[string]string{"store": "bbolt", "bmc": "redfish", "boot": "vmedia", "network": "none"},
	}, server.Deps{
		Store: db, Blobs: db, Timeline: db, Enroller: controllers, Credentials: controllers, Power: controllers,
		Media: media, Images: imageChecker{}, Packs: packChecker{}, Log: log, Backups: kept, Physician: doctor,
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
		Console: controllers, Firmware: controllers,
		Sources: imageSources(srv), Progress: srv.PutProgress, PowerOnFor: powerOnFor, ObserveEvery: observeEvery, Log: log,
		Layout: media.layout, ForgetKeys: srv.ForgetKeys, CheckDrive: checkDrive, Denied: srv.BMCRanges, TrustWall: cfg.trustClock, Breaker: controllers.Breaker, Silent: controllers.Silent,
		// The store is locked by this process, so that whoever held claims under this name before is gone.
		Worker: "server", Sole: true,
	})
	fmt.Fprintf(p.stderr, "metalctl server at %s\n  token: %s\n  CA:    %s\n", srv.URL(), tokenFile, filepath.Join(cfg.DataDir, "ca.pem"))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return sweepDaily(ctx, db, srv, log) })
	g.Go(func() error { return kept.Run(ctx) })
	g.Go(func() error { return doctor.settleDoubts(ctx, controllers.doubted, log) })
	g.Go(func() error { return (&witness.Follower{Store: db, Logs: logs, Now: time.Now, Log: log}).Run(ctx) })
	g.Go(func() error {
		return srv.Run(ctx, server.Engine{Verbs: loop, Leases: loop, Work: loop, Plans: loop, Words: loop, Brakes: loop})
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// imageSources says where an agent reads an image: at its origin, or at this server while the operation runs.
func imageSources(srv *server.Server) func(fleet.OperationID, fleet.Image) ([]step.ImageSource, error) {
	return func(op fleet.OperationID, img fleet.Image) ([]step.ImageSource, error) {
		if img.URL != "" {
			return []step.ImageSource{{URL: img.URL}}, nil
		}
		path, err := srv.ImagePath(op, img)
		if err != nil {
			return nil, err
		}
		return []step.ImageSource{{URL: path, Ours: true}}, nil
	}
}
