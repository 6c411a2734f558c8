package netconf_test

import (
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet"
	"github.com/metalctl/metalctl/provision/ethernet/netconf"
	"github.com/metalctl/metalctl/provision/ethernet/ssh"
)

// rig is an emulated switch with two drivers of it.
type rig struct {
	*wires.Switch
	record  fleet.Switch
	drivers [2]*ethernet.Driver
}

func newRig(t *testing.T, settle time.Duration) *rig {
	t.Helper()
	names := []string{"et-1", "et-2", "et-3", "et-4", "et-5", "et-49"}
	s, err := wires.NewSwitch("eos", names, 999)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("end the switch: %v", err)
		}
	})
	r := &rig{Switch: s, record: fleet.Switch{Name: "leaf-1", Managed: names[:4], Uplinks: names[5:], First: 100, Last: 199, Quarantine: 999}}
	user, password := s.Account()
	for i := range r.drivers {
		r.drivers[i], err = netconf.New(netconf.Options{Switch: r.record, Settle: settle, Patience: 60 * time.Second,
			Host: ssh.Host{Address: s.Address(), User: user, Password: fleet.NewSecret(password), HostKey: s.HostKey()}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func tenant(n int) fleet.Carries {
	if n == 1 {
		return fleet.Carries{Untagged: 101}
	}
	return fleet.Carries{Untagged: 102, Tagged: []fleet.VLAN{110, 111, 115}}
}

func contractOf(t *testing.T, prepare func(*rig)) {
	contract.Wires(t, func(t *testing.T) *contract.WireWorld {
		r := newRig(t, 60*time.Second)
		prepare(r)
		return &contract.WireWorld{Driver: r.drivers[0], Other: r.drivers[1], Ports: r.record.Managed, Stranger: "et-5", Quarantine: r.record.InQuarantine(), Tenant: tenant,
			NotOurs: map[string]fleet.Carries{
				"VLAN 1":                    {Untagged: 1},
				"a VLAN out of the pool":    {Untagged: 200},
				"the quarantine in a trunk": {Untagged: 101, Tagged: []fleet.VLAN{999}},
				"nothing":                   {},
				"a port that is protected":  {Untagged: 101, Protected: true},
				"a partition":               fleet.InPartitions(),
			},
			Foreign: func(_ *testing.T, port string, c fleet.Carries) { r.SetPort(port, c) },
			Fault:   r.Begin}
	})
}

func TestContract(t *testing.T) { contractOf(t, func(*rig) {}) }

// TestContract10 is the same with a switch that knows NETCONF 1.0 only.
func TestContract10(t *testing.T) {
	if testing.Short() {
		t.Skip("long: the whole contract by the older framing, too")
	}
	contractOf(t, func(r *rig) { r.Lack("base:1.1") })
}

func TestLacks(t *testing.T) {
	for _, c := range []string{"capability:candidate:1.0", "capability:confirmed-commit:1.1", "capability:validate:1.1"} {
		r := newRig(t, time.Second)
		r.Lack(c)
		if _, err := r.drivers[0].Observe(t.Context()); fleet.KindOf(err) != fleet.Refused || !strings.Contains(err.Error(), strings.TrimPrefix(c, "capability")[:10]) {
			t.Errorf("without %s: %v", c, err)
		}
	}
}

// TestDoubts gives a port leaves that Carries cannot say.
func TestDoubts(t *testing.T) {
	r := newRig(t, time.Second)
	for leaf, want := range map[string]string{"<tunnel>7</tunnel>": "tunnel", "<enabled>false</enabled>": "whether it is on", "<description>x</description>": ""} {
		r.SetLines("et-1", leaf)
		v, err := r.drivers[0].Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d := v.Port("et-1").Doubt; !strings.Contains(d, want) || (d == "") != (want == "") {
			t.Errorf("%s: %q", leaf, d)
		}
	}
}

// TestKept: what was proven outlives a restart, what nobody confirmed goes back, and both are shown.
func TestKept(t *testing.T) {
	r := newRig(t, 5*time.Second)
	apply := func(port string, c fleet.Carries) fleet.WirePlan {
		t.Helper()
		v, err := r.drivers[0].Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.drivers[0].Plan(v, map[string]fleet.Carries{port: c})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.drivers[0].Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if _, err := r.drivers[0].Verify(t.Context(), apply("et-1", tenant(2))); err != nil {
		t.Fatal(err)
	}
	open := apply("et-2", tenant(1))
	v, err := r.drivers[1].Observe(t.Context())
	if err != nil || v.Stops() == nil {
		t.Errorf("a commit that is not confirmed stops nothing: %+v %v", v.Findings, err)
	}
	r.Elapse(10 * time.Minute)
	if err := r.drivers[1].Rollback(t.Context(), open); err != nil {
		t.Errorf("roll back what went back: %v", err)
	}
	r.Restart()
	v, err = r.drivers[0].Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !v.Port("et-1").Carries.Equal(tenant(2)) || !v.Port("et-2").Carries.Equal(r.record.InQuarantine()) || v.Stops() != nil {
		t.Errorf("after a restart: %+v", v)
	}
}
