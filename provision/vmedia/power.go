package vmedia

import (
	"context"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// powerOn looks first. A machine that is on although this plan found or left it off was switched on by somebody else and runs something that is
// not ours, unless an earlier try of this step may have done it.
func (d *Driver) powerOn(ctx context.Context, c step.Call) (step.Outcome, error) {
	bmc, err := d.Dial(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	before, err := bmc.Power.Power(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	if before == On && c.Try <= 1 && !c.Resumed {
		return step.Outcome{}, fleet.Errorf(fleet.Conflict, "MC-NODE-RUNNING", "the machine is on already, though it was off when the plan reached it").
			WithHint("somebody switched it on: metalctl node power off NODE, then metalctl node retry NODE")
	}
	if err := bmc.Power.SetPower(ctx, On); err != nil {
		return step.Outcome{}, err
	}
	after, err := bmc.Power.Power(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	if after == Off {
		return step.Outcome{}, fleet.Errorf(fleet.Unavailable, "MC-BMC-POWER", "the BMC accepted power-on and still shows %s", after)
	}
	return step.Outcome{Evidence: map[string]string{"before": before, "after": after}}, nil
}

// powerOff waits where the machine is going down by itself, asks the system where it should, and forces what is left.
func (d *Driver) powerOff(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.PowerParams
	if err := params(c, &p); err != nil {
		return step.Outcome{}, err
	}
	bmc, err := d.Dial(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	before, err := bmc.Power.Power(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	how, now := "was off", before
	if now != Off && p.WaitSeconds > 0 {
		how = "went off by itself"
		if now, err = d.waitOff(ctx, bmc.Power, time.Duration(p.WaitSeconds)*time.Second); err != nil {
			return step.Outcome{}, err
		}
	}
	if now != Off && p.Graceful {
		how = "the system shut down"
		// A system that does not listen is no reason to leave the machine on: it is forced below.
		asking, cancel := context.WithTimeout(ctx, time.Minute)
		err := bmc.Power.SetPower(asking, Graceful)
		cancel()
		if ctx.Err() != nil {
			return step.Outcome{}, ctx.Err()
		}
		if now = Off; err != nil {
			now = On
		}
	}
	if now != Off {
		how = "forced"
		if err := bmc.Power.SetPower(ctx, ForceOff); err != nil {
			return step.Outcome{}, err
		}
	}
	after, err := bmc.Power.Power(ctx)
	if err != nil {
		return step.Outcome{}, err
	}
	if after != Off {
		return step.Outcome{}, fleet.Errorf(fleet.Unavailable, "MC-BMC-POWER", "the BMC accepted power-off and still shows %s", after)
	}
	return step.Outcome{Evidence: map[string]string{"before": before, "after": after, "how": how}}, nil
}

func (d *Driver) waitOff(ctx context.Context, p Power, limit time.Duration) (string, error) {
	end, tick := d.waiting(limit)
	defer end.Stop()
	defer tick.Stop()
	for {
		s, err := p.Power(ctx)
		if err != nil || s == Off {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-end.C:
			return s, nil
		case <-tick.C:
		}
	}
}

// stayOff waits while the machine is off, reading so again and again: memory forgets only without power. A machine that somebody switches on meanwhile was not
// off for long enough.
func (d *Driver) stayOff(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.StayOffParams
	if err := params(c, &p); err != nil {
		return step.Outcome{}, err
	}
	bmc, err := d.Dial(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	now := d.Now
	if now == nil {
		now = time.Now
	}
	var since time.Time
	readings := 0
	read := func() error {
		state, err := bmc.Power.Power(ctx)
		if err != nil {
			return err
		}
		if state != Off {
			return fleet.Errorf(fleet.Conflict, "MC-NODE-RUNNING", "the machine is %s, though it is to stay off for %d s so that its memory forgets", state, p.Seconds).
				WithHint("see who switched it on, then: metalctl node retry NODE")
		}
		if readings++; readings == 1 {
			since = now()
		}
		return nil
	}
	if err := read(); err != nil {
		return step.Outcome{}, err
	}
	end, tick := d.waiting(time.Duration(p.Seconds) * time.Second)
	defer end.Stop()
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-ctx.Done():
			return step.Outcome{}, ctx.Err()
		case <-end.C:
			over = true
		case <-tick.C:
		}
		if err := read(); err != nil {
			return step.Outcome{}, err
		}
	}
	return step.Outcome{Evidence: step.StayedOff{Since: since.UTC(), Until: now().UTC(), Readings: readings}}, nil
}

// waiting begins a wait: its end, and when to look meanwhile.
func (d *Driver) waiting(limit time.Duration) (*time.Timer, *time.Ticker) {
	every := d.Poll
	if every == 0 {
		every = 2 * time.Second
	}
	if d.MaxWait > 0 {
		limit = min(limit, d.MaxWait)
	}
	return time.NewTimer(limit), time.NewTicker(every)
}
