//go:build !ramdisk

package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/server"
	"github.com/metalctl/metalctl/fleet/step"
)

func serverNoun(p *program) *cobra.Command {
	var file string
	var over serverConfig
	c := &cobra.Command{
		Use: "server", Short: "Run the fleet server",
		Long: `Server runs the fleet server until it is interrupted. With no configuration it listens on loopback, keeps an embedded store, and
writes the admin token to DATA_DIR/admin.token and its authority's certificate to DATA_DIR/ca.pem.

With --standby and no store of its own it follows the server at that URL and does nothing else, until "metalctl standby promote" makes it the server. It
needs that server's key file (--key-file). A server that another one took over from follows that one again with the same flags.`,
		Example: "  metalctl server\n  metalctl server --config /etc/metalctl.yaml\n  metalctl server --standby https://mc1:8443 --standby-token-file /etc/metalctl/standby.token --listen 0.0.0.0:8443 --advertise https://mc2:8443",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadServerConfig(file)
			if err != nil {
				return err
			}
			over.onto(c, &cfg)
			cfg.trustClock, cfg.handsOff = over.trustClock, p.handsOff
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
	f.StringVar(&over.Standby, "standby", "", "https URL of the other server: follow it, and be ready to take over; a server that acts already goes on acting")
	f.StringVar(&over.StandbyTokenFile, "standby-token-file", "", "file with the token to follow it with, made there by: metalctl token create NAME --role standby")
	f.StringVar(&over.StandbyCACert, "standby-cacert", "", "file with its CA certificate (default: ca.pem in the data folder)")
	f.StringVar(&over.Arbiter, "arbiter", "", "https URL of the arbiter, which both servers ask for the right to act")
	f.StringVar(&over.ArbiterTokenFile, "arbiter-token-file", "", "copy of arbiter.token from its folder")
	f.StringVar(&over.ArbiterCert, "arbiter-cert", "", "copy of arbiter.pem from its folder")
	f.StringVar(&over.Takeover, "takeover", "", "automatic: take over by itself when it follows and the other server is gone; or manual (default manual)")
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
		"standby": &cfg.Standby, "standby-token-file": &cfg.StandbyTokenFile, "standby-cacert": &cfg.StandbyCACert,
		"arbiter": &cfg.Arbiter, "arbiter-token-file": &cfg.ArbiterTokenFile, "arbiter-cert": &cfg.ArbiterCert, "takeover": &cfg.Takeover,
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
	out := &logRing{to: p.stderr}
	if cfg.LogFormat == "json" {
		return slog.New(fleet.LogHandler(slog.NewJSONHandler(out, o))), out, nil
	}
	return slog.New(fleet.LogHandler(slog.NewTextHandler(out, o))), out, nil
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
