package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/wires"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet/cli"
)

var tenant = fleet.Carries{Untagged: 101}

func observed(t *testing.T, r *rig) fleet.WireView {
	t.Helper()
	v, err := r.drivers[0].Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func applied(t *testing.T, r *rig, port string, c fleet.Carries) fleet.WirePlan {
	t.Helper()
	p, err := r.drivers[0].Plan(observed(t, r), map[string]fleet.Carries{port: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.drivers[0].Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDoubts gives a port what Carries cannot say, and wants it said in words.
func TestDoubts(t *testing.T) {
	lines := map[string]string{
		"a member of a link group":   "channel-group 7 mode active",
		"another mode":               "switchport mode dot1q-tunnel",
		"a routed port":              "no switchport",
		"a native VLAN with a tag":   "switchport trunk native vlan tag",
		"a list that is none":        "switchport trunk allowed vlan 5-",
		"a line of another kind":     "switchport trunk group STORAGE",
		"a word behind a known line": "shutdown force",
	}
	for _, platform := range []string{"eos", "nxos"} {
		r := newRig(t, platform)
		port := r.record.Managed[0]
		r.SetPort(port, tenant)
		for what, line := range lines {
			r.SetLines(port, "description node 7", line)
			if p := observed(t, r).Port(port); !strings.Contains(p.Doubt, strings.Fields(line)[0]) {
				t.Errorf("%s: %s (%q) is %+v", platform, what, line, p)
			}
			if _, err := r.drivers[0].Plan(observed(t, r), map[string]fleet.Carries{port: {Untagged: 102}}); fleet.KindOf(err) != fleet.Refused {
				t.Errorf("%s: a port with %q is moved: %v", platform, line, err)
			}
			if _, err := r.drivers[0].Adopt(t.Context()); fleet.KindOf(err) != fleet.Refused {
				t.Errorf("%s: a switch with %q on a port is taken over: %v", platform, line, err)
			}
		}
		r.SetLines(port, "description interface Ethernet2")
		if p := observed(t, r).Port(port); p.Doubt != "" || !p.Carries.Equal(tenant) {
			t.Errorf("%s: a port with a description is %+v", platform, p)
		}
		if _, err := r.drivers[0].Adopt(t.Context()); err != nil {
			t.Errorf("%s: a switch with nothing strange is not taken over: %v", platform, err)
		}
	}
}

// TestDoubtInQuarantine: a port that has what is not known is switched off, and is not called isolated.
func TestDoubtInQuarantine(t *testing.T) {
	for _, platform := range []string{"eos", "nxos"} {
		r := newRig(t, platform, func(o *cli.Options) { o.Settle = time.Second })
		port := r.record.Managed[0]
		r.SetPort(port, tenant)
		r.SetLines(port, "channel-group 7 mode active")
		p := applied(t, r, port, r.record.InQuarantine())
		if _, err := r.drivers[0].Verify(t.Context(), p); fleet.KindOf(err) != fleet.Timeout {
			t.Errorf("%s: a port with a group is proven: %v", platform, err)
		}
		if v := observed(t, r).Port(port); !v.Carries.Down || v.Doubt == "" {
			t.Errorf("%s: the port is %+v, want it off and in doubt", platform, v)
		}
	}
}

// TestTrunkOfAll: where no list is given, a trunk carries every VLAN.
func TestTrunkOfAll(t *testing.T) {
	for _, platform := range []string{"eos", "nxos"} {
		r := newRig(t, platform)
		r.SetLines(r.record.Managed[0], "switchport mode trunk")
		if p := observed(t, r).Port(r.record.Managed[0]); p.Doubt == "" {
			t.Errorf("%s: %+v", platform, p)
		}
	}
}

// TestKept: what was proven is there after a restart of the switch, and what was not is not.
func TestKept(t *testing.T) {
	for _, platform := range []string{"eos", "nxos"} {
		r := newRig(t, platform)
		a, b := r.record.Managed[0], r.record.Managed[1]
		if _, err := r.drivers[0].Verify(t.Context(), applied(t, r, a, tenant)); err != nil {
			t.Fatal(err)
		}
		open := applied(t, r, b, tenant)
		v := observed(t, r)
		if s := v.Stops(); s == nil || s.Code != "MC-SWITCH-PENDING" {
			t.Errorf("%s: a change that is open stops nothing: %+v", platform, v.Findings)
		}
		if _, err := r.drivers[1].Plan(v, map[string]fleet.Carries{a: r.record.InQuarantine()}); fleet.KindOf(err) != fleet.Conflict {
			t.Errorf("%s: planned beside an open change: %v", platform, err)
		}
		r.Restart()
		v = observed(t, r)
		if !v.Port(a).Carries.Equal(tenant) || !v.Port(b).Carries.Equal(r.record.InQuarantine()) || v.Stops() != nil {
			t.Errorf("%s: after a restart: %+v", platform, v)
		}
		if err := r.drivers[0].Rollback(t.Context(), open); err != nil {
			t.Errorf("%s: roll back what is gone: %v", platform, err)
		}
		if _, err := r.drivers[0].Verify(t.Context(), applied(t, r, a, r.record.InQuarantine())); err != nil {
			t.Fatal(err)
		}
		r.Restart()
		if p := observed(t, r).Port(a); !p.Carries.Equal(r.record.InQuarantine()) {
			t.Errorf("%s: a restart gives a tenant's network back: %+v", platform, p)
		}
	}
}

// TestGoesBackAlone: a commit that nobody confirms is gone when its time is over.
func TestGoesBackAlone(t *testing.T) {
	r := newRig(t, "eos", func(o *cli.Options) { o.Settle = time.Second })
	p := applied(t, r, r.record.Managed[0], tenant)
	r.Elapse(6 * time.Minute)
	if v := observed(t, r); !v.Port(r.record.Managed[0]).Carries.Equal(r.record.InQuarantine()) || v.Stops() != nil {
		t.Errorf("after its time: %+v", v)
	}
	if _, err := r.drivers[0].Verify(t.Context(), p); fleet.KindOf(err) != fleet.Timeout {
		t.Errorf("verified what is gone: %v", err)
	}
	if err := r.drivers[0].Rollback(t.Context(), p); err != nil {
		t.Errorf("roll back what is gone: %v", err)
	}
}

// TestClaimRunsOut: who claimed a switch and died keeps nobody out for long.
func TestClaimRunsOut(t *testing.T) {
	now := time.Date(2026, 11, 22, 19, 0, 0, 0, time.UTC)
	r := newRig(t, "nxos", func(o *cli.Options) { o.Now = func() time.Time { return now } })
	applied(t, r, r.record.Managed[0], tenant)
	if s := observed(t, r).Stops(); s == nil {
		t.Fatal("a claim that holds stops nothing")
	}
	now = now.Add(6 * time.Minute)
	if _, err := r.drivers[1].Verify(t.Context(), applied(t, r, r.record.Managed[1], tenant)); err != nil {
		t.Errorf("after a claim ran out: %v", err)
	}
}

// TestRefusal: whatever a switch answers to a command that changes something is a refusal, and nothing of the change stays.
func TestRefusal(t *testing.T) {
	cases := map[string]struct{ platform, command, words string }{
		"a word that everybody knows":      {"eos", "switchport access vlan 101", "% Invalid input\n"},
		"a word that nobody knows":         {"eos", "switchport access vlan 101", "Port is blessed by the licence server\n"},
		"a warning":                        {"eos", "no shutdown", "! Interface does not exist yet.\n"},
		"a commit":                         {"eos", "commit timer 00:05:00", "% Commit failed: hardware resources\n"},
		"a word that everybody knows, too": {"nxos", "switchport access vlan 101", "ERROR: VLAN 101 is reserved\n"},
		"a word that nobody knows, either": {"nxos", "no shutdown", "Ethernet1/1: transceiver says no\n"},
	}
	for what, c := range cases {
		r := newRig(t, c.platform)
		r.Refuse(c.command, c.words)
		p, err := r.drivers[0].Plan(observed(t, r), map[string]fleet.Carries{r.record.Managed[0]: tenant})
		if err != nil {
			t.Fatal(err)
		}
		err = r.drivers[0].Apply(t.Context(), p)
		if fleet.CodeOf(err) != "MC-SWITCH-COMMAND" || !strings.Contains(err.Error(), strings.TrimSpace(c.words)) {
			t.Errorf("%s: %v", what, err)
		}
		if c.platform == "nxos" {
			if d := observed(t, r).Port(r.record.Managed[0]).Carries.Down; !d {
				t.Errorf("%s: the port is on in the middle of a change", what)
			}
		}
		r.Refuse("", "")
		if err := r.drivers[0].Rollback(t.Context(), p); err != nil {
			t.Errorf("%s: rollback: %v", what, err)
		}
		if v := observed(t, r); v.Mark != p.Expect || v.Stops() != nil {
			t.Errorf("%s: after the rollback: %+v", what, v)
		}
	}
}

// TestSilence: a command that a switch asks back on ends, with its question, and nothing in the message acts on a terminal.
func TestSilence(t *testing.T) {
	r := newRig(t, "eos", func(o *cli.Options) { o.Patience = 2 * time.Second })
	r.Ask("show running-config")
	_, err := r.drivers[0].Observe(t.Context())
	if fleet.CodeOf(err) != "MC-SWITCH-PROMPT" || !strings.Contains(err.Error(), "Really? [y/n]") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v", err)
	}
}

// TestStrangers: another host key gets no password, and a wrong password no second try.
func TestStrangers(t *testing.T) {
	other, err := wires.NewSwitch("eos", ports["eos"], 999)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, "eos", func(o *cli.Options) { o.Host.HostKey = other.HostKey() })
	if _, err := r.drivers[0].Observe(t.Context()); fleet.CodeOf(err) != "MC-SWITCH-HOST-KEY" {
		t.Errorf("another host key: %v", err)
	}
	if n := r.Logins(); n != 0 {
		t.Errorf("a stranger was told the password %d times", n)
	}
	r = newRig(t, "eos", func(o *cli.Options) { o.Host.Password = fleet.NewSecret("wrong") })
	if _, err := r.drivers[0].Observe(t.Context()); fleet.CodeOf(err) != "MC-SWITCH-LOGIN" {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestInjection: no name of a port gets into a command unless it is one word that can be one.
func TestInjection(t *testing.T) {
	bad := []string{"Ethernet1\nno shutdown", "Ethernet1 ; reload", "Ethernet1;reload", "Ethernet1|bash", "Ethernet1\rreload", "$(reload)", "{quarantine}", "Ethernet1-4 range", "-Ethernet1", ""}
	for _, name := range bad {
		r := newRig(t, "eos")
		s := r.record
		s.Managed = []string{name}
		_, err := cli.New(cli.Options{Switch: s, Platform: cli.PlatformOf("eos"), Host: r.host()})
		if fleet.KindOf(err) != fleet.Invalid {
			t.Errorf("%q is a port's name: %v", name, err)
		}
		p := fleet.WirePlan{Device: "leaf-1", Changes: []fleet.WireChange{{Port: name, To: tenant}}}
		if err := r.drivers[0].Apply(t.Context(), p); fleet.KindOf(err) != fleet.Refused {
			t.Errorf("a plan with the port %q is applied: %v", name, err)
		}
		if typed := r.Typed(); len(typed) > 0 {
			t.Errorf("%q: typed %q", name, typed)
		}
	}
}

// TestNothingElse: in a change only the plan's ports are touched; each is off first and on last.
func TestNothingElse(t *testing.T) {
	for _, platform := range []string{"eos", "nxos"} {
		r := newRig(t, platform)
		applied(t, r, r.record.Managed[0], fleet.Carries{Tagged: []fleet.VLAN{110, 111}})
		var of []string
		for _, c := range r.Typed() {
			switch {
			case strings.HasPrefix(c, "interface ") && c != "interface "+r.record.Managed[0]:
				t.Errorf("%s: typed %q", platform, c)
			case strings.HasSuffix(c, "shutdown") || strings.HasPrefix(c, "switchport"):
				of = append(of, c)
			}
		}
		if len(of) < 3 || of[0] != "shutdown" || of[len(of)-1] != "no shutdown" {
			t.Errorf("%s: typed %q", platform, of)
		}
	}
}
