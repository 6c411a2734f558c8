package nvue

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an object", `{"a": {"b": [1, null, "x", true]}}`, ""},
		{"nothing", ``, "no JSON"},
		{"a list", `[]`, "no JSON object"},
		{"cut off", `{"a": {"b": 1`, "a: no"},
		{"something behind", `{} {}`, "follows behind the end"},
		{"a key twice", `{"a": {"b": 1, "b": 2}}`, `a: the key "b" comes twice`},
		{"too deep", strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70), "nested deeper than 64"},
		{"no JSON", `{"a": x}`, "a: no JSON at byte"},
	} {
		_, err := decode([]byte(c.text))
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func object1(t testing.TB, text string) object {
	t.Helper()
	o, err := decode([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return o
}

// TestAllow: a difference may touch what the plan's ports carry, and nothing else.
func TestAllow(t *testing.T) {
	a := allowed{bridge: "br_default", ports: []string{"swp1"}, vlans: []fleet.VLAN{101}}
	port := func(s string) string { return `{"interface": {"swp1": ` + s + `}}` }
	for _, c := range []struct {
		name, diff string
		back       bool
		want       string
	}{
		{"nothing", `{}`, false, ""},
		{"an access port", port(`{"bridge": {"domain": {"br_default": {"access": 101, "untagged": null, "vlan": null}}}, "link": {"state": {"up": {}, "down": null}}}`), false, ""},
		{"a trunk", port(`{"type": "swp", "link": {"state": "up"}, "bridge": {"domain": {"br_default": {"access": null, "untagged": "none", "vlan": {"101": {}, "102": null}}}}}`), false, ""},
		{"a VLAN of the bridge", `{"bridge": {"domain": {"br_default": {"vlan": {"101": {}}}}}}`, false, ""},
		{"another VLAN of the bridge", `{"bridge": {"domain": {"br_default": {"vlan": {"102": {}}}}}}`, false, `"bridge.domain.br_default.vlan.102"`},
		{"a VLAN with more in it", `{"bridge": {"domain": {"br_default": {"vlan": {"101": {"vni": {"5": {}}}}}}}}`, false, `vlan.101.vni.5"`},
		{"a VLAN less", `{"bridge": {"domain": {"br_default": {"vlan": {"101": null}}}}}`, false, `vlan.101"`},
		{"the bridge", `{"bridge": null}`, false, `"bridge"`},
		{"another bridge", `{"bridge": {"domain": {"br2": {"vlan": {"101": {}}}}}}`, false, `br2.vlan.101"`},
		{"another port", `{"interface": {"swp2": {"link": {"state": {"up": {}}}}}}`, false, `"interface.swp2.link.state.up"`},
		{"an address", port(`{"ip": {"address": {"10.0.0.1/24": {}}}}`), false, `"interface.swp1.ip.address.10.0.0.1/24"`},
		{"the speed", port(`{"link": {"speed": "10G"}}`), false, `link.speed"`},
		{"spanning tree", port(`{"bridge": {"domain": {"br_default": {"stp": {"bpdu-guard": "on"}}}}}`), false, `stp.bpdu-guard"`},
		{"the port", port(`null`), false, `"interface.swp1"`},
		{"the link", port(`{"link": null}`), false, `"interface.swp1.link"`},
		{"a hostname", `{"system": {"hostname": "x"}}`, false, `"system.hostname"`},
		{"four things", `{"a": 1, "b": 1, "c": 1, "d": 1}`, false, `"a", "b", "c" and others`},
		{"back: what was not there", port(`null`), true, ""},
		{"back: no interface was there", `{"interface": null}`, true, ""},
		{"back: no link was there", port(`{"link": null, "bridge": {"domain": {"br_default": {"access": 666}}}}`), true, ""},
		{"back: another port", `{"interface": {"swp2": null}}`, true, `"interface.swp2"`},
		{"back: a VLAN that was not there", `{"bridge": {"domain": {"br_default": {"vlan": {"101": null}}}}}`, true, ""},
		{"back: a hostname", `{"system": {"hostname": "x"}}`, true, `"system.hostname"`},
	} {
		err := a.check(object1(t, c.diff), c.back)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestRevisionOf(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Revision
		fault      string
	}{
		{"as it is told", `{"state": "invalid", "transition": {"issue": {"0": {"message": "no\n router-id"}}, "progress": "Invalid config"}}`, Revision{"6", "invalid", "Invalid config; no router-id"}, ""},
		{"under its id once more", `{"6": {"state": "ays_fail"}}`, Revision{"6", "ays_fail", ""}, ""},
		{"no state", `{"transition": {}}`, Revision{ID: "6"}, "no state"},
		{"a state that is a number", `{"state": 5}`, Revision{ID: "6"}, "state: is no text"},
		{"issues that are a list", `{"state": "apply", "transition": {"issue": []}}`, Revision{ID: "6", State: "apply"}, "issue: is no object"},
	} {
		got, err := revisionOf("6", object1(t, c.text))
		if d := cmp.Diff(c.want, got); d != "" || (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v\n%s", c.name, err, d)
		}
	}
}

// seeds are answers of switches.
func seeds(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no answers to begin with: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzConfig: whatever a configuration is, a port of it either is in doubt or carries what could be asked for, or what is none of ours, but never VLAN 1; and
// what would be patched to move it gives it exactly that.
func FuzzConfig(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decode(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if o2, err := decode(again); err != nil || !cmp.Equal(o, o2) {
			t.Fatalf("it does not survive: %v", err)
		}
		c, err := readConfig(o, "br_default")
		if err != nil {
			return
		}
		for name := range c.interfaces {
			s := c.port(name)
			if s.doubt == "" && len(s.carries.Validate("c")) > 0 {
				t.Fatalf("port %q carries %s without a doubt", name, s.carries)
			}
		}
		change := c.change([]fleet.WireChange{{Port: "swp1", To: fleet.Carries{Untagged: 101, Tagged: []fleet.VLAN{102}}}})
		a := allowed{bridge: "br_default", ports: []string{"swp1"}, vlans: []fleet.VLAN{101, 102}}
		if err := a.check(change, false); err != nil {
			t.Fatalf("a change of ours is not allowed: %v", err)
		}
	})
}

// FuzzHardware: whatever a switch tells of its hardware, a port is in doubt or carries what its configuration says.
func FuzzHardware(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decode(b)
		if err != nil {
			return
		}
		vlans, err := sub(o, "domain", "br_default", "port")
		if err != nil {
			return
		}
		p := fleet.PortView{Port: "swp1", Carries: fleet.Carries{Untagged: 101}}
		h := hardware{links: object{"swp1": object{"link": object{"state": "up"}}}, vlans: vlans}
		h.compare(&p)
		untagged, tagged, err := h.carried("swp1")
		if p.Doubt == "" && (err != nil || untagged != 101 || len(tagged) > 0) {
			t.Fatalf("untagged %d tagged %v (%v) and no doubt", untagged, tagged, err)
		}
		h.links, p.Doubt = o, ""
		h.compare(&p)
		for id := range o {
			if one, err := sub(o, id); err == nil {
				if r, err := revisionOf(id, one); err == nil && r.State == "" {
					t.Fatal("a revision without a state")
				}
			}
		}
	})
}
