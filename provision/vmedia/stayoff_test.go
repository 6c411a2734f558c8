package vmedia

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// pressed is a machine that is off until somebody switches it on, at that reading; 0: nobody does.
type pressed struct {
	at, reads int
	fail      bool
}

func (p *pressed) SetPower(context.Context, string) error { return errDown }

func (p *pressed) Power(context.Context) (string, error) {
	p.reads++
	switch {
	case p.fail:
		return "", errDown
	case p.reads == p.at:
		return On, nil
	}
	return Off, nil
}

func TestAMachineStaysOff(t *testing.T) {
	for name, c := range map[string]struct {
		machine pressed
		code    string
		fails   bool
	}{
		"for a minute":                {pressed{}, "", false},
		"it is on":                    {pressed{at: 1}, "MC-NODE-RUNNING", true},
		"it is switched on meanwhile": {pressed{at: 20}, "MC-NODE-RUNNING", true},
		"its BMC does not answer":     {pressed{fail: true}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := Driver{Dial: func(context.Context, fleet.NodeID) (Controller, error) { return Controller{Power: &c.machine}, nil }}
				began := time.Now()
				out, err := d.stayOff(t.Context(), step.Call{Params: json.RawMessage(`{"seconds":60}`)})
				if (err != nil) != c.fails || fleet.CodeOf(err) != c.code {
					t.Fatalf("%+v, %v", out, err)
				}
				if err != nil {
					return
				}
				off := out.Evidence.(step.StayedOff)
				if !off.Since.Equal(began) || off.Until.Sub(off.Since) != time.Minute || off.Readings < 20 {
					t.Errorf("%+v", off)
				}
			})
		})
	}
}

func TestAnAbortEndsTheWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := Driver{Dial: func(context.Context, fleet.NodeID) (Controller, error) { return Controller{Power: &pressed{}}, nil }}
	if _, err := d.stayOff(ctx, step.Call{Params: json.RawMessage(`{"seconds":300}`)}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
