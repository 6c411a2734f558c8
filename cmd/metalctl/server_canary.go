//go:build !ramdisk

package main

import (
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/probe"
)

// canaryConfig says by which network interfaces of this machine the server hears what goes on in a domain of switches.
type canaryConfig struct {
	// Interfaces are two or more, each cabled to a port that carries every VLAN of the domain with its tag.
	Interfaces []string `yaml:"interfaces"`
	// Namespace is the network namespace that they are in: a name that `ip netns` gave it, or a path.
	Namespace string `yaml:"namespace,omitempty"`
}

// linkName is what the kernel takes as the name of an interface, without what a shell would mind.
var linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,14}$`)

func (c canaryConfig) check(domain string) error {
	at := "canary." + domain
	if !fleet.ValidName(domain) {
		return usageError("canary: %q is no name of a domain, or of a switch that is one", domain)
	}
	if len(c.Interfaces) < 2 || len(c.Interfaces) > probe.MaxInterfaces {
		return usageError("%s.interfaces: %d are not 2 to %d; what one of them says the others must hear, or silence would show nothing", at, len(c.Interfaces), probe.MaxInterfaces)
	}
	for i, name := range c.Interfaces {
		if !linkName.MatchString(name) || slices.Contains(c.Interfaces[:i], name) {
			return usageError("%s.interfaces: %q is no name of an interface, or stands there twice", at, name)
		}
	}
	if c.Namespace != "" && !filepath.IsAbs(c.Namespace) && strings.ContainsAny(c.Namespace, "/ ") {
		return usageError("%s.namespace %q is neither a name of ip netns nor an absolute path", at, c.Namespace)
	}
	return nil
}

// canary is the server's, nil where the configuration has none.
func (c serverConfig) canary(now func() time.Time, log *slog.Logger) *probe.Canary {
	if len(c.Canary) == 0 {
		return nil
	}
	sites := map[string]probe.Site{}
	for domain, x := range c.Canary {
		sites[domain] = probe.Site{Interfaces: x.Interfaces, Namespace: x.Namespace}
	}
	return probe.NewCanary(sites, now, log)
}
