package nvue_test

import (
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet/nvue"
)

func (r *rig) observe(t *testing.T) fleet.WireView {
	t.Helper()
	v, err := r.drivers[0].Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rig) plan(t *testing.T, port string, c fleet.Carries) fleet.WirePlan {
	t.Helper()
	p, err := r.drivers[0].Plan(r.observe(t), map[string]fleet.Carries{port: c})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (r *rig) move(t *testing.T, port string, c fleet.Carries) fleet.WirePlan {
	t.Helper()
	p := r.plan(t, port, c)
	if err := r.drivers[0].Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := r.drivers[0].Verify(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// shows fails unless a port carries that, without a doubt.
func (r *rig) shows(t *testing.T, port string, c fleet.Carries) {
	t.Helper()
	if p := r.observe(t).Port(port); p.Doubt != "" || !p.Carries.Equal(c) {
		t.Errorf("port %s carries %s (%s), want %s", port, p.Carries, p.Doubt, c)
	}
}

// pending are the revisions that nobody needs any more and that were not discarded.
func (r *rig) pending() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(r.box.Revisions())), func(id string) bool { return r.box.Revisions()[id] != "pending" })
}

func kind(t *testing.T, err error, want fleet.Kind, words string) {
	t.Helper()
	if err == nil || fleet.KindOf(err) != want || !strings.Contains(err.Error(), words) {
		t.Errorf("%v (%s), want %s with %q", err, fleet.KindOf(err), want, words)
	}
}

func TestTrunks(t *testing.T) {
	r := newRig(t, wires.CumulusOptions{})
	for _, c := range []fleet.Carries{trunk(101, 102, 103), trunk(0, 103, 104), tenant(1), trunk(104, 101), {Down: true, Untagged: 105}, leaf().InQuarantine()} {
		p := r.move(t, "swp1", c)
		r.shows(t, "swp1", c)
		if !strings.Contains(p.Write, "nv set interface swp1 bridge domain br_default") || p.Replaces == p.Write {
			t.Errorf("the plan writes %q instead of %q", p.Write, p.Replaces)
		}
	}
	if peer := r.observe(t).Port("swp1").Peer; peer != "node-of-swp1/eth0" {
		t.Errorf("the cable ends at %q", peer)
	}
}

// TestGoesBack: a change that nobody proves is taken back by the switch; one that only takes away is not.
func TestGoesBack(t *testing.T) {
	for name, o := range releases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, o)
			p := r.plan(t, "swp1", tenant(1))
			if err := r.drivers[0].Apply(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if f := r.observe(t).Stops(); f == nil || f.Code != "MC-SWITCH-PENDING" {
				t.Errorf("nothing tells that the change may go back: %+v", f)
			}
			r.box.Expire()
			r.shows(t, "swp1", leaf().InQuarantine())
			_, err := r.drivers[1].Verify(t.Context(), p)
			kind(t, err, fleet.Conflict, "not the plan's any more")
			if err := r.drivers[1].Rollback(t.Context(), p); err != nil {
				t.Error(err)
			}

			r.move(t, "swp1", tenant(2))
			if err := r.drivers[0].Apply(t.Context(), r.plan(t, "swp1", leaf().InQuarantine())); err != nil {
				t.Fatal(err)
			}
			r.box.Expire()
			r.shows(t, "swp1", leaf().InQuarantine())
		})
	}
}

