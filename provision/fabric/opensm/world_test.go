package opensm_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric"
	"github.com/metalctl/metalctl/provision/fabric/opensm"
)

// faults are those of the suite, as a port plays them.
func tenant(n int) fleet.Carries {
	return fleet.InPartitions(fleet.Membership{PKey: fleet.PKey(0x100 + n), Full: true})
}

// rig is a fabric with two drivers of it.
type rig struct {
	net     wires.Net
	path    string
	faulty  *wires.Faulty
	drivers [2]*opensm.Driver
}

func (r *rig) world(foreign func(*testing.T, string, fleet.Carries)) *contract.WireWorld {
	var ports []string
	for _, g := range r.net.Nodes() {
		ports = append(ports, string(g))
	}
	one := func(m ...fleet.Membership) fleet.Carries { return fleet.Carries{Partitions: m} }
	limited := fleet.Membership{PKey: fleet.DefaultPKey}
	return &contract.WireWorld{Driver: r.drivers[0], Other: r.drivers[1], Ports: ports, Stranger: string(r.net.GUID(0, 1)), Quarantine: fleet.InPartitions(), Tenant: tenant,
		NotOurs: map[string]fleet.Carries{
			"a key out of the pool":            fleet.InPartitions(fleet.Membership{PKey: 0x300, Full: true}),
			"no default partition":             one(fleet.Membership{PKey: 0x101, Full: true}),
			"full in the default partition":    one(fleet.Membership{PKey: fleet.DefaultPKey, Full: true}),
			"a key twice":                      one(fleet.Membership{PKey: 0x101}, fleet.Membership{PKey: 0x101, Full: true}, limited),
			"keys out of order":                one(limited, fleet.Membership{PKey: 0x101}),
			"a key with the top bit":           one(fleet.Membership{PKey: 0x8101}, limited),
			"an index that is none of its own": {Partitions: []fleet.Membership{limited}, Index0: 0x101},
			"a VLAN":                           {Untagged: 20},
		},
		Foreign: foreign,
		Fault:   r.faulty.Begin}
}

// newRig makes two drivers that share a port, and takes the fabric over.
func newRig(t *testing.T, net wires.Net, dir string, port fabric.Port, daemon opensm.Daemon, f fleet.Fabric) *rig {
	t.Helper()
	r := &rig{net: net, path: filepath.Join(dir, "partitions.conf"), faulty: wires.NewFaulty(port)}
	station := fabric.NewStation(r.faulty, fabric.Options{Patience: 2 * time.Second})
	for i := range r.drivers {
		d, err := opensm.New(opensm.Options{Fabric: f, Path: r.path, Sweeper: station, Daemon: daemon, Settle: 60 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		r.drivers[i] = d
	}
	return r
}

func (r *rig) adopt(t *testing.T, ctx context.Context) {
	t.Helper()
	v, err := r.drivers[0].Adopt(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s := v.Stops(); s != nil {
		t.Fatalf("after it was taken over: %+v", s)
	}
}

func emulated(t *testing.T) (*rig, *wires.Emulated) {
	t.Helper()
	dir := t.TempDir()
	net := wires.Small()
	e := wires.NewEmulated(net, filepath.Join(dir, "partitions.conf"))
	r := newRig(t, net, dir, e, e, net.Fabric("ib0"))
	r.adopt(t, t.Context())
	return r, e
}

func TestContractEmulated(t *testing.T) {
	contract.Wires(t, func(t *testing.T) *contract.WireWorld {
		r, e := emulated(t)
		return r.world(func(t *testing.T, port string, c fleet.Carries) { e.SetTable(fleet.GUID(port), c) })
	})
}

// severed is what a driver's process speaks to, until it is cut off.
type severed struct {
	cut     *contract.Cut
	sweeper opensm.Sweeper
	daemon  opensm.Daemon
}

func (x severed) Sweep(ctx context.Context) (s *fabric.Sweep, err error) {
	err = x.cut.Ask(func() error {
		s, err = x.sweeper.Sweep(ctx)
		return err
	})
	return s, err
}

func (x severed) SetTable(ctx context.Context, e fabric.End, table []uint16) error {
	return x.cut.Say(func() error { return x.sweeper.SetTable(ctx, e, table) })
}

func (x severed) Find() (p opensm.Process, err error) {
	err = x.cut.Ask(func() error {
		p, err = x.daemon.Find()
		return err
	})
	return p, err
}

func (x severed) Reload(p opensm.Process) error {
	return x.cut.Say(func() error { return x.daemon.Reload(p) })
}

func TestCuts(t *testing.T) {
	contract.WireCuts(t, 1, func(t *testing.T) (*contract.WireWorld, *contract.Cut) {
		r, e := emulated(t)
		x := severed{&contract.Cut{}, fabric.NewStation(e, fabric.Options{Patience: 2 * time.Second}), e}
		d, err := opensm.New(opensm.Options{Fabric: r.net.Fabric("ib0"), Path: r.path, Sweeper: x, Daemon: x, Settle: 60 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		r.drivers[0] = d
		return r.world(nil), x.cut
	})
}

// real is a fabric in ibsim with a real OpenSM, not taken over yet.
type real struct {
	*rig
	sim *wires.Sim
	sm  *wires.OpenSM
}

func startReal(t *testing.T, net wires.Net, partitions string) *real {
	t.Helper()
	if err := wires.Have(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	dir := t.TempDir()
	sim, err := wires.StartSim(t.Context(), net, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Errorf("end ibsim: %v", err)
		}
	})
	path := filepath.Join(dir, "partitions.conf")
	if partitions != "" {
		if err := os.WriteFile(path, []byte(partitions), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sm, err := sim.StartSM(ctx, 0, 0, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sm.Close(); err != nil {
			t.Errorf("end OpenSM: %v", err)
		}
	})
	port, err := sim.Dial(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := port.Close(); err != nil {
			t.Errorf("close port: %v", err)
		}
	})
	r := newRig(t, net, dir, port, opensm.Local{Port: net.SM()}, net.Fabric("ib0"))
	return &real{rig: r, sim: sim, sm: sm}
}

// tables are the ports' tables as the devices show them.
func tables(t *testing.T, d *opensm.Driver) map[string]string {
	t.Helper()
	v, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range v.Ports {
		out[p.Port] = p.Carries.String()
	}
	return out
}

func findings(v fleet.WireView) []string {
	codes := map[string]bool{}
	for _, f := range v.Findings {
		codes[f.Code] = true
	}
	return slices.Sorted(maps.Keys(codes))
}

func small() wires.Net { return wires.Small() }
