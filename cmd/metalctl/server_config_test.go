//go:build !ramdisk

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/metalctl/metalctl/fleet"
)

func TestServerConfiguration(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an empty file", "", ""},
		{"comments alone", "# nothing yet\n", ""},
		{"a setting", "listen: 10.0.0.1:8443\nobserve_every: 2m\n", ""},
		{"an unknown key", "listen: 10.0.0.1:8443\nlissten_boot: 10.0.0.1:80\n", "f.yaml:2:1"},
		{"a wrong type", "backup_keep: many\n", "f.yaml:1:14"},
		{"two documents", "log_level: info\n---\nlog_level: debug\n", "f.yaml:3: a second document"},
		{"no YAML", "listen: [\n", "f.yaml:1"},
		{"a time that runs backwards", "power_on_for: -3m\n", "power_on_for"},
		{"a look each millisecond", "observe_every: 1ms\n", "observe_every"},
		{"no backup kept", "backup_keep: 0\n", "backup_keep"},
		{"a switch with a driver that is none", "switches: {leaf-1: {driver: telepathy}}\n", "switches.leaf-1.driver"},
		{"a switch with a key that is none", "switches: {leaf-1: {driver: ovs, host: a}}\n", "f.yaml:1"},
		{"an Open vSwitch", "switches: {leaf-1: {driver: ovs, address: \"unix:/run/openvswitch/db.sock\", bridge: br0}}\n", ""},
		{"an Open vSwitch far away", "switches: {leaf-1: {driver: ovs, address: \"ssl:leaf-1:6640\", openflow: \"ssl:leaf-1:6653\", bridge: br0, tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem}}}\n", ""},
		{"an Open vSwitch that nobody verifies", "switches: {leaf-1: {driver: ovs, address: \"ssl:leaf-1:6640\", openflow: \"ssl:leaf-1:6653\", bridge: br0}}\n", "switches.leaf-1.tls"},
		{"an Open vSwitch without TLS", "switches: {leaf-1: {driver: ovs, address: \"tcp:10.0.0.1:6640\", openflow: \"tcp:10.0.0.1:6653\", bridge: br0}}\n", "needs ssl"},
		{"an Open vSwitch without its bridge", "switches: {leaf-1: {driver: ovs, address: \"unix:/run/openvswitch/db.sock\"}}\n", "switches.leaf-1.bridge"},
		{"a certificate without its key", "switches: {leaf-1: {driver: ovs, address: \"unix:/db.sock\", bridge: br0, tls: {ca_file: /ca.pem, cert_file: /c.pem}}}\n", "cert_file and key_file"},
		{"a switch with a name that is none", "switches: {Leaf_1: {driver: ovs}}\n", "is no name of a switch"},
		{"a canary", "canary: {row-1: {interfaces: [eth2, eth3], namespace: canary}}\n", ""},
		{"a canary that cannot hear itself", "canary: {row-1: {interfaces: [eth2]}}\n", "canary.row-1.interfaces"},
		{"a canary that hears itself by one interface", "canary: {row-1: {interfaces: [eth2, eth2]}}\n", "stands there twice"},
		{"a canary in a namespace that is none", "canary: {row-1: {interfaces: [eth2, eth3], namespace: a/b}}\n", "canary.row-1.namespace"},
		{"a fabric with a UFM", "fabrics: {ib0: {driver: ufm, address: 'https://ufm', token_file: /t, tls: {ca_file: /ca}}}\n", ""},
		{"a UFM that nobody trusts", "fabrics: {ib0: {driver: ufm, address: 'https://ufm', user: u, password_file: /p}}\n", "needs tls"},
		{"a UFM in the clear", "fabrics: {ib0: {driver: ufm, address: 'http://ufm', token_file: /t, tls: {ca_file: /ca}}}\n", "fabrics.ib0.address"},
		{"a UFM with a partition file", "fabrics: {ib0: {driver: ufm, partitions: /p}}\n", "takes none of partitions"},
		{"an OpenSM with a password", "fabrics: {ib0: {driver: opensm, partitions: /p, port: '0x1', user: u}}\n", "takes none of address"},
		{"a log in another form", "log_format: xml\n", "log_format"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := parseServerConfig("f.yaml", []byte(c.text))
			if err == nil {
				err = cfg.check()
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// FuzzServerConfiguration: a file is refused with words and leaves the defaults, or is one that can be printed and read again as the same.
func FuzzServerConfiguration(f *testing.F) {
	f.Add([]byte("listen: 10.0.0.1:8443\nbackup_keep: 3\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("--- 1\n--- 2\n"))
	unexported := cmpopts.IgnoreUnexported(serverConfig{})
	f.Fuzz(func(t *testing.T, text []byte) {
		one, err := parseServerConfig("f.yaml", text)
		if err != nil {
			if fleet.KindOf(err) != fleet.Invalid || !strings.Contains(err.Error(), "f.yaml") {
				t.Fatalf("got %v", err)
			}
			if d := cmp.Diff(defaultServerConfig(), one, unexported); d != "" {
				t.Fatalf("a refused file set (-want +got):\n%s", d)
			}
			return
		}
		if one.check() != nil {
			return
		}
		if d, err := time.ParseDuration(one.PowerOnFor); err != nil || d <= 0 {
			t.Fatalf("power_on_for %q passed", one.PowerOnFor)
		}
		printed, err := yaml.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		two, err := parseServerConfig("f.yaml", printed)
		if d := cmp.Diff(one, two, unexported); err != nil || d != "" {
			t.Fatalf("%v (-first +second):\n%s", err, d)
		}
	})
}
