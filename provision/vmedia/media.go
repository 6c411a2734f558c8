package vmedia

import (
	"context"
	"fmt"

	"github.com/metalctl/metalctl/fleet/step"
)

// insert begins a new generation and inserts its medium. Doing it again after a crash at any point is right: the older generation's token and
// address are refused from then on, and its medium is ejected by the insertion.
func (d *Driver) insert(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.InsertParams
	if err := params(c, &p); err != nil {
		return step.Outcome{}, err
	}
	bmc, err := d.Dial(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	if p.SwitchOff {
		if err := bmc.Power.SetPower(ctx, ForceOff); err != nil {
			return step.Outcome{}, err
		}
	}
	url, ca, generation, err := d.Medium.Issue(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, fmt.Errorf("issue a boot medium: %w", err)
	}
	c.Progress(fmt.Sprintf("inserting the medium of boot generation %d", generation), 0, 0)
	in, err := bmc.Media.InsertMedia(ctx, url, ca)
	if err != nil {
		return step.Outcome{}, err
	}
	return step.Outcome{Evidence: map[string]any{"generation": generation, "method": in.Method, "slot": in.Slot, "target": in.Target,
		"server_verified": in.Verified}}, nil
}

func (d *Driver) bootFromMedia(ctx context.Context, c step.Call) (step.Outcome, error) {
	p := step.BootParams{}
	if err := params(c, &p); err != nil {
		return step.Outcome{}, err
	}
	if p.Target == "" {
		p.Target = TargetCD
	}
	return d.setBoot(ctx, c, p.Target, ModeUEFI)
}

func (d *Driver) bootFromDisk(ctx context.Context, c step.Call) (step.Outcome, error) {
	return d.setBoot(ctx, c, TargetNone, ModeKeep)
}

func (d *Driver) setBoot(ctx context.Context, c step.Call, target, mode string) (step.Outcome, error) {
	bmc, err := d.Dial(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	if err := bmc.Boot.SetBootOnce(ctx, target, mode); err != nil {
		return step.Outcome{}, err
	}
	return step.Outcome{Evidence: map[string]string{"target": target}}, nil
}

// eject ends the address also where the BMC was already empty, and only after the BMC let go of it.
func (d *Driver) eject(ctx context.Context, c step.Call) (step.Outcome, error) {
	bmc, err := d.Dial(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	if err := bmc.Media.EjectMedia(ctx); err != nil {
		return step.Outcome{}, err
	}
	if err := d.Medium.Expire(ctx, c.Node); err != nil {
		return step.Outcome{}, fmt.Errorf("end the medium's address: %w", err)
	}
	return step.Outcome{Evidence: map[string]bool{"ejected": true, "address_ended": true}}, nil
}
