package vmedia

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// identify refuses to go on where another machine answers at the node's address.
func (d *Driver) identify(ctx context.Context, c step.Call) (step.Outcome, error) {
	var want step.IdentifyParams
	if err := params(c, &want); err != nil {
		return step.Outcome{}, err
	}
	bmc, err := d.Dial(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	m, err := bmc.Identity.Identity(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	if err := same("serial number", m.Serial, want.Serial); err != nil {
		return step.Outcome{}, err
	}
	if err := same("UUID", m.UUID, want.UUID); err != nil {
		return step.Outcome{}, err
	}
	return step.Outcome{Evidence: map[string]string{"vendor": m.Vendor, "model": m.Model, "serial": m.Serial, "uuid": m.UUID,
		"bmc_firmware": m.Firmware, "power": m.Power}}, nil
}

func same(what, got, want string) error {
	if want == "" || strings.EqualFold(strings.TrimSpace(got), strings.TrimSpace(want)) {
		return nil
	}
	return fleet.Errorf(fleet.Refused, "MC-BMC-IDENTITY", "another machine answers: its %s is %q, enrolled was %q", what, got, want).
		WithHint("check the BMC's address; after a board was swapped, enrol the node again")
}

func params(c step.Call, into any) error {
	if len(c.Params) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.Params, into); err != nil {
		return fmt.Errorf("parameters of %s: %w", c.Step, err)
	}
	return nil
}
