package agent

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// probeWires sends and listens at the machine's Ethernet ports. What it heard is judged by the server, which knows what the canary did.
func (m *machine) probeWires(ctx context.Context, c step.Call) (step.Outcome, error) {
	var t fleet.ProbeTask
	if err := decodeParams(c, &t); err != nil {
		return step.Outcome{}, err
	}
	if m.Probe == nil {
		return step.Outcome{}, fleet.Errorf(fleet.Refused, "MC-PROBE-AGENT", "this agent can send no packets").WithHint("boot the node from a medium of its server: metalctl node retry NODE")
	}
	report, err := m.Probe(ctx, t)
	if err != nil {
		return step.Outcome{}, err
	}
	bursts := 0
	for _, p := range report.Ports {
		bursts += p.Bursts
	}
	return step.Outcome{Attachment: report, Evidence: map[string]any{"ports": len(report.Ports), "bursts": bursts}}, nil
}
