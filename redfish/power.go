package redfish

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// PowerState is a host's power as the BMC tells it.
type PowerState string

const (
	PowerOn          PowerState = "On"
	PowerOff         PowerState = "Off"
	PowerPoweringOn  PowerState = "PoweringOn"
	PowerPoweringOff PowerState = "PoweringOff"
	PowerPaused      PowerState = "Paused"
	// PowerUnknown: the BMC says nothing, or something that the specification does not know.
	PowerUnknown PowerState = "Unknown"
)

// Action is what SetPower does.
type Action string

const (
	On               Action = "On"
	ForceOff         Action = "ForceOff"
	GracefulShutdown Action = "GracefulShutdown"
	GracefulRestart  Action = "GracefulRestart"
	ForceRestart     Action = "ForceRestart"
	PowerCycle       Action = "PowerCycle"
)

// How long a host may take to show a power change. A graceful shutdown is the operating system's own affair.
const (
	powerLimit    = 3 * time.Minute
	gracefulLimit = 10 * time.Minute
	powerEvery    = 2 * time.Second
	powerConflict = time.Minute
)

func powerState(r *resource) PowerState { return knownPower(r.str("PowerState")) }

func knownPower(text string) PowerState {
	switch s := PowerState(text); s {
	case PowerOn, PowerOff, PowerPoweringOn, PowerPoweringOff, PowerPaused:
		return s
	}
	return PowerUnknown
}

// Power reads the host's power state.
func (b *BMC) Power(ctx context.Context) (PowerState, error) {
	if b.opts.ReadOnce {
		r, err := b.host(ctx)
		if err != nil {
			return PowerUnknown, err
		}
		return powerState(r), nil
	}
	// This is asked of each node every minute, so that nothing else of the answer is decoded.
	s, err := b.look(ctx)
	if err != nil {
		return PowerUnknown, err
	}
	r, err := b.call(ctx, request{method: http.MethodGet, uri: s.host})
	if err != nil {
		return PowerUnknown, explain(err, "read the host system")
	}
	state, err := memberText(r.body, "PowerState")
	if err != nil {
		return PowerUnknown, explain(protocolError("read %s: %w", s.host, err), "read the host system")
	}
	return knownPower(state), nil
}

// host reads the host system afresh.
func (b *BMC) host(ctx context.Context) (*resource, error) {
	s, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	r, err := b.get(ctx, s.host)
	return r, explain(err, "read the host system")
}

// SetPower does a and returns when the BMC shows its result. On when on, and any way of off when off, write nothing. A restart of
// a host that is off is MC-BMC-CONFLICT. A state that is not reached in time is MC-BMC-POWER.
func (b *BMC) SetPower(ctx context.Context, a Action) error {
	release, err := b.writing(ctx)
	if err != nil {
		return err
	}
	defer release()
	return explain(b.setPower(ctx, a), "power "+string(a))
}

func (b *BMC) setPower(ctx context.Context, a Action) error {
	switch a {
	case On, ForceOff, GracefulShutdown:
		goal := PowerOff
		if a == On {
			goal = PowerOn
		}
		r, reached, err := b.settled(ctx, goal)
		if err != nil || reached {
			return err
		}
		limit := powerLimit
		if a == GracefulShutdown {
			limit = gracefulLimit
		}
		return b.reset(ctx, r, a, goal, limit)
	case ForceRestart, GracefulRestart, PowerCycle:
		r, _, err := b.settled(ctx, PowerOn)
		if err != nil {
			return err
		}
		if powerState(r) == PowerOff {
			return fleet.Errorf(fleet.Conflict, "MC-BMC-CONFLICT", "the host is off").WithHint("metalctl node power on NODE")
		}
		if a == PowerCycle && !slices.Contains(b.resetTypes(ctx, r), string(PowerCycle)) {
			if err := b.reset(ctx, r, ForceOff, PowerOff, powerLimit); err != nil {
				return err
			}
			if r, err = b.host(ctx); err != nil {
				return err
			}
			return b.reset(ctx, r, On, PowerOn, powerLimit)
		}
		return b.reset(ctx, r, a, PowerOn, powerLimit)
	}
	return fleet.Errorf(fleet.Invalid, "MC-BMC-POWER", "there is no power action %q", printable(string(a), 40))
}

// settled waits until the host is no longer between two states, and tells whether it has reached goal.
func (b *BMC) settled(ctx context.Context, goal PowerState) (r *resource, reached bool, err error) {
	_, err = b.until(ctx, powerLimit, powerEvery, func() (bool, error) {
		if r, err = b.host(ctx); err != nil {
			return false, err
		}
		s := powerState(r)
		return s != PowerPoweringOn && s != PowerPoweringOff, nil
	})
	if err != nil {
		return nil, false, err
	}
	return r, powerState(r) == goal, nil
}

