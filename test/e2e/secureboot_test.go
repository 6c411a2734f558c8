package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const secureLab = `machines:
  - name: demo-1
    mode: qemu
    cpus: 2
    memory_bytes: 1073741824
    disks: [{size_bytes: 268435456}]
    uefi: {secure_boot: true, test_key: true}
`

// TestSecureBoot starts the agent on machines whose firmware trusts the test key of Debian's ovmf package alone: a signed ramdisk runs and proves the boot
// path, an unsigned one is refused by the firmware, and the server says so long before it would give up. One boot each.
func TestSecureBoot(t *testing.T) {
	if os.Getenv("METALCTL_LONG") != "1" {
		t.Skip("long: takes minutes; set METALCTL_LONG=1")
	}
	const cert = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
	key := t.TempDir() + "/db.key"
	if out, err := exec.Command("openssl", "pkey", "-in", "/usr/share/ovmf/PkKek-1-snakeoil.key", "-passin", "pass:snakeoil", "-out", key).CombinedOutput(); err != nil {
		t.Fatalf("decrypt the test key: %v\n%s", err, out)
	}
	enrolled := func(t *testing.T, sign ...string) *world {
		w := newWorldOf(t, secureLab, sign)
		w.must("site", "apply", "-f", w.write("fleet.yaml", plainSite))
		w.must("node", "enroll", "-f", w.rack.Nodes)
		w.must("node", "set", "demo-1", "--class", "demo")
		return w
	}
	t.Run("signed", func(t *testing.T) {
		w := enrolled(t, "--sign-key", key, "--sign-cert", cert)
		w.must("node", "inspect", "demo-1")
		n := get[struct {
			node
			Boot struct{ Unauthenticated bool }
		}](w, "node", "show", "demo-1")
		if n.State != "managed" || n.Agent != "up" || n.Boot.Unauthenticated || len(n.Faults) != 0 {
			t.Errorf("after inspection: %+v", n)
		}
		timeline := w.must("node", "timeline", "demo-1")
		for _, want := range []string{"secure boot on", "serial", "BMC override Cd"} {
			if !strings.Contains(timeline, want) {
				t.Errorf("the timeline does not tell of %q:\n%s", want, timeline)
			}
		}
	})
	t.Run("unsigned", func(t *testing.T) {
		w := enrolled(t)
		w.must("node", "inspect", "demo-1", "--no-wait")
		timeline := ""
		w.eventually("the verdict", 15*time.Minute, func() bool {
			timeline = w.must("node", "timeline", "demo-1")
			return strings.Contains(timeline, "refused it; the console says: ")
		})
		if !strings.Contains(timeline, "Access Denied") {
			t.Errorf("the verdict does not name what the firmware said:\n%s", timeline)
		}
		if strings.Contains(w.serials(), "Linux version") {
			t.Errorf("the unsigned kernel ran:\n%s", w.serials())
		}
	})
}