func TestRollbackOfWhatWasKept(t *testing.T) {
	r := newRig(t, wires.CumulusOptions{Forgets: true})
	p := r.move(t, "swp1", tenant(1))
	if err := r.drivers[1].Rollback(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r.shows(t, "swp1", leaf().InQuarantine())
	r.box.Restart()
	r.shows(t, "swp1", leaf().InQuarantine())
}

func TestApplyThatFails(t *testing.T) {
	for _, state := range []string{"ays_fail", "invalid", "apply_fail", "ignore_fail", "of_a_release_to_come"} {
		t.Run(state, func(t *testing.T) {
			r := newRig(t, wires.CumulusOptions{})
			p := r.plan(t, "swp1", tenant(1))
			r.box.FailApply(state)
			err := r.drivers[0].Apply(t.Context(), p)
			kind(t, err, fleet.Broken, state)
			if fleet.CodeOf(err) != "MC-SWITCH-APPLY" {
				t.Errorf("its code is %s", fleet.CodeOf(err))
			}
			if p := r.observe(t).Port("swp1"); !p.Carries.Equal(leaf().InQuarantine()) {
				t.Errorf("the port carries %s", p.Carries)
			}
		})
	}
	t.Run("a reserved VLAN", func(t *testing.T) {
		r := newRig(t, wires.CumulusOptions{})
		s := leaf()
		s.First, s.Last = 3700, 3800
		r.drivers[0] = r.driver(t, s)
		kind(t, r.drivers[0].Apply(t.Context(), r.plan(t, "swp1", fleet.Carries{Untagged: 3750})), fleet.Broken, "3750 is reserved")
		r.shows(t, "swp1", leaf().InQuarantine())
	})
}

// TestSecondWriter: somebody else applies something at the worst moments. Theirs stays, and of ours nothing does.
func TestSecondWriter(t *testing.T) {
	for name, c := range map[string]struct {
		request string
		theirs  func(*rig)
		port    string
		want    fleet.Carries
	}{
		"after the revision was made":           {"POST /nvue_v1/revision", func(r *rig) { r.box.Set("swp2", tenant(5)) }, "swp2", tenant(5)},
		"while the revision is written":         {"PATCH /nvue_v1/", func(r *rig) { r.box.Set("swp2", tenant(5)) }, "swp2", tenant(5)},
		"of what is not ours":                   {"PATCH /nvue_v1/", func(r *rig) { r.box.Set("swp49", fleet.Carries{Untagged: 10}) }, "swp1", leaf().InQuarantine()},
		"of the same port, after all was clear": {"PATCH /nvue_v1/revision/*", func(r *rig) { r.box.Set("swp1", tenant(6)) }, "swp1", tenant(6)},
		"of another one, after all was clear":   {"PATCH /nvue_v1/revision/*", func(r *rig) { r.box.Set("swp2", tenant(6)) }, "swp2", tenant(6)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, wires.CumulusOptions{})
			p := r.plan(t, "swp1", tenant(1))
			r.once(c.request, func() { c.theirs(r) })
			kind(t, r.drivers[0].Apply(t.Context(), p), fleet.Conflict, "")
			r.shows(t, c.port, c.want)
			if c.port != "swp1" {
				r.shows(t, "swp1", leaf().InQuarantine())
			}
			if left := r.pending(); len(left) > 0 {
				t.Errorf("revisions were left behind: %v", left)
			}
		})
	}
}

// TestOthersWork: what others did before, and what is none of ours, is nobody's conflict, and stays.
func TestOthersWork(t *testing.T) {
	r := newRig(t, wires.CumulusOptions{})
	p := r.plan(t, "swp1", tenant(1))
	r.box.Write(map[string]any{"system": map[string]any{"hostname": "renamed"}, "interface": map[string]any{"swp1": map[string]any{"description": "rack 4"}}})
	if err := r.drivers[0].Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := r.drivers[0].Verify(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	saved := r.box.Saved("swp1").(map[string]any)
	if saved["description"] != "rack 4" {
		t.Errorf("the port was left as %v", saved)
	}
}

func TestRestart(t *testing.T) {
	r := newRig(t, wires.CumulusOptions{Forgets: true})
	r.move(t, "swp1", tenant(1))
	r.box.Restart()
	r.shows(t, "swp1", tenant(1))

	r.box.Set("swp1", tenant(2)) // and is not saved
	if f := r.observe(t).Stops(); f == nil || f.Code != "MC-SWITCH-UNSAVED" || !strings.Contains(f.Text, "swp1") {
		t.Fatalf("a restart would forget it, and nothing says so: %+v", f)
	}
	r.move(t, "swp1", tenant(2))
	if f := r.observe(t).Stops(); f != nil {
		t.Errorf("a finding stays: %+v", f)
	}
	r.box.Set("swp1", tenant(3))
	r.box.Restart()
	r.shows(t, "swp1", tenant(2))
}

// TestDoubts: what a port has beside VLANs and a link is said in words, and is neither taken over nor moved.
func TestDoubts(t *testing.T) {
	type o = map[string]any
	port := func(x o) o { return o{"interface": o{"swp1": x}} }
	domain := func(x o) o { return port(o{"bridge": o{"domain": o{"br_default": x}}}) }
	for name, c := range map[string]struct {
		change o
		doubt  string
		// heals: quarantine takes away what is in doubt.
		heals bool
	}{
		"an address":               {port(o{"ip": o{"address": o{"10.1.1.1/24": o{}}}}), "it has ip", false},
		"a member of a bond":       {o{"interface": o{"bond1": o{"type": "bond", "bond": o{"member": o{"swp1": o{}}}}}}, "a member of bond1", false},
		"an interface of one VLAN": {o{"interface": o{"swp1.7": o{"type": "sub", "base-interface": "swp1", "vlan": 7}}}, "it carries swp1.7", false},
		"a second bridge":          {port(o{"bridge": o{"domain": o{"br2": o{"access": 101.}}}}), "a port of br2, br_default", false},
		"a key of the bridge":      {domain(o{"dot1x": "on"}), "bridge.domain.br_default.dot1x", false},
		"VLAN 1":                   {domain(o{"access": 1.}), "VLAN 1", true},
		"no VLAN":                  {domain(o{"access": nil}), "a trunk of all that the bridge has", true},
		"a native VLAN that is 1":  {domain(o{"access": nil, "vlan": o{"101": o{}}}), "VLAN 1", true},
		"access and trunk":         {domain(o{"vlan": o{"101": o{}}}), "an access port and a trunk", true},
		"no number":                {domain(o{"access": "auto"}), "auto is no VLAN", true},
		"a link of a third state":  {port(o{"link": o{"state": "maintenance"}}), "neither up nor down", true},
		"VXLAN":                    {o{"bridge": o{"domain": o{"br_default": o{"vlan": o{"666": o{"vni": o{"666": o{}}}}}}}}, "VLAN 666 goes on to other switches by VXLAN", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, wires.CumulusOptions{})
			r.box.Write(c.change)
			if p := r.observe(t).Port("swp1"); !strings.Contains(p.Doubt, c.doubt) {
				t.Fatalf("port %+v, want in doubt for %q", p, c.doubt)
			}
			_, err := r.drivers[0].Adopt(t.Context())
			kind(t, err, fleet.Refused, c.doubt)
			_, err = r.drivers[0].Plan(r.observe(t), map[string]fleet.Carries{"swp1": tenant(1)})
			kind(t, err, fleet.Refused, c.doubt)

			quarantine := r.plan(t, "swp1", leaf().InQuarantine())
			if !quarantine.Takes {
				t.Error("quarantine does not count as taking away")
			}
			err = r.drivers[0].Apply(t.Context(), quarantine)
			if c.heals {
				if err == nil {
					_, err = r.drivers[0].Verify(t.Context(), quarantine)
				}
				if err != nil {
					t.Fatal(err)
				}
				r.shows(t, "swp1", leaf().InQuarantine())
				return
			}
			kind(t, err, fleet.Refused, c.doubt)
			if left := r.pending(); len(left) > 0 {
				t.Errorf("revisions were left behind: %v", left)
			}
		})
	}
}

