package main

import (
	"context"

	"github.com/metalctl/metalctl/agent/boot"
	"github.com/metalctl/metalctl/fleet"
)

func shell(ctx context.Context, m *boot.Machine)                        {}
func network(ctx context.Context, m *boot.Machine, c *fleet.Credential) {}
