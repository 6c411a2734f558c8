package ufm_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/fabric/ufm"
)

func guids(from, n int) []fleet.GUID {
	var out []fleet.GUID
	for i := range n {
		out = append(out, fleet.GUIDOf(uint64(0x5000000000000100+from+i)))
	}
	return out
}

func tenant(n int) fleet.Carries {
	return fleet.InPartitions(fleet.Membership{PKey: fleet.PKey(0x100 + n), Full: true})
}

// rig is an emulated UFM with two drivers of it. Its host 0 has the subnet manager, host 5 is nobody's.
type rig struct {
	ufm     *wires.UFM
	fabric  fleet.Fabric
	drivers [2]*ufm.Driver
}

func newRig(t *testing.T) *rig { return cutRig(t, &contract.Cut{}) }

// cutRig is one whose first driver can be cut off.
func cutRig(t *testing.T, cut *contract.Cut) *rig {
	t.Helper()
	all := guids(0, 6)
	r := &rig{ufm: wires.NewUFM(all), fabric: fleet.Fabric{Name: "ib0", SMs: all[:1], First: 0x100, Last: 0x1ff, Managed: all[1:5]}}
	servers := []*httptest.Server{httptest.NewServer(cut.HTTP(r.ufm)), httptest.NewServer(r.ufm)}
	lock := filepath.Join(t.TempDir(), "lock")
	for i := range r.drivers {
		t.Cleanup(servers[i].Close)
		d, err := ufm.New(ufm.Options{Fabric: r.fabric, Lock: lock, Settle: time.Minute,
			API: ufm.API{URL: servers[i].URL, User: "admin", Password: fleet.NewSecret("secret"), HTTP: &http.Client{Timeout: 30 * time.Second}, Pause: 10 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		r.drivers[i] = d
	}
	return r
}

func (r *rig) world() *contract.WireWorld {
	var ports []string
	for _, g := range r.fabric.Managed {
		ports = append(ports, string(g))
	}
	limited := fleet.Membership{PKey: fleet.DefaultPKey}
	return &contract.WireWorld{Driver: r.drivers[0], Other: r.drivers[1], Ports: ports, Stranger: string(guids(5, 1)[0]), Quarantine: fleet.InPartitions(), Tenant: tenant,
		NotOurs: map[string]fleet.Carries{
			"a key out of the pool":         fleet.InPartitions(fleet.Membership{PKey: 0x300, Full: true}),
			"no default partition":          {Partitions: []fleet.Membership{{PKey: 0x101, Full: true}}},
			"full in the default partition": {Partitions: []fleet.Membership{{PKey: fleet.DefaultPKey, Full: true}}},
			"a key with the top bit":        {Partitions: []fleet.Membership{{PKey: 0x8101}, limited}},
			"a VLAN":                        {Untagged: 20},
		},
		Foreign: func(_ *testing.T, port string, c fleet.Carries) { r.ufm.Set(fleet.GUID(port), c) },
		Fault:   r.ufm.Begin}
}

func TestContract(t *testing.T) {
	contract.Wires(t, func(t *testing.T) *contract.WireWorld { return newRig(t).world() })
}

func TestContractWithJobs(t *testing.T) {
	contract.Wires(t, func(t *testing.T) *contract.WireWorld {
		r := newRig(t)
		r.ufm.WithJobs()
		return r.world()
	})
}

func TestCuts(t *testing.T) {
	for _, jobs := range []bool{false, true} {
		t.Run(fmt.Sprintf("jobs %t", jobs), func(t *testing.T) {
			contract.WireCuts(t, 1, func(t *testing.T) (*contract.WireWorld, *contract.Cut) {
				cut := &contract.Cut{}
				r := cutRig(t, cut)
				if jobs {
					r.ufm.WithJobs()
				}
				return r.world(), cut
			})
		})
	}
}

func codes(v fleet.WireView) []string {
	var out []string
	for _, f := range v.Findings {
		out = append(out, f.Code)
	}
	return out
}

func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*rig)
		want []string
	}{
		{"well", func(*rig) {}, nil},
		{"ports are full members by default", func(r *rig) { r.ufm.Open("full") }, []string{"MC-FABRIC-OPEN"}},
		{"a version that does not say", func(r *rig) { r.ufm.Open("") }, []string{"MC-FABRIC-OPEN"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			c.do(r)
			v, err := r.drivers[0].Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := codes(v); !slices.Equal(got, c.want) {
				t.Errorf("findings %v, want %v", got, c.want)
			}
			_, err = r.drivers[0].Plan(v, map[string]fleet.Carries{string(r.fabric.Managed[0]): tenant(1)})
			if stopped := fleet.KindOf(err) == fleet.Conflict && err != nil; stopped != (c.want != nil) {
				t.Errorf("plan: %v", err)
			}
		})
	}
}

// TestTakesUnderAFinding: what only takes away is done whatever is wrong with others.
func TestTakesUnderAFinding(t *testing.T) {
	r := newRig(t)
	port := r.fabric.Managed[0]
	r.ufm.Set(port, tenant(1))
	r.ufm.Open("")
	d := r.drivers[0]
	v, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Plan(v, map[string]fleet.Carries{string(port): fleet.InPartitions()})
	if err != nil || !p.Takes {
		t.Fatalf("%v, takes %t", err, p.Takes)
	}
	if err := d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	// UFM does not say what the port has in the default partition, so that it is not proven to be alone.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := d.Verify(ctx, p); fleet.KindOf(err) != fleet.Timeout {
		t.Errorf("verify: %v", err)
	}
	if v, err = d.Observe(t.Context()); err != nil || slices.ContainsFunc(v.Port(string(port)).Carries.Partitions, func(m fleet.Membership) bool { return m.PKey == 0x101 }) {
		t.Errorf("the tenant's partition was not taken away: %+v, %v", v.Port(string(port)), err)
	}
}

func TestAdopt(t *testing.T) {
	r := newRig(t)
	r.ufm.Set(r.fabric.Managed[0], tenant(1))
	if _, err := r.drivers[0].Adopt(t.Context()); err != nil {
		t.Errorf("a port in a tenant's partition: %v", err)
	}
	r.ufm.Set(r.fabric.Managed[1], fleet.InPartitions(fleet.Membership{PKey: 0x20, Full: true}))
	if _, err := r.drivers[0].Adopt(t.Context()); fleet.KindOf(err) != fleet.Refused {
		t.Errorf("a port in another owner's partition: %v", err)
	}
}

// TestLoginPage: a wrong password brings a page for people with success, which is no list of partitions.
func TestLoginPage(t *testing.T) {
	r := newRig(t)
	s := httptest.NewServer(r.ufm)
	defer s.Close()
	d, err := ufm.New(ufm.Options{Fabric: r.fabric, API: ufm.API{URL: s.URL, User: "admin", Password: fleet.NewSecret("wrong"), HTTP: http.DefaultClient}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Observe(t.Context()); fleet.CodeOf(err) != "MC-UFM-DENIED" {
		t.Errorf("%v", err)
	}
}

// TestStranger: who has another key than the trusted one is told nothing, and does not count as silent.
func TestStranger(t *testing.T) {
	asked := 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	trust, err := fleet.TrustBy("sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := ufm.New(ufm.Options{Fabric: newRig(t).fabric, API: ufm.API{URL: s.URL, User: "admin", Password: fleet.NewSecret("secret"),
		HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Observe(t.Context()); fleet.CodeOf(err) != "MC-UFM-DENIED" || asked > 0 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
