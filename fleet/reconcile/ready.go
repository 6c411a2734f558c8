package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// awaitReady waits until the tenant's system is what the lease calls ready, and records what showed it.
func (l *Loop) awaitReady(ctx context.Context, c step.Call) (step.Outcome, error) {
	var p step.ReadyParams
	if err := json.Unmarshal(c.Params, &p); err != nil {
		return step.Outcome{}, fmt.Errorf("parameters of %s: %w", c.Step, err)
	}
	switch p.Ready {
	case fleet.ReadyNow:
		return shown(p.Ready, "powered on; the lease asks for no more"), nil
	case fleet.ReadyPhoneHome:
		v, err := l.look(ctx, c.Node)
		if err != nil {
			return step.Outcome{}, err
		}
		return step.Outcome{}, phoneHome(v.site)
	case fleet.ReadyOS:
		return l.awaitOS(ctx, c)
	}
	return step.Outcome{}, fleet.Errorf(fleet.Invalid, "MC-LEASE-READY", "%q is no readiness that is known", p.Ready)
}

// phoneHome refuses what cannot be kept: only a network driver could open the way to the endpoint.
func phoneHome(s fleet.Site) error {
	if s.PhoneHome == "" {
		return fleet.Errorf(fleet.Refused, "MC-LEASE-PHONE-HOME", "ready: phone-home needs an endpoint that tenants' systems can reach, and the site names none").
			WithHint("set phone_home in the Site, or ask for --ready os-running")
	}
	return fleet.Errorf(fleet.Refused, "MC-LEASE-PHONE-HOME", "ready: phone-home needs a network that leads to %s, and no network driver is bound", s.PhoneHome).
		WithHint("ask for --ready os-running")
}

func shown(r fleet.Ready, by string) step.Outcome {
	return step.Outcome{Evidence: map[string]string{"ready": string(r), "by": by}}
}

// awaitOS takes the best evidence that there is: the BMC's BootProgress, else power that stays on.
func (l *Loop) awaitOS(ctx context.Context, c step.Call) (step.Outcome, error) {
	began := l.Mono() // a wall clock that is set makes nothing ready
	onSince, offs := time.Duration(-1), 0
	progress := "" // what the BMC last said, which stays true while it does not answer
	tick := time.NewTicker(l.ReadyTick)
	defer tick.Stop()
	for {
		if l.Evidence != nil {
			ask, cancel := context.WithTimeout(ctx, l.CallDeadline)
			// A BMC that cannot tell leaves the power.
			if p, err := l.Evidence.BootProgress(ask, c.Node); err == nil {
				progress = p
			}
			cancel()
			if progress == "OSRunning" {
				return shown(fleet.ReadyOS, "BootProgress is OSRunning"), nil
			}
		}
		now := l.Mono()
		power := l.power(ctx, c.Node)
		switch {
		case power == "on" && onSince < 0:
			onSince, offs = now, 0
		case power == "off":
			onSince = -1
			if offs++; offs >= 3 {
				return step.Outcome{}, fleet.Errorf(fleet.Broken, "MC-READY-OFF", "the machine is off %s after it was started", (now - began).Round(time.Second)).
					WithHint("look at its console, and at what the BMC says: metalctl node timeline NODE")
			}
		}
		// A BMC that follows the boot is believed: what it calls an earlier stage is not ready, however long the power is on.
		// A BMC that does not answer shows neither.
		if power == "on" && now-onSince >= l.PowerOnFor && !follows(progress) {
			return shown(fleet.ReadyOS, fmt.Sprintf("power stayed on for %s; BootProgress says no more", l.PowerOnFor)), nil
		}
		c.Progress("waiting for the operating system", int64((now-began)/time.Second), 0)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return step.Outcome{}, fleet.Errorf(fleet.Timeout, "MC-READY-TIMEOUT", "the operating system did not show itself within %s; last BootProgress %q: %w",
				(l.Mono() - began).Round(time.Second), progress, ctx.Err())
		}
	}
}

// follows reports whether a BootProgress is a stage that a BMC still expects to get beyond (DSP2046 ComputerSystem BootProgress LastState).
func follows(p string) bool {
	switch p {
	case "", "None", "OEM", "OSBootStarted":
		// OSBootStarted is the last that firmware alone can tell; OSRunning needs an agent in the tenant's system.
		return false
	}
	return true
}
