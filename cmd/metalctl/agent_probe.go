package main

import (
	"context"
	"log/slog"

	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/probe"
)

// probePlace is where an agent sends packets: at the network cards of the machine, or of the namespace, that it runs in.
type probePlace struct{ log *slog.Logger }

func (p probePlace) answer(ctx context.Context, t fleet.ProbeTask) (fleet.ProbeReport, error) {
	return probe.Answer(ctx, t, func(ctx context.Context, names []string) (restore func()) {
		return inspect.Raise(ctx, names, p.log, func(what string, err error) {
			p.log.WarnContext(ctx, "a network card is not brought up", "nic", what, "err", err)
		})
	})
}
