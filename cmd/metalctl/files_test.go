//go:build !ramdisk

package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

const goodFleet = `kind: Site
isolation: none
---
kind: Class
name: hgx-h200
expect:
  gpus: {count: 8}
  nvme: {count: 8}
burnin: none
erase: {level: purge, accept_format: true}
---
kind: Node
name: hgx-001
bmc:
  address: "https://10.0.0.11"
  user: admin
  password_file: secrets/hgx-001
  tls: {first_use: true}
class: hgx-h200
labels: {rack: r1}
boot_network:
  vlan: 120
  addresses: ["10.1.0.11/24"]
  gateway: "10.1.0.1"
root_disk: {min_size_bytes: 400000000000, transport: nvme}
ports:
  - {mac: "52:54:00:00:00:01", role: provisioning, switch: leaf-1, port: swp1}
`

func noFile(string) ([]byte, error) { return nil, os.ErrNotExist }

func password(path string) ([]byte, error) {
	if path != "/etc/fleet/secrets/hgx-001" {
		return nil, errors.New("unexpected path " + path)
	}
	return []byte("pw\n"), nil
}

func TestFleetFile(t *testing.T) {
	f, err := parseFleetFile("/etc/fleet/rack.yaml", []byte(goodFleet), password)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.sites) != 1 || f.sites[0].Isolation != "none" || len(f.classes) != 1 || f.classes[0].Expect.GPUs.Count != 8 || len(f.nodes) != 1 {
		t.Fatalf("got %+v", f)
	}
	if c := f.classes[0]; c.EraseLevel != "purge" || !c.AcceptFormat {
		t.Errorf("got %+v", c)
	}
	n := f.nodes[0]
	if n.Password != "pw" || n.BootNetwork.VLAN != 120 || n.RootDisk.Transport != "nvme" || n.Ports[0].Switch != "leaf-1" || !n.TLS.FirstUse {
		t.Errorf("got %+v", n)
	}
}

