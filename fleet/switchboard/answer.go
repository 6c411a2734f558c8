package switchboard

import (
	"context"
	"fmt"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// State is what was read last of a fabric, and whether it can be trusted; the rest of the answer is as it is given.
func (b *Board) State(out api.Fabric) api.Fabric {
	if _, err := b.Drive(out.Fabric); err != nil {
		out.State, out.Why = api.FabricUnbound, err.Error()
		return out
	}
	d := b.entry(out.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen != nil {
		out.ReadAt, out.Ports, out.Findings = d.seen.At, d.seen.Ports, d.seen.Findings
	}
	out.State = api.FabricTrusted
	if out.Why = d.whyNotLocked(); out.Why != "" {
		out.State = api.FabricStopped
	}
	if d.seen == nil {
		out.State = api.FabricUnread
	}
	return out
}

func (d *device) whyNotLocked() string {
	switch {
	case d.silent != nil:
		return "it cannot be read: " + d.silent.Error()
	case d.alarm != "":
		return d.alarm
	case d.seen == nil:
		return "it was not read yet"
	}
	if f := d.seen.Stops(); f != nil {
		return f.Code + ": " + f.Text
	}
	return ""
}

// Trusted is an error while a node with ports in those fabrics is not to be handed out: it says which of them is in doubt, or who reaches whom.
func (b *Board) Trusted(fabrics []string) error {
	for _, name := range fabrics {
		d := b.entry(name)
		d.mu.Lock()
		why := d.whyNotLocked()
		d.mu.Unlock()
		if why != "" {
			return fleet.Errorf(fleet.Conflict, "MC-NET-STOPPED", "nothing is handed out in the fabric %s: %s", name, why).WithHint("metalctl fabric show %s", name)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.meet) > 0 {
		return fleet.Errorf(fleet.Conflict, "MC-NET-REACH", "nothing is handed out while tenants can reach each other: %s", strings.Join(b.meet[:min(3, len(b.meet))], "; ")).
			WithHint("metalctl network verify")
	}
	return nil
}

// Adopt takes a fabric over.
func (b *Board) Adopt(ctx context.Context, name, by string) error {
	return b.withTurn(ctx, name, func(d *device, driver Driver) error {
		v, err := driver.Adopt(ctx)
		if err != nil {
			return err
		}
		d.believe(v)
		_, err = b.Store.Commit(ctx, fleet.Change{Events: []fleet.Event{{Type: "fabric.adopted", At: b.Now().UTC(), Subject: fleet.KeyOf(fleet.KindFabric, name),
			Text: fmt.Sprintf("fabric %s: its partition file was taken over by %s", name, by)}}})
		return err
	})
}

// Verify reads a fabric now and keeps the books, as Run does each period.
func (b *Board) Verify(ctx context.Context, name string) error {
	if err := b.look(ctx, name); err != nil {
		return err
	}
	return b.checkReach(ctx)
}

func (b *Board) withTurn(ctx context.Context, name string, do func(*device, Driver) error) error {
	d, err := b.device(ctx, name)
	if err != nil {
		return err
	}
	leave, err := d.take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return do(d, d.bound())
}
