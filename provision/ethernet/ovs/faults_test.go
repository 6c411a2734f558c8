package ovs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
	"github.com/metalctl/metalctl/fleet"
)

// shows waits until the switch can be read, and fails where ports carry something else.
func (r *rig) shows(t *testing.T, want map[string]fleet.Carries) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for {
		v, err := r.drivers[0].Observe(ctx)
		if err == nil && v.Stops() == nil {
			for port, c := range want {
				if p := v.Port(port); p.Doubt != "" || !p.Carries.Equal(c) {
					t.Errorf("%s is %+v, want %s", port, *p, c)
				}
			}
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the switch cannot be read: %v %+v", err, v.Findings)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (r *rig) plan(t *testing.T, want map[string]fleet.Carries) fleet.WirePlan {
	t.Helper()
	v, err := r.drivers[0].Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.drivers[0].Plan(v, want)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSwitchDies: the switch dies after a change was written, and comes back with the database of the day before.
func TestSwitchDies(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real Open vSwitch that dies")
	}
	r := start(t)
	r.plug(t, "tag=900", "p1", "p2")
	r.manage(t, "p1", "p2")
	r.free(t, "p1", "p2")
	r.move(t, map[string]fleet.Carries{"p1": tenant(1)})
	if err := errors.Join(r.KillDatabase(), r.Keep("yesterday.db"), r.StartDatabase(t.Context())); err != nil {
		t.Fatal(err)
	}
	r.shows(t, map[string]fleet.Carries{"p1": tenant(1)})
	r.move(t, map[string]fleet.Carries{"p1": tenant(2), "p2": tenant(2)})

	// Dead between what was written and its proof: nothing is proven, and nobody says so.
	plan := r.plan(t, map[string]fleet.Carries{"p2": tenant(1)})
	if err := r.drivers[0].Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if err := r.KillSwitchd(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.drivers[0].Observe(t.Context()); fleet.KindOf(err) != fleet.Unavailable {
		t.Errorf("a switch without its daemon is read: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	if _, err := r.drivers[0].Verify(short, plan); err == nil {
		t.Error("a change is proven by a switch that is dead")
	}
	cancel()

	// The old database: what it gives ports is seen, and neither proven nor taken back as if nothing had been.
	if err := errors.Join(r.KillDatabase(), r.Restore("yesterday.db"), r.StartDatabase(t.Context()), r.StartSwitchd(t.Context())); err != nil {
		t.Fatal(err)
	}
	r.shows(t, map[string]fleet.Carries{"p1": tenant(1)})
	short, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := r.drivers[1].Verify(short, plan); err == nil {
		t.Error("a change is proven by yesterday's database")
	}
	if err := r.drivers[1].Rollback(t.Context(), plan); fleet.KindOf(err) != fleet.Conflict {
		t.Errorf("a change is taken back from a database that never had it: %v", err)
	}
	r.free(t, "p1", "p2")
	r.shows(t, map[string]fleet.Carries{"p1": leaf().InQuarantine(), "p2": leaf().InQuarantine()})
}

// TestDoubts: what our model cannot say of a port is said in words, and quarantine ends it where it can.
func TestDoubts(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real Open vSwitch")
	}
	r := start(t)
	r.plug(t, "tag=900", "p1", "p2")
	r.plug(t, "tag=900", "other")
	r.manage(t, "p1", "p2")
	r.free(t, "p1", "p2")
	for _, c := range []struct{ settings, doubt string }{
		{"clear port p1 tag vlan_mode", "passes every VLAN"},
		{"set port p1 vlan_mode=native-tagged tag=101 trunks=102", "is in mode native-tagged"},
		{"set port p1 vlan_mode=dot1q-tunnel tag=101", "is in mode dot1q-tunnel"},
		{"set port p1 vlan_mode=trunk tag=101 trunks=102", "is a trunk with the tag"},
		{"set port p1 tag=0", "is in VLAN 0"},
		{"set port p1 tag=101 trunks=102", "is an access port with the trunk's VLANs"},
	} {
		r.vsctl(t, c.settings)
		v, err := r.drivers[0].Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p := v.Port("p1"); !strings.Contains(p.Doubt, c.doubt) {
			t.Errorf("after %s: %+v, want doubt %q", c.settings, *p, c.doubt)
		}
		if _, err := r.drivers[0].Plan(v, map[string]fleet.Carries{"p1": tenant(1)}); fleet.KindOf(err) != fleet.Refused {
			t.Errorf("after %s the port may be moved: %v", c.settings, err)
		}
		if _, err := r.drivers[0].Adopt(t.Context()); fleet.KindOf(err) != fleet.Refused {
			t.Errorf("after %s the switch is taken over: %v", c.settings, err)
		}
		r.free(t, "p1")
		r.shows(t, map[string]fleet.Carries{"p1": leaf().InQuarantine()})
	}
	r.vsctl(t, "set port p2 other_config:private=yes")
	if v, err := r.drivers[0].Observe(t.Context()); err != nil || !strings.Contains(v.Port("p2").Doubt, "other_config:private") {
		t.Errorf("an unknown key is not doubted: %v %+v", err, v.Port("p2"))
	}
	r.vsctl(t, "clear port p2 other_config")
	if _, err := r.drivers[0].Adopt(t.Context()); err != nil {
		t.Errorf("a switch with all ports in quarantine cannot be taken over: %v", err)
	}
	for _, c := range []struct{ bad, code, good string }{
		{"clear port other tag", "MC-SWITCH-STRANGER", "set port other tag=900"},
		{"-- --id=@m create mirror name=m select_all=true output_vlan=999 -- set bridge br0 mirrors=@m", "MC-SWITCH-MIRROR", "clear bridge br0 mirrors"},
	} {
		r.vsctl(t, c.bad)
		v, err := r.drivers[0].Observe(t.Context())
		if s := v.Stops(); err != nil || s == nil || s.Code != c.code {
			t.Errorf("after %s: %v %+v, want %s", c.bad, err, s, c.code)
		}
		r.vsctl(t, c.good)
		r.shows(t, nil)
	}
	r.vsctl(t, "set-fail-mode "+vswitch.Bridge+" secure")
	if v, err := r.drivers[0].Observe(t.Context()); err != nil || v.Stops() == nil || v.Stops().Code != "MC-SWITCH-FLOWS" {
		t.Errorf("a bridge without its flow is believed: %v %+v", err, v.Findings)
	}
}
