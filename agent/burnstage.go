package agent

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// BurnTask is one stage of a burn-in on this machine.
type BurnTask struct {
	Stage fleet.BurnStage
	// Round counts from 1.
	Round int
	// Accepted are the only devices that may be overwritten.
	Accepted []fleet.AcceptedDevice
	// Read reads the machine as an inventory does.
	Read func(context.Context) (fleet.Inventory, error)
	// Progress is told what is done and how many seconds of it have passed; it may be nil.
	Progress func(what string, done, total int64)
}

// burnStage runs a stage. What was measured travels as attachment, also where the stage was stopped.
func (m *machine) burnStage(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.BurnParams
	if err := decodeParams(c, &p); err != nil {
		return step.Outcome{}, err
	}
	if m.Burn == nil {
		return step.Outcome{}, fleet.Errorf(fleet.Refused, "MC-AGENT-STEP", "this agent burns nothing in").WithHint("boot the node with the ramdisk of this server: metalctl node retry NODE")
	}
	part, err := m.Burn(ctx, BurnTask{Stage: p.Stage, Round: p.Round, Accepted: p.Accepted, Progress: c.Progress,
		Read: func(ctx context.Context) (fleet.Inventory, error) { return m.read(ctx, func(string, int64, int64) {}) }})
	part.Profile = p.Profile
	if err != nil && part.Stage == "" { // it never came so far that there would be a part
		return step.Outcome{}, err
	}
	return step.Outcome{Attachment: part, Evidence: map[string]any{
		"stage": part.Stage, "round": part.Round, "measured": len(part.Measured), "untold": len(part.Untold), "stopped": part.Stopped,
	}}, err
}
