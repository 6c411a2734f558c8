package nvue_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet/nvue"
)

func leaf() fleet.Switch {
	return fleet.Switch{Name: "leaf-1", Managed: []string{"swp1", "swp2", "swp3", "swp4"}, Uplinks: []string{"swp49"}, First: 100, Last: 199, Quarantine: 666}
}

func tenant(n int) fleet.Carries { return fleet.Carries{Untagged: fleet.VLAN(100 + n)} }

func trunk(untagged fleet.VLAN, tagged ...fleet.VLAN) fleet.Carries {
	return fleet.Carries{Untagged: untagged, Tagged: tagged}
}

// rig is a switch with two drivers of it.
type rig struct {
	box     *wires.Cumulus
	srv     *httptest.Server
	drivers [2]*nvue.Driver

	mu sync.Mutex // guards before
	// before is called before the switch hears a request, by its method and path.
	before func(request string)
}

func (r *rig) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	if r.before != nil {
		r.before(q.Method + " " + q.URL.EscapedPath())
	}
	r.mu.Unlock()
	r.box.ServeHTTP(w, q)
}

// once has act done before the first request that is meant.
func (r *rig) once(request string, act func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = func(got string) {
		if ok, err := path.Match(request, got); err == nil && ok {
			r.before = nil
			act()
		}
	}
}

// releases are what the suite is run on.
var releases = map[string]wires.CumulusOptions{
	"5.11":                          {},
	"5.2, with slashes in its ids":  {Slashes: true, Forgets: true},
	"one that asks with ays":        {AsksAys: true},
	"5.8, which saves when told to": {Forgets: true},
}

func newRig(t *testing.T, o wires.CumulusOptions) *rig {
	t.Helper()
	o.Ports, o.Quarantine, o.User, o.Password = []string{"swp1", "swp2", "swp3", "swp4"}, 666, "metalctl", "secret"
	r := &rig{box: wires.NewCumulus(o)}
	r.srv = httptest.NewUnstartedServer(r)
	r.srv.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are meant to fail
	r.srv.StartTLS()
	t.Cleanup(r.srv.Close)
	for i := range r.drivers {
		r.drivers[i] = r.driver(t, leaf())
	}
	return r
}

func (r *rig) driver(t *testing.T, s fleet.Switch) *nvue.Driver {
	t.Helper()
	return r.driverAt(t, s, r.srv.URL)
}

func (r *rig) driverAt(t *testing.T, s fleet.Switch, address string) *nvue.Driver {
	t.Helper()
	d, err := nvue.New(nvue.Options{Switch: s, Settle: 60 * time.Second, Confirm: 10 * time.Minute,
		Access: nvue.Access{Address: address, User: "metalctl", Password: fleet.NewSecret("secret"), Pin: fleet.PinOf(r.srv.Certificate())}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (r *rig) world() *contract.WireWorld {
	return &contract.WireWorld{Driver: r.drivers[0], Other: r.drivers[1], Ports: leaf().Managed, Stranger: "swp49", Quarantine: leaf().InQuarantine(), Tenant: tenant,
		NotOurs: map[string]fleet.Carries{
			"VLAN 1":                       {Untagged: 1},
			"VLAN 1 in a trunk":            trunk(101, 1),
			"a VLAN out of the range":      {Untagged: 10},
			"one of those in a trunk":      trunk(101, 200),
			"the quarantine in a trunk":    trunk(101, 666),
			"the quarantine, up":           {Untagged: 666},
			"the quarantine with another":  {Down: true, Untagged: 666, Tagged: []fleet.VLAN{101}},
			"nothing":                      {},
			"a port kept from its fellows": {Untagged: 101, Protected: true},
			"a partition":                  fleet.InPartitions(),
			"a VLAN twice":                 trunk(101, 101),
		},
		Elapse:  r.box.Expire,
		Foreign: func(_ *testing.T, port string, c fleet.Carries) { r.box.Set(port, c) },
		Fault:   r.box.Begin}
}

func TestContract(t *testing.T) {
	for name, o := range releases {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && (o.Slashes || o.Forgets || o.AsksAys) {
				t.Skip("long: a second release")
			}
			t.Parallel()
			contract.Wires(t, func(t *testing.T) *contract.WireWorld { return newRig(t, o).world() })
		})
	}
}

func TestCuts(t *testing.T) {
	if testing.Short() {
		t.Skip("long: a change for each word that can be lost")
	}
	contract.WireCuts(t, contract.Sometimes(1, 5), func(t *testing.T) (*contract.WireWorld, *contract.Cut) {
		cut := &contract.Cut{}
		r := newRig(t, wires.CumulusOptions{})
		s := httptest.NewUnstartedServer(cut.HTTP(r))
		s.Config.ErrorLog = r.srv.Config.ErrorLog
		s.StartTLS()
		t.Cleanup(s.Close)
		r.drivers[0] = r.driverAt(t, leaf(), s.URL)
		return r.world(), cut
	})
}
