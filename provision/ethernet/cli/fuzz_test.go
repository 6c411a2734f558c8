package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// FuzzRunning: whatever a switch says is running, reading it ends, says no port twice and no VLAN that is none; a port without a doubt carries what its
// lines say.
func FuzzRunning(f *testing.F) {
	for _, s := range []string{
		"interface Ethernet1\n   switchport access vlan 101\n!\nend\n",
		"vlan 10,20-30\n   name x\ninterface Ethernet1/1\n  switchport mode trunk\n  switchport trunk allowed vlan 5,7-9\n  switchport trunk allowed vlan add 11\n  no shutdown\n",
		"banner motd ^C\ninterface Ethernet1\n^C\ninterface Ethernet1\n   shutdown\n",
		"banner motd\ninterface Ethernet1\nEOF\nsystem default switchport shutdown\n", "   lost\n", "interface \n", "vlan 4095\n", "\tx", "interface Ethernet1\n   switchport mode trunk",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range Platforms() {
			st, err := p.readIndented(text)
			if err != nil {
				continue
			}
			for name, x := range st.ports {
				if strings.ContainsAny(name, " \n") {
					t.Errorf("a port is called %q", name)
				}
				if x.doubt != "" {
					continue
				}
				all := append(slices.Clone(x.carries.Tagged), x.carries.Untagged)
				for _, v := range all {
					if v > 4094 {
						t.Errorf("port %q carries VLAN %d", name, v)
					}
				}
				if x.mode == "trunk" && !strings.Contains(text, "allowed vlan") {
					t.Errorf("port %q is a trunk of no list and in no doubt", name)
				}
			}
			if f := st.foreign(st, nil, nil); f != "" {
				t.Errorf("differs from itself in %s", f)
			}
		}
	})
}

// FuzzSwitching: the answers that platforms give as JSON.
func FuzzSwitching(f *testing.F) {
	for _, s := range []string{
		`{"switchports":{"Ethernet1":{"enabled":true,"switchportInfo":{"mode":"access","accessVlanId":101,"trunkAllowedVlans":"ALL"}}}}`,
		`{"TABLE_interface":{"ROW_interface":[{"interface":"Ethernet1/1","switchport":"Enabled","access_vlan":"1","native_vlan":"1","trunk_vlans":"1-4094"}]}}`,
		`{"TABLE_interface":{"ROW_interface":{"interface":"Ethernet1/1","switchport":"Disabled"}}}`,
		`{"sessions":{"a":{"state":"pendingCommitTimer"}}}`, `{} {}`, `[]`, `null`, "1) metalctl-change:\nDescription: 0123456789abcdef until 20261122T190500Z\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		for _, p := range Platforms() {
			does, err := p.switching(answer)
			if err != nil {
				continue
			}
			for name, o := range does {
				if slices.ContainsFunc(o.allowed, func(v fleet.VLAN) bool { return v < 1 || v > 4094 }) {
					t.Errorf("port %q is said to allow %v", name, o.allowed)
				}
			}
		}
		if states, err := eosSessions(answer); err == nil && states == nil {
			t.Error("no sessions and no error")
		}
		checkpointOf(answer)
	})
}

// FuzzScreen: what a terminal shows of any bytes has no byte that does something to another one, and a second look shows the same.
func FuzzScreen(f *testing.F) {
	for _, s := range []string{"leaf-1#show\r\nx\r\n--More--\r        \ry\r\nleaf-1#", "a\bb\x1b[2Kc\x1b", "\x1b[", "\r\r\n\n", "\x00\x7f\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		lines := screen(raw)
		text := strings.Join(lines, "\n")
		if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }); i >= 0 {
			t.Errorf("%q shows %q", raw, text)
		}
		if again := screen([]byte(text)); !slices.Equal(again, lines) {
			t.Errorf("%q is shown as %q", lines, again)
		}
		if m := promptOf("").FindStringSubmatch(lines[len(lines)-1]); m != nil && m[1] == "" {
			t.Errorf("the prompt %q has no name", lines[len(lines)-1])
		}
	})
}