// resetTypes are the values that the host's reset action takes; nil where the BMC does not tell.
func (b *BMC) resetTypes(ctx context.Context, r *resource) []string {
	_, action := r.action("ComputerSystem.Reset")
	if v := texts(action["ResetType@Redfish.AllowableValues"]); v != nil {
		return v
	}
	return b.actionInfo(ctx, action).values("ResetType")
}

// resetType is the BMC's own word for a.
func resetType(a Action, allowed []string) (string, error) {
	if allowed == nil {
		return string(a), nil
	}
	alternatives := map[Action][]string{
		On:               {"On", "ForceOn", "PushPowerButton"},
		ForceOff:         {"ForceOff"},
		GracefulShutdown: {"GracefulShutdown", "PushPowerButton"},
		GracefulRestart:  {"GracefulRestart"},
		ForceRestart:     {"ForceRestart"},
		PowerCycle:       {"PowerCycle"},
	}
	for _, t := range alternatives[a] {
		if slices.Contains(allowed, t) {
			return t, nil
		}
	}
	return "", fleet.Errorf(fleet.Refused, "MC-BMC-POWER", "the BMC offers %v, none of which does %s", allowed, a).
		WithHint("metalctl bmc probe shows what the BMC can do")
}

// reset sends one reset and reads the state back until it is goal. The reset is sent once: an answer that got lost is settled by
// looking, and a second press could undo the first. 400 and 409 count as done where the state is already right (ironic power.py);
// other 409 say that the host is between two states and nothing was done, so they are tried again for a while.
func (b *BMC) reset(ctx context.Context, r *resource, a Action, goal PowerState, limit time.Duration) error {
	target, _ := r.action("ComputerSystem.Reset")
	if target == "" {
		return protocolError("the host system has no reset action")
	}
	kind, err := resetType(a, b.resetTypes(ctx, r))
	if err != nil {
		return err
	}
	restart := a == ForceRestart || a == GracefulRestart || a == PowerCycle
	stamp := r.str("LastResetTime")
	deadline := b.now().Add(max(b.profile().PowerConflict, powerConflict))
	for {
		err = b.post(ctx, target, map[string]string{"ResetType": kind})
		if err == nil {
			break
		}
		lost := AsError(err) == nil && fleet.KindOf(err) == fleet.Unavailable
		if s := statusOf(err); !lost && s != http.StatusBadRequest && s != http.StatusConflict {
			return err
		}
		if restart && lost && stamp == "" {
			return err // whether it restarted cannot be told
		}
		if !restart || lost {
			reached, rerr := b.reached(ctx, goal, restart, stamp, lost)
			if reached {
				return nil
			}
			if rerr != nil {
				return errors.Join(err, rerr)
			}
		}
		if lost || statusOf(err) != http.StatusConflict || !b.now().Before(deadline) {
			return err
		}
		if serr := b.sleep(ctx, 10*time.Second); serr != nil {
			return serr
		}
	}
	var last PowerState
	over, err := b.until(ctx, limit, powerEvery, func() (bool, error) {
		r, err := b.host(ctx)
		if err != nil {
			return false, err
		}
		last = powerState(r)
		return last == goal, nil
	})
	if err != nil {
		return err
	}
	if over {
		e := fleet.Errorf(fleet.Timeout, "MC-BMC-POWER", "the BMC took %s, but the host is %s instead of %s after %s", kind, last, goal, limit)
		if a == GracefulShutdown {
			return e.WithHint("the operating system did not shut down; metalctl node power off NODE")
		}
		return e.WithHint("metalctl node timeline NODE; the BMC may need a restart")
	}
	return nil
}

// reached looks whether an unanswered or refused reset has had its effect; an unanswered one gets half a minute.
func (b *BMC) reached(ctx context.Context, goal PowerState, restart bool, stamp string, lost bool) (bool, error) {
	done := false
	limit := time.Duration(0)
	if lost {
		limit = 30 * time.Second
	}
	_, err := b.until(ctx, limit, powerEvery, func() (bool, error) {
		r, err := b.host(ctx)
		if err != nil {
			return false, err
		}
		done = powerState(r) == goal && (!restart || r.str("LastResetTime") != stamp)
		return done, nil
	})
	return done, err
}

// BootProgress returns the last stage that the host reported (BootProgress.LastState), or "" where the BMC does not tell.
func (b *BMC) BootProgress(ctx context.Context) (string, error) {
	r, err := b.host(ctx)
	if err != nil {
		return "", err
	}
	return clean(first(r.str("BootProgress", "LastState"), r.str("BootProgress", "OemLastState"))), nil
}
