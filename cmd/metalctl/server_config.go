//go:build !ramdisk

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// serverConfig is the server's configuration file. Flags win over it; defaultServerConfig says the rest.
type serverConfig struct {
	// Listen serves everything over https; ListenBoot serves boot media over http, for BMCs that cannot do https.
	Listen     string `yaml:"listen"`
	ListenBoot string `yaml:"listen_boot"`
	// Advertise and AdvertiseBoot are the URLs that BMCs and nodes reach the server at; AdvertiseNodes is where nodes reach it, if that differs.
	Advertise      string `yaml:"advertise"`
	AdvertiseNodes string `yaml:"advertise_nodes"`
	AdvertiseBoot  string `yaml:"advertise_boot"`
	DataDir        string `yaml:"data_dir"`
	// KeyFile seals secrets; it belongs on another disk than the data, and into no backup of it.
	KeyFile string `yaml:"key_file"`
	// RAMDisk is an ISO that `metalctl ramdisk build` made; without one it is built at start from Kernel.
	RAMDisk string `yaml:"ramdisk"`
	Kernel  string `yaml:"kernel"`
	// Console is a further device for the agents' messages, such as ttyS1,115200.
	Console string `yaml:"console"`
	// PowerOnFor is how long a machine must stay on to be taken for running where nothing better shows it.
	PowerOnFor string `yaml:"power_on_for"`
	// ObserveEvery is how often the power of each node at rest is read from its BMC; 0 reads none.
	ObserveEvery string `yaml:"observe_every"`
	// BackupDir gets a backup every BackupEvery, each restored and checked; BackupKeep of them are kept.
	BackupDir   string `yaml:"backup_dir"`
	BackupEvery string `yaml:"backup_every"`
	BackupKeep  int    `yaml:"backup_keep"`
	// Witness are logs outside of the store that boots, handovers and erases are written to: absolute paths on other disks, syslog://HOST:PORT,
	// https URLs. WitnessTokenFile holds the bearer token for the latter.
	Witness          []string `yaml:"witness,omitempty"`
	WitnessTokenFile string   `yaml:"witness_token_file,omitempty"`
	// Standby is the https URL of the other server: one without a store of its own, or that the other took over from, follows it. The token is in
	// StandbyTokenFile, its authority's certificate in StandbyCACert (ca.pem in the data folder).
	Standby          string `yaml:"standby,omitempty"`
	StandbyTokenFile string `yaml:"standby_token_file,omitempty"`
	StandbyCACert    string `yaml:"standby_cacert,omitempty"`
	// Arbiter is the https URL of the third party that lends the term; ArbiterTokenFile and ArbiterCert are copies of its token and certificate. Takeover says
	// whether this server, when it follows, takes over by itself.
	Arbiter          string `yaml:"arbiter,omitempty"`
	ArbiterTokenFile string `yaml:"arbiter_token_file,omitempty"`
	ArbiterCert      string `yaml:"arbiter_cert,omitempty"`
	Takeover         string `yaml:"takeover"`
	// Fabrics are the InfiniBand fabrics whose subnet managers run on this machine, by the names of their records.
	Fabrics map[string]fabricConfig `yaml:"fabrics,omitempty"`
	// Switches are the Ethernet switches that this machine reaches, by the names of their records.
	Switches map[string]switchConfig `yaml:"switches,omitempty"`
	// Canary are the interfaces by which packets show where nodes' Ethernet ports are, by the domain of switches that they are in. Without any, what switches say is
	// read back and no more.
	Canary map[string]canaryConfig `yaml:"canary,omitempty"`
	// FabricEvery is how often all ports of each fabric and switch are read; what others change is found within that time.
	FabricEvery string `yaml:"fabric_every"`
	// LoadStopFile is a file by which a building stops all load: while it is there no burn-in loads anything.
	LoadStopFile string `yaml:"load_stop_file,omitempty"`
	LogLevel     string `yaml:"log_level"`
	LogFormat    string `yaml:"log_format"`

	// trustClock is a flag alone: a person gives it for one start.
	trustClock bool
	// now is the clock of what ends by it, and of who looks at it; time.Now but where a test sets it.
	now func() time.Time
	// handsOff is for how long nothing is written to BMCs after a takeover by force; 0, but where a test sets it: as long as it takes to be sure.
	handsOff time.Duration
}

// What takeover may be.
const (
	takeoverManual    = "manual"
	takeoverAutomatic = "automatic"
)

func defaultServerConfig() serverConfig {
	return serverConfig{Takeover: takeoverManual, Listen: defaultListen, DataDir: defaultDataDir(), PowerOnFor: "3m", ObserveEvery: "1m", FabricEvery: "15s", BackupEvery: "1h", BackupKeep: 48, LogLevel: "info", LogFormat: "text", now: time.Now}
}

// loadServerConfig reads the file, strictly, over the defaults.
func loadServerConfig(path string) (serverConfig, error) {
	c := defaultServerConfig()
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the server's configuration: %w", err)
	}
	return parseServerConfig(path, b)
}

