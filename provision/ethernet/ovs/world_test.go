package ovs_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires/vswitch"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet/ovs"
)

const quarantine = 4000

func leaf(managed ...string) fleet.Switch {
	return fleet.Switch{Name: "leaf-1", Managed: managed, Uplinks: []string{"up1"}, First: 100, Last: 199, Quarantine: quarantine}
}

func tenant(n int) fleet.Carries { return fleet.Carries{Untagged: fleet.VLAN(100 + n)} }

// rig is a real Open vSwitch with two drivers of it.
type rig struct {
	*vswitch.Switch
	faulty  *vswitch.Faulty
	ports   []string
	drivers [2]*ovs.Driver
}

// start makes a switch. Its ports are plugged in by the test, and then managed by the drivers that manage makes.
func start(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "ovs") // names of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sw, err := vswitch.Start(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sw.Close(); err != nil {
			t.Errorf("end the switch: %v", err)
		}
	})
	return &rig{Switch: sw, faulty: vswitch.NewFaulty(sw)}
}

func (r *rig) manage(t *testing.T, ports ...string) {
	t.Helper()
	r.ports = ports
	for i := range r.drivers {
		d, err := ovs.New(ovs.Options{Switch: leaf(ports...), Bridge: vswitch.Bridge, Database: r.faulty.Database, OpenFlow: r.faulty.OpenFlow, Settle: 60 * time.Second, Patience: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		r.drivers[i] = d
	}
}

// plug adds ports with nobody behind them, as ovs-vsctl takes their settings.
func (r *rig) plug(t *testing.T, settings string, names ...string) {
	t.Helper()
	for _, n := range names {
		space, err := vswitch.NewSpace()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := space.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := r.AddPort(t.Context(), n, space, vswitch.Link, nil, strings.Fields(settings)...); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) vsctl(t *testing.T, line string) string {
	t.Helper()
	out, err := r.Vsctl(t.Context(), strings.Fields(line)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// move gives ports what they shall carry, all the way.
func (r *rig) move(t *testing.T, want map[string]fleet.Carries) fleet.WireView {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	d := r.drivers[0]
	v, err := d.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Plan(v, want)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(ctx, p); err != nil {
		t.Fatal(err)
	}
	if v, err = d.Verify(ctx, p); err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rig) free(t *testing.T, ports ...string) {
	t.Helper()
	want := map[string]fleet.Carries{}
	for _, p := range ports {
		want[p] = leaf().InQuarantine()
	}
	r.move(t, want)
}

func TestContract(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a real Open vSwitch for each case")
	}
	contract.Wires(t, func(t *testing.T) *contract.WireWorld {
		r := start(t)
		ports := []string{"p1", "p2", "p3", "p4"}
		r.plug(t, "tag=900", append(ports, "stranger")...)
		r.manage(t, ports...)
		r.free(t, ports...)
		return &contract.WireWorld{Driver: r.drivers[0], Other: r.drivers[1], Ports: ports, Stranger: "stranger", Quarantine: leaf().InQuarantine(), Tenant: tenant,
			NotOurs: map[string]fleet.Carries{
				"a VLAN out of the range":   {Untagged: 300},
				"VLAN 1":                    {Untagged: 1},
				"VLAN 1 in a trunk":         {Untagged: 101, Tagged: []fleet.VLAN{1}},
				"the quarantine in a trunk": {Untagged: 101, Tagged: []fleet.VLAN{quarantine}},
				"the quarantine, on":        {Untagged: quarantine},
				"a trunk out of range":      {Tagged: []fleet.VLAN{101, 300}},
				"nothing":                   {},
				"a partition":               fleet.InPartitions(),
			},
			Foreign: func(t *testing.T, port string, c fleet.Carries) {
				r.vsctl(t, "set port "+port+" vlan_mode=access tag="+fmt.Sprint(c.Untagged))
				r.power(t, port, c.Down)
			},
			Fault: r.faulty.Begin}
	})
}

// power switches a port off or on behind the driver's back, as "ip link set" on the switch does, and waits until the switch has seen it.
func (r *rig) power(t *testing.T, port string, down bool) {
	t.Helper()
	l, err := r.Space.Net.LinkByName(port)
	if err != nil {
		t.Fatal(err)
	}
	set, state := r.Space.Net.LinkSetUp, "up"
	if down {
		set, state = r.Space.Net.LinkSetDown, "down"
	}
	if err := set(l); err != nil {
		t.Fatal(err)
	}
	r.vsctl(t, "wait-until interface "+port+" admin_state="+state)
}