// TestPlansOfOthers: a plan is obeyed for what it says and not for who made it.
func TestPlansOfOthers(t *testing.T) {
	r := newRig(t, wires.CumulusOptions{})
	good := r.plan(t, "swp1", tenant(1))
	before := r.box.Calls()
	for name, change := range map[string]func(*fleet.WirePlan){
		"an uplink":      func(p *fleet.WirePlan) { p.Changes[0].Port = "swp49" },
		"VLAN 1":         func(p *fleet.WirePlan) { p.Changes[0].To = fleet.Carries{Untagged: 1} },
		"another switch": func(p *fleet.WirePlan) { p.Device = "leaf-2" },
	} {
		p := good
		p.Changes = slices.Clone(good.Changes)
		change(&p)
		if err := r.drivers[0].Apply(t.Context(), p); fleet.KindOf(err) != fleet.Refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d := cmp.Diff(before, r.box.Calls()); d != "" {
		t.Errorf("something was written:\n%s", d)
	}
}

// TestTrust: a switch that is not the one that is meant is told nothing.
func TestTrust(t *testing.T) {
	asked := 0
	stranger := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	defer stranger.Close()
	r := newRig(t, wires.CumulusOptions{})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.srv.Certificate().Raw})
	pin := fleet.PinOf(r.srv.Certificate())
	other := "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for name, c := range map[string]struct {
		access nvue.Access
		kind   fleet.Kind
		words  string
	}{
		"another key":      {nvue.Access{Address: stranger.URL, Pin: other}, fleet.Denied, "was told nothing"},
		"another CA":       {nvue.Access{Address: strings.Replace(r.srv.URL, "127.0.0.1", "localhost", 1), CAPEM: ca}, fleet.Denied, "was told nothing"},
		"nothing to trust": {nvue.Access{Address: r.srv.URL}, fleet.Invalid, "pin"},
		"a bad pin":        {nvue.Access{Address: r.srv.URL, Pin: "sha256/x"}, fleet.Invalid, "44 characters"},
		"a bad CA":         {nvue.Access{Address: r.srv.URL, CAPEM: []byte("x")}, fleet.Invalid, "PEM"},
		"no https":         {nvue.Access{Address: "http://10.0.0.2", Pin: pin}, fleet.Invalid, "https"},
		"a wrong password": {nvue.Access{Address: r.srv.URL, Pin: pin, Password: fleet.NewSecret("wrong")}, fleet.Denied, "refuses user metalctl"},
		"nobody":           {nvue.Access{Address: "https://127.0.0.1:1", Pin: pin}, fleet.Unavailable, "does not answer"},
	} {
		c.access.User = "metalctl"
		if c.access.Password.IsZero() {
			c.access.Password = fleet.NewSecret("secret")
		}
		d, err := nvue.New(nvue.Options{Switch: leaf(), Access: c.access, Settle: time.Minute})
		if err == nil {
			_, err = d.Observe(t.Context())
		}
		t.Run(name, func(t *testing.T) { kind(t, err, c.kind, c.words) })
	}
	d, err := nvue.New(nvue.Options{Switch: leaf(), Access: nvue.Access{Address: r.srv.URL, User: "metalctl", Password: fleet.NewSecret("secret"), CAPEM: ca}})
	if err == nil {
		_, err = d.Observe(t.Context())
	}
	if err != nil {
		t.Errorf("by its authority: %v", err)
	}
	if asked > 0 {
		t.Errorf("a stranger was asked %d times", asked)
	}
}