// parseServerConfig reads the text of the file that is called name.
func parseServerConfig(name string, text []byte) (serverConfig, error) {
	c := defaultServerConfig()
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return c, yamlError(name, err)
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0: // an empty file asks for the defaults
		return c, nil
	case 1:
	default:
		return c, fleet.Errorf(fleet.Invalid, "MC-FILE-YAML", "%s:%d: a second document; the server's configuration is one", name, bodies[1].GetToken().Position.Line)
	}
	if err := yaml.NodeToValue(bodies[0], &c, yaml.Strict()); err != nil {
		return defaultServerConfig(), yamlError(name, err)
	}
	return c, nil
}

func (c *serverConfig) check() error {
	if c.KeyFile == "" {
		c.KeyFile = filepath.Join(c.DataDir, "master.key")
	}
	if c.BackupDir == "" {
		c.BackupDir = filepath.Join(c.DataDir, "backups")
	}
	if d, err := time.ParseDuration(c.BackupEvery); err != nil || d < 0 || d > 0 && d < time.Minute {
		return usageError("backup_every %q is neither 0 nor a duration from 1m on, such as 1h", c.BackupEvery)
	}
	if c.BackupKeep < 1 {
		return usageError("backup_keep %d: at least one is kept", c.BackupKeep)
	}
	if d, err := time.ParseDuration(c.PowerOnFor); err != nil || d <= 0 {
		return usageError("power_on_for %q is not a duration such as 3m", c.PowerOnFor)
	}
	if d, err := time.ParseDuration(c.ObserveEvery); err != nil || d != 0 && d < 10*time.Second {
		return usageError("observe_every %q is neither 0 nor a duration from 10s on, such as 1m", c.ObserveEvery)
	}
	if c.StandbyCACert == "" {
		c.StandbyCACert = filepath.Join(c.DataDir, "ca.pem")
	}
	if c.Standby != "" && c.StandbyTokenFile == "" {
		return usageError("standby is set and standby_token_file is not: give a file with what this prints on the other server: metalctl token create NAME --role standby")
	}
	if c.Standby == "" && c.StandbyTokenFile != "" {
		return usageError("standby_token_file is set and standby is not: give the other server's URL")
	}
	if c.Arbiter != "" && (c.ArbiterTokenFile == "" || c.ArbiterCert == "") {
		return usageError("arbiter is set, and arbiter_token_file or arbiter_cert is not: give copies of arbiter.token and arbiter.pem from its folder")
	}
	if c.Arbiter == "" && (c.ArbiterTokenFile != "" || c.ArbiterCert != "") {
		return usageError("arbiter_token_file or arbiter_cert is set and arbiter is not: give the arbiter's URL")
	}
	switch c.Takeover {
	case takeoverManual:
	case takeoverAutomatic:
		if c.Arbiter == "" {
			return usageError("takeover is automatic and arbiter is not set: two servers alone cannot tell a dead one from a cut cable")
		}
	default:
		return usageError("takeover %q: want manual or automatic", c.Takeover)
	}
	if c.LoadStopFile != "" && !filepath.IsAbs(c.LoadStopFile) {
		return usageError("load_stop_file %q is no absolute path", c.LoadStopFile)
	}
	if d, err := time.ParseDuration(c.FabricEvery); err != nil || d < time.Second || d > time.Minute {
		return usageError("fabric_every %q is not a duration from 1s to 1m, such as 15s", c.FabricEvery)
	}
	for name, f := range c.Fabrics {
		if err := f.check(name); err != nil {
			return err
		}
	}
	for name, x := range c.Switches {
		if err := x.check(name); err != nil {
			return err
		}
	}
	for domain, x := range c.Canary {
		if err := x.check(domain); err != nil {
			return err
		}
	}
	switch c.LogFormat {
	case "text", "json":
	default:
		return usageError("log_format %q: want text or json", c.LogFormat)
	}
	return nil
}

// backups is what keeps the store's backups.
func (c serverConfig) backups(db *store.DB, log *slog.Logger) (*backups, error) {
	key, err := store.LoadKey(c.KeyFile)
	if err != nil {
		return nil, err
	}
	every, err := time.ParseDuration(c.BackupEvery)
	if err != nil {
		return nil, usageError("backup_every: %v", err)
	}
	return &backups{db: db, key: key, dir: c.BackupDir, every: every, keep: c.BackupKeep, now: time.Now, log: log}, nil
}

func configVerb(p *program) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "config", Short: "Print the server's configuration, defaults filled in", Args: exactly(), Example: "  metalctl config --config /etc/metalctl.yaml",
		RunE: func(*cobra.Command, []string) error {
			cfg, err := loadServerConfig(file)
			if err != nil {
				return err
			}
			if err := cfg.check(); err != nil {
				return err
			}
			b, err := yaml.Marshal(cfg)
			if err != nil {
				return fmt.Errorf("print the configuration: %w", err)
			}
			_, err = p.stdout.Write(b)
			return err
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file")
	return c
}
