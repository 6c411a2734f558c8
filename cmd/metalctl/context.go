//go:build !ramdisk

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// contextFile is $XDG_CONFIG_HOME/metalctl/context.yaml: which server to talk to where flags and environment do not say.
type contextFile struct {
	Server    string `yaml:"server"`
	TokenFile string `yaml:"token_file"`
	CACert    string `yaml:"cacert"`
}

// defaultListen is where a server without configuration listens, and where the CLI looks for it.
const defaultListen = "127.0.0.1:8443"

// defaultDataDir is where a server without configuration keeps its store.
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/metalctl"
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "metalctl")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "metalctl-data"
	}
	return filepath.Join(home, ".local", "state", "metalctl")
}

// client makes the API client from flags, environment, context file and, last, the default server's own files on this machine.
func (p *program) client() (*api.Client, error) {
	f := p.flags
	token := strings.TrimSpace(os.Getenv("METALCTL_TOKEN"))
	ctxFile, err := readContext()
	if err != nil {
		return nil, err
	}
	if f.server == "" {
		f.server = ctxFile.Server
	}
	if f.token == "" && token == "" {
		f.token = ctxFile.TokenFile
	}
	if f.cacert == "" {
		f.cacert = ctxFile.CACert
	}
	if f.server == "" {
		f.server = "https://" + defaultListen
	}
	if f.token == "" && token == "" {
		f.token = filepath.Join(defaultDataDir(), "admin.token")
	}
	if f.cacert == "" {
		if ca := filepath.Join(defaultDataDir(), "ca.pem"); f.server == "https://"+defaultListen && readable(ca) {
			f.cacert = ca
		}
	}
	if token == "" {
		b, err := os.ReadFile(f.token)
		if err != nil {
			return nil, fleet.Errorf(fleet.Denied, "MC-CLI-TOKEN", "read the bearer token: %w", err).
				WithHint("start `metalctl server`, or give --token-file or METALCTL_TOKEN")
		}
		token = strings.TrimSpace(string(b))
	}
	cfg := api.Config{Server: f.server, Token: fleet.NewSecret(token)}
	if f.cacert != "" {
		if cfg.CACert, err = os.ReadFile(f.cacert); err != nil {
			return nil, fleet.Errorf(fleet.Invalid, "MC-CLI-CACERT", "read the server's CA certificate: %w", err).
				WithHint("give --cacert FILE; the server writes it as ca.pem into its data directory")
		}
	}
	return api.NewClient(cfg)
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	_ = f.Close() // opened only to see whether it can be
	return true
}

func readContext() (contextFile, error) {
	var c contextFile
	dir, err := os.UserConfigDir()
	if err != nil {
		return c, nil // no home, so no context file
	}
	path := filepath.Join(dir, "metalctl", "context.yaml")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read context file: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
		return c, yamlError(path, err)
	}
	return c, nil
}
