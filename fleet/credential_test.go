package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testPin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func testCredential() *Credential {
	return &Credential{
		Version: 1, Node: "hgx-001", Generation: 3, Token: NewSecret("s3cret-token"), IssuedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Servers: []ServerRef{{"https://10.0.0.1:8443", testPin}}, Console: "ttyS1,115200n8", DebugShell: true,
		Network: &BootNetwork{Bond: &BondConfig{Members: []string{"52:54:00:00:00:01", "eth1"}, Mode: "active-backup"}, VLAN: 120, MTU: 9000,
			Addresses: []string{"10.1.0.11/24", "fd00:1::11/64"}, Gateway: "10.1.0.1", Gateway6: "fe80::1",
			Routes: []Route{{"10.2.0.0/16", "10.1.0.2"}}, DNS: []string{"10.1.0.3"}, Proxy: "http://10.1.0.4:3128"},
	}
}

func TestCredentialRoundTrip(t *testing.T) {
	want := testCredential()
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, padding := range []string{"", "   ", strings.Repeat(" ", CredentialWindow), "\n"} {
		got, err := ParseCredential(append(bytes.Clone(b), padding...))
		if err != nil {
			t.Fatalf("with %d bytes of padding: %v", len(padding), err)
		}
		if diff := cmp.Diff(got, want, cmp.AllowUnexported(Secret{})); diff != "" {
			t.Errorf("(-got +want):\n%s", diff)
		}
	}
}

func TestCredentialHidesToken(t *testing.T) {
	c := testCredential()
	marshalled, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(marshalled), fmt.Sprint(c), fmt.Sprintf("%v %+v %#v", *c, *c, *c)} {
		if strings.Contains(s, "s3cret") {
			t.Errorf("the token shows in %s", s)
		}
	}
}

func TestParseCredentialRefuses(t *testing.T) {
	good, err := testCredential().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"an unknown key", `"version":1`, `"version":1,"colour":"red"`, `unknown field "colour"`},
		{"another version", `"version":1`, `"version":2`, "version: is 2"},
		{"no node", `"hgx-001"`, `""`, "node: "},
		{"no token", `"s3cret-token"`, `""`, "token: is missing"},
		{"a server without TLS", "https://10.0.0.1", "http://10.0.0.1", "servers[0].url"},
		{"a server with a password", "https://10.0.0.1", "https://u:p@10.0.0.1", "servers[0].url"},
		{"a short pin", testPin, "sha256/AAAA", "servers[0].key_pin"},
		{"no time", "2026-01-02", "0001-01-01", "byte"},
		{"a time that is none", "2026-01-02", "2026-13-02", "byte"},
		{"a console outside /dev", "ttyS1,115200n8", "../sda", "console: "},
		{"a bond mode of fantasy", "active-backup", "fastest", "network.bond.mode"},
		{"a bond member twice", `"eth1"`, `"52:54:00:00:00:01"`, "named twice"},
		{"an InfiniBand address as interface", `"eth1"`, `"52:54:00:00:00:01:02:03"`, "network.bond.members[1]"},
		{"a tag out of range", `"vlan":120`, `"vlan":4095`, "network.vlan"},
		{"an MTU out of range", `"mtu":9000`, `"mtu":68`, "network.mtu"},
		{"an address without a length", "10.1.0.11/24", "10.1.0.11", "network.addresses[0]"},
		{"a multicast address", "10.1.0.11/24", "224.0.0.1/24", "cannot be a machine's address"},
		{"a gateway elsewhere", `"gateway":"10.1.0.1"`, `"gateway":"10.9.0.1"`, "network.gateway: "},
		{"an IPv4 gateway6", "fe80::1", "10.1.0.1", "belongs in gateway"},
		{"a route of two versions", "10.2.0.0/16", "fd00:2::/64", "mixes IPv4 and IPv6"},
		{"a name as DNS server", `["10.1.0.3"]`, `["ns1"]`, "network.dns[0]"},
		{"a proxy that is none", "http://10.1.0.4:3128", "ftp://x", "network.proxy"},
		{"two credentials", `"debug_shell":true}`, `"debug_shell":true}{}`, "something follows"},
		{"half a credential", `"debug_shell":true}`, ``, "byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := strings.Replace(string(good), c.old, c.new, 1)
			if bad == string(good) {
				t.Fatalf("%q is not in the credential", c.old)
			}
			if c.name == "no time" {
				bad = strings.Replace(string(good), "2026-01-02T03:04:05Z", "0001-01-01T00:00:00Z", 1)
				c.want = "issued_at"
			}
			got, err := ParseCredential([]byte(bad))
			if err == nil || !strings.Contains(err.Error(), c.want) || CodeOf(err) != "MC-BOOT-CREDENTIAL" || KindOf(err) != Invalid {
				t.Errorf("got %v, %v; want %q", got, err, c.want)
			}
		})
	}
	if _, err := ParseCredential(bytes.Repeat([]byte(" "), CredentialWindow)); !errors.Is(err, ErrNoCredential) {
		t.Errorf("a blank window: %v", err)
	}
	if _, err := ParseCredential(bytes.Repeat([]byte("x"), CredentialWindow+1)); KindOf(err) != Invalid {
		t.Errorf("more than a window: %v", err)
	}
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	c := testCredential()
	for range 1000 {
		c.Network.Routes = append(c.Network.Routes, Route{"10.2.0.0/16", "10.1.0.2"})
	}
	if _, err := c.Encode(); CodeOf(err) != "MC-RAMDISK-CREDENTIAL" {
		t.Errorf("got %v", err)
	}
}

