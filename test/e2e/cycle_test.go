package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const lab = `machines:
  - name: demo-1
    mode: qemu
    cpus: 2
    memory_bytes: 1073741824
    disks: [{size_bytes: 4294967296}, {size_bytes: 268435456}]
`

const site = `kind: Site
isolation: none
---
kind: Class
name: demo
expect: {nvme: {count: 2}}
burnin: none
erase: {level: clear}
`

const userData = `#cloud-config
runcmd:
  - [sh, -c, 'echo "TENANT-PROOF hostname=$(hostname) instance=$(cloud-init query instance_id) key=$(cut -d" " -f3 /home/debian/.ssh/authorized_keys | head -1) meta=$(cloud-init query ds.meta_data.meta.team)" >/dev/ttyS0']
`

type node struct {
	State     string
	Isolation string
	Dirty     string
	Agent     string
	Faults    []struct{ Code string }
	Accepted  []struct{ Serial string }
}

// TestCycle takes a machine from a BMC address to a booted tenant image and back: three boots of one QEMU machine (agent, Debian, agent).
func TestCycle(t *testing.T) {
	w := newWorld(t, lab)
	dirt := bytes.Repeat([]byte("data of somebody before us. "), 1<<16)
	for _, m := range w.rack.Machines {
		for _, d := range m.Disks {
			f, err := os.OpenFile(d.File, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, off := range []int64{0, d.Size / 2, d.Size - int64(len(dirt))} {
				if _, err := f.WriteAt(dirt, off); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := w.diskDigests()

	// First contact does no harm: only reads (and the session that reading needs) reach the BMC, and the disks stay as they are.
	w.must("site", "apply", "-f", w.write("fleet.yaml", site))
	w.must("node", "enroll", "-f", w.rack.Nodes)
	w.must("node", "set", "demo-1", "--class", "demo")
	for _, line := range strings.Split(strings.TrimSpace(w.must("sim", "requests", "demo-1", "--dir", w.path("rack"))), "\n") {
		if !regexp.MustCompile(`^\S+ (GET \S+ 2\d\d|(POST|DELETE) /redfish/v1/SessionService/Sessions\S* 20\d)$`).MatchString(line) {
			t.Errorf("enrolling did more than read: %s", line)
		}
	}
	w.must("node", "inspect", "demo-1")
	if d := cmp.Diff(w.diskDigests(), before); d != "" {
		t.Fatalf("the disks changed before anybody accepted it: %s", d)
	}
	n := get[node](w, "node", "show", "demo-1")
	if n.State != "managed" || n.Dirty != "unknown" || n.Isolation != "none" || n.Agent != "up" || len(n.Faults) != 0 {
		t.Fatalf("after inspection: %+v", n)
	}

	w.must("node", "accept", "demo-1", "--yes")
	if n = get[node](w, "node", "show", "demo-1"); n.State != "available" || n.Dirty != "" || len(n.Accepted) != 2 {
		t.Fatalf("after cleaning: %+v", n)
	}
	w.noDirt(dirt)

	image := w.script("image-debian.sh")
	packed := w.path("debian.raw.zst")
	if out, err := exec.Command("zstd", "-q", "-1", image, "-o", packed).CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v\n%s", err, out)
	}
	w.must("image", "add", "debian-12", "--file", packed)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tenant-key", "-f", w.path("key")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	w.must("lease", "create", "--name", "team-a", "--node", "demo-1", "--image", "debian-12", "--ssh-key", w.path("key.pub"), "--meta", "team=a",
		"--user-data", w.write("user-data", userData), "--hostname-template", "gpu-{index}", "--grace", "0s")
	proof := regexp.MustCompile(`TENANT-PROOF hostname=gpu-0 instance=\S+ key=tenant-key meta=a`)
	w.eventually("the tenant's first boot", 20*time.Minute, func() bool {
		text, err := os.ReadFile(w.rack.Machines[0].SerialLog)
		return err == nil && proof.Match(text)
	})
	if n = get[node](w, "node", "show", "demo-1"); n.State != "active" || n.Dirty == "" || n.Dirty == "unknown" {
		t.Fatalf("leased: %+v", n)
	}

	w.must("lease", "release", "team-a", "--yes")
	w.must("wait", "node/demo-1", "--for", "state=available", "--timeout", "20m")
	if n = get[node](w, "node", "show", "demo-1"); n.Dirty != "" || len(n.Faults) != 0 {
		t.Fatalf("after release: %+v", n)
	}
	w.noDirt([]byte("OpenSSH"))
	timeline := w.must("node", "timeline", "demo-1")
	for _, want := range []string{"redfish", "bytes 0-", "registered", "write-image"} {
		if !strings.Contains(timeline, want) {
			t.Errorf("the timeline does not tell of %q", want)
		}
	}
}

// noDirt reads the disks from outside: nothing of what stood there may be left.
func (w *world) noDirt(what []byte) {
	w.t.Helper()
	for _, m := range w.rack.Machines {
		for _, d := range m.Disks {
			f, err := os.Open(d.File)
			if err != nil {
				w.t.Fatal(err)
			}
			buf := make([]byte, 8<<20)
			keep := 0
			for off := int64(0); off < d.Size; {
				n, _ := f.ReadAt(buf[keep:], off) // the end of the file ends the loop
				if n == 0 {
					break
				}
				if i := bytes.Index(buf[:keep+n], what); i >= 0 {
					w.t.Errorf("%s still holds old data near byte %d", d.File, off+int64(i))
					break
				}
				off += int64(n)
				valid := keep + n
				keep = min(len(what), valid)
				copy(buf, buf[valid-keep:valid])
			}
			f.Close()
		}
	}
}
