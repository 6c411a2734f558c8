//go:build !ramdisk

package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/arbiter"
)

func arbiterVerb(p *program) *cobra.Command {
	cfg := defaultServerConfig()
	var listen, dir string
	c := &cobra.Command{
		Use: "arbiter", Short: "Run the third party that lets a second server take over by itself", Args: exactly(),
		Long: `Arbiter lends one of two servers the term to act, on a third machine. It needs nothing but its folder, in which it keeps one small file, and the two servers
reach it; it reaches nobody. Both get a copy of arbiter.token and arbiter.pem from the folder, and its URL: docs/operate/standby.md`,
		Example: "  metalctl arbiter --listen 0.0.0.0:8444 --data-dir /var/lib/metalctl-arbiter",
		RunE: func(c *cobra.Command, _ []string) error {
			log, _, err := newLogger(p, cfg)
			if err != nil {
				return err
			}
			a, err := arbiter.Open(arbiter.Config{Dir: dir, Now: sinceBoot, Log: log})
			if err != nil {
				return err
			}
			defer a.Close() //nolint:errcheck // it lets go of a lock
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fleet.Errorf(fleet.Unavailable, "MC-SERVER-LISTEN", "listen at %s: %w", listen, err).WithHint("give another --listen")
			}
			fmt.Fprintf(p.stderr, "metalctl arbiter at https://%s\n  token: %s\n  certificate: %s\n", l.Addr(), arbiter.TokenFile(dir), arbiter.CertFile(dir))
			return a.Serve(c.Context(), l)
		},
	}
	f := c.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8444", "address for https")
	f.StringVar(&dir, "data-dir", "arbiter", "folder of its state, token and key")
	f.StringVar(&cfg.LogLevel, "log-level", cfg.LogLevel, "debug, info, warn or error")
	f.StringVar(&cfg.LogFormat, "log-format", cfg.LogFormat, "text or json")
	return c
}