func TestMark(t *testing.T) {
	want, build := Window{Offset: 22 << 20, Size: CredentialWindow}, strings.Repeat("ab", 32)
	area := append([]byte(want.Mark(build)), make([]byte, 100)...)
	got, gotBuild, err := ParseMark(area)
	if err != nil || got != want || gotBuild != build {
		t.Errorf("got %v %s, %v", got, gotBuild, err)
	}
	for name, bad := range map[string]string{
		"nothing": "", "another mark": "METALCTL-CREDENTIAL-WINDOW-2 offset=0 size=16384 build=" + build + "\n",
		"an offset inside a sector": strings.Replace(string(area), "offset=", "offset=1", 1), "a negative offset": strings.Replace(string(area), "offset=", "offset=-", 1),
		"another size": strings.Replace(string(area), "size=1", "size=2", 1), "no build": strings.Replace(string(area), "abab", "zz", 1),
	} {
		if _, _, err := ParseMark([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// FuzzParseCredential: whatever is accepted can be written again and then reads the same.
func FuzzParseCredential(f *testing.F) {
	b, err := testCredential().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1}   `))
	f.Add([]byte(`{"version":1,"network":{"addresses":["fe80::1%eth0/64"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCredential(b)
		if err != nil {
			if c != nil {
				t.Error("a credential beside an error")
			}
			return
		}
		again, err := c.Encode()
		if CodeOf(err) == "MC-RAMDISK-CREDENTIAL" {
			return // escapes made it longer than its window
		}
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseCredential(again)
		if err != nil || back.Node != c.Node || back.Token.Reveal() != c.Token.Reveal() || !back.IssuedAt.Equal(c.IssuedAt) {
			t.Errorf("%q came back as %q: %v", b, again, err)
		}
	})
}

func FuzzParseMark(f *testing.F) {
	f.Add([]byte(Window{Offset: 40960, Size: CredentialWindow}.Mark(strings.Repeat("0", 64))))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, build, err := ParseMark(b)
		if err == nil && (w.Offset < 0 || w.Size != CredentialWindow || len(build) != 64) {
			t.Errorf("accepted %+v %q", w, build)
		}
	})
}
