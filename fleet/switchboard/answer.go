package switchboard

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// Reading is what was read last of a fabric or switch, and whether it can be trusted.
func (b *Board) Reading(ctx context.Context, name string) (out api.Reading) {
	d, err := b.device(ctx, name)
	if err != nil {
		return api.Reading{State: api.FabricUnbound, Why: err.Error()}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen != nil {
		out.ReadAt, out.Ports, out.Findings = d.seen.At, d.seen.Ports, d.seen.Findings
	}
	out.State = api.FabricTrusted
	if out.Why = b.whyNotLocked(d); out.Why != "" {
		out.State = api.FabricStopped
	}
	if d.seen == nil {
		out.State = api.FabricUnread
	}
	return out
}

// trustFor is how many periods a reading is trusted.
const trustFor = 4

// whyNot says why nothing is handed out at the device, "" where it is.
func (b *Board) whyNot(d *device) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return b.whyNotLocked(d)
}

func (b *Board) whyNotLocked(d *device) string {
	switch {
	case d.silent != nil:
		return "it cannot be read: " + d.silent.Error()
	case d.alarm != "":
		return d.alarm
	case d.seen == nil:
		return "it was not read yet"
	case b.Now().Sub(d.seen.At) > trustFor*b.Every:
		return "it was read last at " + d.seen.At.UTC().Format(time.RFC3339)
	}
	if f := d.seen.Stops(); f != nil {
		return f.Code + ": " + f.Text
	}
	return ""
}

// Trusted is an error while a node with ports at those devices is not to be handed out: it says which of them is in doubt, or who reaches whom.
func (b *Board) Trusted(devices []string) error {
	for _, name := range devices {
		d := b.entry(name)
		if why := b.whyNot(d); why != "" {
			return fleet.Errorf(fleet.Conflict, "MC-NET-STOPPED", "nothing is handed out at the %s %s: %s", d.what(), name, why).WithHint("metalctl %s show %s", d.what(), name)
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

// Adopt takes a fabric or switch over.
func (b *Board) Adopt(ctx context.Context, name, by string) error {
	return b.withTurn(ctx, name, func(d *device, driver Driver) error {
		v, err := driver.Adopt(ctx)
		if err != nil {
			return err
		}
		d.believe(v)
		_, err = b.Store.Commit(ctx, fleet.Change{Events: []fleet.Event{{Type: d.what() + ".adopted", At: b.Now().UTC(), Subject: fleet.KeyOf(d.what(), name),
			Text: fmt.Sprintf("%s %s was taken over by %s", d.what(), name, by)}}})
		return err
	})
}

// Verify reads a fabric or switch now and keeps the books, as Run does each period.
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