func TestFleetFileBad(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"unknown key", strings.Replace(goodFleet, "labels:", "label:", 1), "rack.yaml:20:1"},
		{"unknown key inside", strings.Replace(goodFleet, "user: admin", "usr: admin", 1), "rack.yaml:16:3"},
		{"wrong type", strings.Replace(goodFleet, "vlan: 120", "vlan: [120]", 1), "rack.yaml:22:9"},
		{"not YAML", "kind: [", "rack.yaml:1"},
		{"no kind", "name: x", "no `kind`"},
		{"unknown kind", "kind: Toaster", `kind "Toaster" is not known`},
		{"password file missing", strings.Replace(goodFleet, "secrets/hgx-001", "gone", 1), "rack.yaml:12: bmc.password_file"},
		{"a tag", "kind: Class\nexpect:\n  limits: !mine 0\n", "rack.yaml:1: the document cannot be read; tags"},
		{"nothing in it", "# only a comment\n", "no document"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			open := password
			if strings.Contains(tt.name, "password") {
				open = noFile
			}
			_, err := parseFleetFile("/etc/fleet/rack.yaml", []byte(tt.in), open)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || fleet.KindOf(err) != fleet.Invalid {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}

// TestClassFileLines: each value that is wrong is named by its own line and key.
func TestClassFileLines(t *testing.T) {
	const head = "kind: Class\nname: x\nburnin: none\nerase: {level: purge}\nexpect:\n"
	for _, c := range []struct {
		name, expect string
		want         []string
	}{
		{"nothing", "  cpus: 2\n", nil},
		{"counts alone", "  gpus: 8\n  nvme: 8\n  infiniband: 8\n", nil},
		{"gigabytes for bytes", "  cpus: 2\n  memory_bytes: 2048\n", []string{"f.yaml:7: expect.memory_bytes"}},
		{"gigabits for gigabytes", "  gpus:\n    count: 8\n    nvlink_gbps: 425\n", []string{"f.yaml:8: expect.gpus.nvlink_gbps"}},
		{"more GPUs placed than there are", "  gpus: {count: 2}\n  numa_nodes: 2\n  topology: {gpu_numa_nodes: [0, 0, 1]}\n", []string{"f.yaml:8: expect.topology.gpu_numa_nodes"}},
		{"a NUMA node that there is not", "  numa_nodes: 2\n  topology:\n    rail: PIX\n    gpu_numa_nodes:\n      - 1\n      - 2\n", []string{"f.yaml:11: expect.topology.gpu_numa_nodes[1]"}},
		{"more NVMe than disks", "  disks: 4\n\n  # what is written beside it\n  nvme: 8\n", []string{"f.yaml:9: expect.nvme"}},
		{"modules that do not make the memory", "  memory_bytes: 1099511627776\n  dimms: {count: 32, size_bytes: 68719476736}\n", []string{"f.yaml:6: expect.memory_bytes"}},
		{"more drives beside GPUs than there are", "  gpus: 8\n  nvme: 8\n  topology:\n    nvme_per_rail: 2\n", []string{"f.yaml:9: expect.topology.nvme_per_rail"}},
		{"another board's wiring", "  nvswitches: 6\n  topology: {wiring: hgx-hopper}\n", []string{"f.yaml:7: expect.topology.wiring"}},
		{"limits", "  limits:\n    - {check: nvme-used, value: 800, unit: percent, source: x}\n    - check: hca-temperature\n      value: 100\n      unit: F\n",
			[]string{"f.yaml:7: expect.limits[0].value", "f.yaml:8: expect.limits[1].source", "f.yaml:10: expect.limits[1].unit"}},
		{"negative", "  gpus: -1\n  nics: -2\n", []string{"f.yaml:6: expect.gpus", "f.yaml:7: expect.nics"}},
		{"no PCI device", "  gpus: {pci_device: nvidia}\n", []string{"f.yaml:6: expect.gpus.pci_device"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseFleetFile("f.yaml", []byte(head+c.expect), noFile)
			var e *fleet.Error
			var got []string
			if errors.As(err, &e) {
				for _, f := range e.Fields {
					got = append(got, f.Field)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" || (err == nil) != (c.want == nil) {
				t.Errorf("%v\n%s", err, d)
			}
		})
	}
}

// TestClassFilePrinted: a class is printed as a file that is read as the same class.
func TestClassFilePrinted(t *testing.T) {
	all, err := classTemplates()
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	for _, c := range all {
		bare := c.class
		bare.Expect = fleet.ClassExpect{GPUs: fleet.ExpectGPUs{Count: 8}, InfiniBand: fleet.ExpectInfiniBand{Count: 8}, NVMe: fleet.ExpectNVMe{Count: 2}}
		bare.Packs, bare.Ramdisk, bare.PowerOffAvailable, bare.AcceptFormat = []string{"driver@1"}, "r1", true, true
		for _, want := range []fleet.Class{c.class, bare, {Name: "x", BurnIn: "none", EraseLevel: "clear"}} {
			var b strings.Builder
			if err := printClassFile(&b, want); err != nil {
				t.Fatal(err)
			}
			f, err := parseFleetFile("f.yaml", []byte(b.String()), noFile)
			if err != nil || len(f.classes) != 1 {
				t.Fatalf("%v in\n%s", err, b.String())
			}
			if d := cmp.Diff(want, f.classes[0]); d != "" {
				t.Error(d)
			}
		}
	}
}

func FuzzFleetFile(f *testing.F) {
	f.Add([]byte(goodFleet))
	f.Add([]byte("kind: Image\nname: x\nsha256: 00\n"))
	f.Add([]byte("---\n---\n"))
	f.Add([]byte("kind: Class\nexpect:\n  gpus: 8\n  nvme: -1\n  limits: [{check: x}]\n  topology:\n    gpu_numa_nodes: [0, 9]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseFleetFile("f.yaml", b, noFile); err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}
