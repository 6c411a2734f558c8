package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/metalctl/metalctl/agent/boot"
	"github.com/metalctl/metalctl/fleet"
)

// network connects as the credential says and tells how.
func network(ctx context.Context, m *boot.Machine, c *fleet.Credential) {
	s, err := boot.Network(ctx, c.Network, m.Log)
	if err != nil {
		m.Log.Error("network", "err", err)
		return
	}
	if err := s.WriteResolvConf("/etc/resolv.conf"); err != nil {
		m.Log.Error("resolver", "err", err)
	}
	fmt.Fprintf(m.Console, "TEST network link=%s mtu=%d addresses=%v gateways=%v dns=%v\n", s.Link, s.MTU, s.Addresses, s.Gateways, s.DNS)
}

// medium hides what the boot loader handed on, so that the credential has to come from the CD or USB disk itself.
func medium(ctx context.Context, m *boot.Machine) {
	if err := os.Rename("/.extra", "/.hidden"); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.Log.Error("hide the credential", "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := boot.ReadCredential(ctx)
	if err != nil {
		m.Log.Error("medium", "err", err)
		return
	}
	fmt.Fprintf(m.Console, "TEST medium node=%s\n", c.Node)
}

// crash shows what a panic leaves behind.
func crash(ctx context.Context, m *boot.Machine) {
	g := boot.Guarded{Console: m.Console, Now: time.Now}
	if err := boot.Guard(ctx, g, func() error { panic("on purpose") }); err != nil {
		fmt.Fprintf(m.Console, "TEST guarded %v\n", err)
	}
}
