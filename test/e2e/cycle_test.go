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
    profile: hgx-h200
    cpus: 2
    memory_bytes: 1073741824
    disks: [{size_bytes: 4294967296}, {size_bytes: 268435456}]
`

const site = `kind: Site
isolation: none
` + shortBurnIn + `---
kind: Class
name: demo
expect:
  cpus: 2
  numa_nodes: 2
  nvme: {count: 2}
  gpus: {count: 8, model: "NVIDIA H200", pci_device: "10de:2335", memory_bytes: 150754820096, nvlinks_up: 18, pcie: {generation: 5, width: 16}}
  infiniband: {count: 8, rate_gbps: 400, link_layer: InfiniBand, pcie: {generation: 5, width: 16}}
  nvswitches: 4
  topology: {wiring: hgx-hopper, rail: PIX, gpu_numa_nodes: [0, 0, 0, 0, 1, 1, 1, 1]}
burnin: {profile: short, after_tenant: short}
erase: {level: clear}
`

const userData = `#cloud-config
runcmd:
  - [sh, -c, 'mountpoint -q /sys/firmware/efi/efivars || mount -t efivarfs efivarfs /sys/firmware/efi/efivars']
  - [sh, -c, 'printf "\007\000\000\000left" >/sys/firmware/efi/efivars/` + tenantVariable + `']
  - [sh, -c, 'echo "TENANT-PROOF hostname=$(hostname) instance=$(cloud-init query instance_id) key=$(cut -d" " -f3 /home/debian/.ssh/authorized_keys | head -1) meta=$(cloud-init query ds.meta_data.meta.team) variable=$(tail -c 4 /sys/firmware/efi/efivars/` + tenantVariable + `)" >/dev/ttyS0']
`

// tenantVariable is what the tenant's system leaves in the firmware.
const tenantVariable = "Tenant-b6f5d5f0-9c4b-4d8e-8f5a-0a1b2c3d4e5f"

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
	w.hardware()
	n := get[node](w, "node", "show", "demo-1")
	if n.State != "managed" || n.Dirty != "unknown" || n.Isolation != "none" || n.Agent != "up" || len(n.Faults) != 0 {
		t.Fatalf("after inspection: %+v", n)
	}

	w.must("node", "accept", "demo-1", "--yes")
	w.must("wait", "node/demo-1", "--for", "state=available", "--timeout", "20m")
	if n = get[node](w, "node", "show", "demo-1"); n.State != "available" || n.Dirty != "" || len(n.Accepted) != 2 {
		t.Fatalf("after cleaning and burn-in: %+v", n)
	}
	w.passes(1)
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
	proof := regexp.MustCompile(`TENANT-PROOF hostname=gpu-0 instance=\S+ key=tenant-key meta=a variable=left`)
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
	if record := w.must("node", "cleaning", "demo-1"); !regexp.MustCompile(`(?m)^firmware/variables\s+cleaned\s.*gone: .*` + tenantVariable).MatchString(record) {
		t.Errorf("the tenant's variable is not among what was removed:\n%s", record)
	}
	w.passes(2)
	timeline := w.must("node", "timeline", "demo-1")
	for _, want := range []string{"redfish", "bytes 0-", "registered", "write-image"} {
		if !strings.Contains(timeline, want) {
			t.Errorf("the timeline does not tell of %q", want)
		}
	}
}

// passes asks for the burn-ins that were judged: the newest ones count, and each passed.
func (w *world) passes(want int) {
	w.t.Helper()
	list := get[[]struct{ Profile, Verdict string }](w, "burnin", "list", "demo-1")
	if len(list) != want {
		w.t.Errorf("%d burn-ins, want %d: %+v", len(list), want, list)
	}
	for _, b := range list {
		if b.Profile != "short" || b.Verdict != "pass" {
			w.t.Errorf("burn-in: %+v", b)
		}
	}
}

// hardware looks at what the agent found: the GPUs of the profile by NVIDIA's calls, in their rails, and the NVMe disks that QEMU has, each on its NUMA node.
func (w *world) hardware() {
	w.t.Helper()
	type inventory struct {
		Simulated string
		GPUs      []struct {
			UUID   string
			NUMA   int    `json:"numa_node"`
			PCI    string `json:"pci_address"`
			Module int    `json:"module_id"`
		}
		Rails []struct{ GPU, HCA, Distance string }
		NUMA  []struct{ Distances []int } `json:"numa_nodes"`
		Disks []struct {
			Serial, Transport, Firmware string
			PCI                         string `json:"pci_address"`
			NUMA                        int    `json:"numa_node"`
			Sanitize                    []string
			Smart                       *struct {
				Temperature int `json:"temperature_c"`
			}
		}
	}
	inv := get[inventory](w, "node", "inventory", "demo-1")
	uuids, modules := map[string]bool{}, map[int]bool{}
	for i, g := range inv.GPUs {
		uuids[g.UUID], modules[g.Module] = true, true
		if g.NUMA != i/4 || !strings.HasPrefix(g.PCI, "0001:") || !regexp.MustCompile(`^GPU-[0-9a-f-]{36}$`).MatchString(g.UUID) {
			w.t.Errorf("GPU %d: %+v", i, g)
		}
	}
	if inv.Simulated != "hgx-h200" || len(uuids) != 8 || len(modules) != 8 {
		w.t.Errorf("%q, %d UUIDs and %d modules of %d GPUs", inv.Simulated, len(uuids), len(modules), len(inv.GPUs))
	}
	hcas := map[string]bool{}
	for _, r := range inv.Rails {
		hcas[r.HCA] = true
		if r.HCA == "" || r.Distance != "PIX" {
			w.t.Errorf("rail %+v", r)
		}
	}
	if len(hcas) != 8 || len(inv.NUMA) != 2 || len(inv.Disks) != 2 {
		w.t.Errorf("%d rails, %d NUMA nodes, %d disks", len(hcas), len(inv.NUMA), len(inv.Disks))
	}
	numa := map[string]int{}
	for _, d := range inv.Disks {
		numa[d.Serial] = d.NUMA
		if d.Transport != "nvme" || d.Firmware == "" || d.Smart == nil || d.Smart.Temperature == 0 || !strings.HasPrefix(d.PCI, "0000:1") || len(d.Sanitize) != 1 || d.Sanitize[0] != "format" {
			w.t.Errorf("disk %+v", d)
		}
	}
	want := map[string]int{}
	for i, d := range w.rack.Machines[0].Disks {
		want[d.Serial] = i
	}
	if d := cmp.Diff(numa, want); d != "" {
		w.t.Errorf("NUMA nodes of the disks: %s", d)
	}
	if differs := w.must("node", "inventory", "demo-1", "--diff"); differs != "" {
		w.t.Errorf("the machine is what its class says, and yet: %s", differs)
	}
	if picture := w.must("node", "topology", "demo-1"); strings.Count(picture, "H200, 151 GB") != 8 {
		w.t.Errorf("the picture does not show eight GPUs:\n%s", picture)
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
