package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// FuzzModuleTables reads the same bytes as modules.alias and as modules.dep.
func FuzzModuleTables(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		for _, name := range []string{"modules.alias", "modules.dep"} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m, err := readModules(dir, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range m.aliases {
			if a.pattern == "" || a.module == "" {
				t.Errorf("alias %+v", a)
			}
			if matchAlias(a.pattern, "pci:v00008086d00001521") && !strings.ContainsAny(a.pattern, "*?[") && a.pattern != "pci:v00008086d00001521" {
				t.Errorf("%q matches another device", a.pattern)
			}
		}
		m.Wanted([]string{"pci:v00008086d00001521", string(b)})
	})
}

func FuzzLease4(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		ack, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := readLease4(&nclient4.Lease{ACK: ack})
		if err == nil && (len(l.prefixes) != 1 || !l.prefixes[0].IsValid() || l.renew < 0 || l.renew > l.lifetime) {
			t.Errorf("%+v", l)
		}
	})
}

func FuzzLease6(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, err := dhcpv6.MessageFromBytes(b)
		if err != nil {
			return
		}
		l, err := readLease6(reply)
		if err == nil && (len(l.prefixes) == 0 || l.renew < 0 || l.renew > l.lifetime) {
			t.Errorf("%+v", l)
		}
	})
}
