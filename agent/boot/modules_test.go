package boot

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestMatchAlias(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"pci:v00001AF4d00001000sv*sd*bc*sc*i*", "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", true},
		{"pci:v00001AF4d00001000sv*sd*bc*sc*i*", "pci:v00001AF4d00001001sv00001AF4sd00000001bc01sc00i00", false},
		{"pci:v*d*sv*sd*bc01sc08i02*", "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02", true},
		{"usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00", true},
		{"dmi:*:pvr[0-9]*:*", "dmi:bvnX:pvr7/1:rn", true},
		{"a[!0-9]c", "abc", true},
		{"a[!0-9]c", "a1c", false},
		{"a[]]c", "a]c", true},
		{"a[c", "a[c", true},
		{"a?c", "ac", false},
		{"*", "", true},
		{"", "", true},
		{"", "x", false},
		{"a*b*c", "aXXbYYbZZc", true},
	} {
		if got := matchAlias(c.pattern, c.s); got != c.want {
			t.Errorf("%q against %q: got %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}

// FuzzMatchAlias compares with path.Match where both mean the same: no slashes, no escapes, no classes.
func FuzzMatchAlias(f *testing.F) {
	f.Add("pci:v*d?sv", "pci:v1d2sv")
	f.Add("a*b[", "aab[")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := matchAlias(pattern, s)
		for _, r := range pattern + s {
			if r >= 0x80 || strings.ContainsRune(`/\[`, r) {
				return
			}
		}
		if want, err := path.Match(pattern, s); err == nil && got != want {
			t.Errorf("%q against %q: got %v, want %v", pattern, s, got, want)
		}
	})
}

func TestModules(t *testing.T) {
	root := tree(t, map[string]string{
		"lib/modules.alias": "# comment\nalias pci:v1d1* nvme\nalias pci:v1d1* nvme_two\nalias virtio:d1v* virtio_net\nalias cpu:* coretemp\nbroken line\n",
		"lib/modules.dep": "kernel/drivers/nvme/host/nvme.ko: kernel/x/nvme-core.ko\nkernel/drivers/net/virtio_net.ko:\n" +
			"kernel/drivers/hwmon/coretemp.ko:\nkernel/drivers/nvme/host/nvme-two.ko:\n",
		"sys/devices/pci0/modalias":     "pci:v1d1sv0\n",
		"sys/devices/pci0/sub/modalias": "virtio:d1v2\n",
		"sys/devices/cpu0/modalias":     "cpu:type:x86\n",
		"sys/devices/cpu1/modalias":     "cpu:type:x86\n",
		"sys/devices/none/modalias":     "\n",
	})
	m, err := readModules(root+"/lib", root+"/sys")
	if err != nil {
		t.Fatal(err)
	}
	var loaded []string
	m.insert = func(name, _ string) error {
		loaded = append(loaded, name)
		return map[string]error{"coretemp": fmt.Errorf("x: %w", unix.ENODEV), "nvme_two": unix.ENOEXEC}[name]
	}
	if diff := cmp.Diff(m.Aliases(), []string{"cpu:type:x86", "pci:v1d1sv0", "virtio:d1v2"}); diff != "" {
		t.Errorf("aliases (-got +want):\n%s", diff)
	}
	names := m.Wanted(m.Aliases())
	if diff := cmp.Diff(names, []string{"coretemp", "nvme", "nvme_two", "virtio_net"}); diff != "" {
		t.Errorf("wanted (-got +want):\n%s", diff)
	}
	for name, want := range map[string]bool{"nvme": true, "nvme_two": true, "virtio_net": true, "coretemp": false, "unknown": false} {
		if got := m.Urgent(name); got != want {
			t.Errorf("%s is urgent: %v, want %v", name, got, want)
		}
	}
	for _, name := range names {
		err := m.Load(name)
		if want := name == "nvme_two"; (err != nil) != want || want && !errors.Is(err, unix.ENOEXEC) {
			t.Errorf("load %s: %v", name, err)
		}
	}
	if diff := cmp.Diff(loaded, names); diff != "" {
		t.Errorf("loaded (-got +want):\n%s", diff)
	}
	if again := m.Wanted(m.Aliases()); len(again) != 0 {
		t.Errorf("%v would be tried for ever", again)
	}
	if _, err := readModules(root, root); err == nil {
		t.Error("a folder without tables was accepted")
	}
}
