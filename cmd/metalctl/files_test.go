//go:build !ramdisk

package main

import (
	"errors"
	"os"
	"strings"
	"testing"

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

func FuzzFleetFile(f *testing.F) {
	f.Add([]byte(goodFleet))
	f.Add([]byte("kind: Image\nname: x\nsha256: 00\n"))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseFleetFile("f.yaml", b, noFile); err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}
