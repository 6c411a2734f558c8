package cli_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet"
	"github.com/metalctl/metalctl/provision/ethernet/cli"
	"github.com/metalctl/metalctl/provision/ethernet/ssh"
)

// ports are four that are managed, one that is not, and an uplink.
var ports = map[string][]string{
	"eos":  {"Ethernet1", "Ethernet2", "Ethernet3/1", "Ethernet4", "Ethernet5", "Ethernet49/1"},
	"nxos": {"Ethernet1/1", "Ethernet1/2", "Ethernet1/3", "Ethernet1/4/1", "Ethernet1/5", "Ethernet1/49"},
}

// rig is an emulated switch with two drivers of it.
type rig struct {
	*wires.Switch
	record   fleet.Switch
	at       string
	ahead    atomic.Int64 // how far the servers' clock is
	stranger string
	drivers  [2]*ethernet.Driver
}

func newRig(t *testing.T, platform string, change ...func(*cli.Options)) *rig {
	t.Helper()
	names := ports[platform]
	s, err := wires.NewSwitch(platform, names, 999)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("end the switch: %v", err)
		}
	})
	r := &rig{Switch: s, at: s.Address(), stranger: names[4], record: fleet.Switch{Name: "leaf-1", Managed: names[:4], Uplinks: names[5:], First: 100, Last: 199, Quarantine: 999}}
	for i := range r.drivers {
		o := cli.Options{Switch: r.record, Platform: cli.PlatformOf(platform), Settle: 60 * time.Second, Patience: 60 * time.Second, Host: r.host(), Now: r.now}
		for _, c := range change {
			c(&o)
		}
		if r.drivers[i], err = cli.New(o); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

// elapse lets time go by for the switch and the servers.
func (r *rig) elapse() {
	const d = 10 * time.Minute
	r.Elapse(d)
	r.ahead.Add(int64(d))
}

func (r *rig) host() ssh.Host {
	user, password := r.Account()
	return ssh.Host{Address: r.at, User: user, Password: fleet.NewSecret(password), HostKey: r.HostKey()}
}

func (r *rig) world() *contract.WireWorld {
	return &contract.WireWorld{Driver: r.drivers[0], Other: r.drivers[1], Ports: r.record.Managed, Stranger: r.stranger, Quarantine: r.record.InQuarantine(),
		Tenant: func(n int) fleet.Carries {
			if n == 1 {
				return fleet.Carries{Untagged: 101}
			}
			return fleet.Carries{Untagged: 102, Tagged: []fleet.VLAN{110, 111, 115}}
		},
		NotOurs: map[string]fleet.Carries{
			"VLAN 1":                       {Untagged: 1},
			"a VLAN out of the pool":       {Untagged: 200},
			"VLAN 1 in a trunk":            {Untagged: 101, Tagged: []fleet.VLAN{1}},
			"the quarantine in a trunk":    {Untagged: 101, Tagged: []fleet.VLAN{999}},
			"the quarantine with the port": {Untagged: 999},
			"nothing":                      {},
			"VLANs out of order":           {Tagged: []fleet.VLAN{103, 102}},
			"a port that is protected":     {Untagged: 101, Protected: true},
			"a partition":                  fleet.InPartitions(),
		},
		Elapse:  r.elapse,
		Foreign: func(_ *testing.T, port string, c fleet.Carries) { r.SetPort(port, c) },
		Fault:   r.Begin}
}

func TestContractEOS(t *testing.T) {
	contract.Wires(t, func(t *testing.T) *contract.WireWorld { return newRig(t, "eos").world() })
}

func TestContractNXOS(t *testing.T) {
	contract.Wires(t, func(t *testing.T) *contract.WireWorld { return newRig(t, "nxos").world() })
}

func TestCuts(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a change for each command that can be lost")
	}
	for _, platform := range []string{"eos", "nxos"} {
		t.Run(platform, func(t *testing.T) {
			contract.WireCuts(t, contract.Sometimes(31, 97), func(t *testing.T) (*contract.WireWorld, *contract.Cut) {
				cut := &contract.Cut{}
				r := newRig(t, platform)
				r.Cut(cut.Heard)
				whole := r.at
				r.at = cut.Proxy(t, whole)
				d, err := cli.New(cli.Options{Switch: r.record, Platform: cli.PlatformOf(platform), Settle: 60 * time.Second, Patience: 60 * time.Second, Host: r.host(), Now: r.now})
				if err != nil {
					t.Fatal(err)
				}
				r.drivers[0], r.at = d, whole
				return r.world(), cut
			})
		})
	}
}

// TestLostAnywhere loses the connection at each command of a change in turn, before it is done and after: the change is made all the same, or is refused as
// one that was made already.
func TestLostAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a change for each command that can be lost")
	}
	for _, platform := range []string{"eos", "nxos"} {
		t.Run(platform, func(t *testing.T) {
			r := newRig(t, platform)
			d := r.drivers[0]
			for n, all := 1, 1; n <= all; n++ {
				for _, after := range []bool{false, true} {
					for _, to := range []fleet.Carries{{Untagged: 101, Tagged: []fleet.VLAN{110}}, r.record.InQuarantine()} {
						v, err := d.Observe(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						p, err := d.Plan(v, map[string]fleet.Carries{r.record.Managed[0]: to})
						if err != nil {
							t.Fatal(err)
						}
						r.LoseAt(n, after)
						if err := d.Apply(t.Context(), p); err != nil {
							t.Fatalf("lost at %d (after it was done: %v): apply: %v", n, after, err)
						}
						if _, err := d.Verify(t.Context(), p); err != nil {
							t.Fatalf("lost at %d (after it was done: %v): verify: %v", n, after, err)
						}
						all = max(all, r.Commands())
						r.LoseAt(0, false)
					}
				}
			}
		})
	}
}
