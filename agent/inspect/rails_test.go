package inspect

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// function is one that a test hangs into a tree.
type function struct {
	path string // from the host bridge on
	id   string // vendor device class
	numa int
}

// treeOf makes sysfs of a few functions.
func treeOf(t *testing.T, nodes int, list []function) string {
	t.Helper()
	root := t.TempDir()
	write := func(p, text string) {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for n := range nodes {
		write(fmt.Sprintf("sys/devices/system/node/node%d/distance", n), "10")
	}
	for _, f := range list {
		var vendor, device, class string
		if _, err := fmt.Sscan(f.id, &vendor, &device, &class); err != nil {
			t.Fatal(err)
		}
		dir := "sys/devices/" + f.path
		write(dir+"/vendor", "0x"+vendor)
		write(dir+"/device", "0x"+device)
		write(dir+"/class", "0x"+class)
		write(dir+"/numa_node", fmt.Sprint(f.numa))
		link := filepath.Join(root, "sys/bus/pci/devices", filepath.Base(f.path))
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, dir), link); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRails(t *testing.T) {
	const gpu, hca, port = "10de 2330 030200", "15b3 1021 020700", "1000 c030 060400"
	for _, tc := range []struct {
		situation string
		nodes     int
		tree      []function
		hcas      []fleet.HCA
		want      []string // GPU, HCA, distance, bridge
		roles     string
	}{
		{"one switch for two pairs: pairs in the order of addresses", 1, []function{
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0", gpu, 0}, {"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0", gpu, 0},
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:02.0/0000:15:00.0", hca, 0}, {"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:03.0/0000:16:00.0", hca, 0},
		}, []fleet.HCA{{Name: "b", PCIAddress: "0000:16:00.0"}, {Name: "a", PCIAddress: "0000:15:00.0"}},
			[]string{"0000:13:00.0 a PIX 0000:11:00.0", "0000:14:00.0 b PIX 0000:11:00.0"}, "rail rail"},
		{"the nearer NIC wins over the first", 1, []function{
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0", hca, 0},
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0/0000:15:00.0/0000:16:00.0", gpu, 0},
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0/0000:15:01.0/0000:17:00.0", hca, 0},
		}, []fleet.HCA{{Name: "far", PCIAddress: "0000:13:00.0"}, {Name: "near", PCIAddress: "0000:17:00.0"}},
			[]string{"0000:16:00.0 near PIX 0000:14:00.0"}, "rail rail"},
		{"two GPUs share the one NIC of their switch; the NIC of another socket stays out", 2, []function{
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0", gpu, 0}, {"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0", gpu, 0},
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:02.0/0000:15:00.0", hca, 0}, {"pci0000:80/0000:80:01.0/0000:81:00.0", hca, 1},
		}, []fleet.HCA{{Name: "one", PCIAddress: "0000:15:00.0"}, {Name: "other", PCIAddress: "0000:81:00.0"}},
			[]string{"0000:13:00.0 one PIX 0000:11:00.0", "0000:14:00.0 one PIX 0000:11:00.0"}, "rail storage"},
		{"a virtual machine with a domain for each function: alike NICs, one for each GPU, by NUMA node", 2, []function{
			{"LNXSYSTM:00/VMBUS:00/a/pci0001:00/0001:00:00.0", gpu, 1}, {"LNXSYSTM:00/VMBUS:00/b/pci0002:00/0002:00:00.0", gpu, 0},
			{"LNXSYSTM:00/VMBUS:00/c/pci0101:00/0101:00:00.0", hca, 0}, {"LNXSYSTM:00/VMBUS:00/d/pci0102:00/0102:00:00.0", hca, 1},
			{"LNXSYSTM:00/VMBUS:00/e/pci0201:00/0201:00:00.0", hca, 0},
		}, []fleet.HCA{{Name: "ib0", PCIAddress: "0101:00:00.0", Type: "MT4129"}, {Name: "ib1", PCIAddress: "0102:00:00.0", Type: "MT4129"}, {Name: "an0", PCIAddress: "0201:00:00.0", Type: "MT4125"}},
			[]string{"0001:00:00.0 ib1 NODE ", "0002:00:00.0 ib0 NODE "}, "rail rail storage"},
		{"one host bridge without a switch", 1, []function{{"pci0000:00/0000:00:01.0/0000:01:00.0", gpu, -1}, {"pci0000:00/0000:00:02.0/0000:02:00.0", hca, -1}},
			[]fleet.HCA{{Name: "a", PCIAddress: "0000:02:00.0"}}, []string{"0000:01:00.0 a PHB "}, "rail"},
		{"no NIC at all", 1, []function{{"pci0000:00/0000:00:01.0/0000:01:00.0", gpu, 0}}, nil, []string{"0000:01:00.0   "}, ""},
		{"the fabric's functions are no rails, however near", 1, []function{
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0", gpu, 0}, {"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0", hca, 0},
			{"pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:02.0/0000:15:00.0", hca, 0},
		}, []fleet.HCA{{Name: "fm", PCIAddress: "0000:14:00.0", Role: fleet.HCAFabric}, {Name: "a", PCIAddress: "0000:15:00.0"}},
			[]string{"0000:13:00.0 a PIX 0000:11:00.0"}, "fabric rail"},
		{"no GPU", 1, []function{{"pci0000:00/0000:00:01.0/0000:01:00.0", hca, 0}, {"pci0000:00/0000:00:02.0", port, 0}}, []fleet.HCA{{Name: "a", PCIAddress: "0000:01:00.0"}}, nil, "storage"},
	} {
		t.Run(tc.situation, func(t *testing.T) {
			r := &reading{fs: sysfs.New(treeOf(t, tc.nodes, tc.tree)), inv: &fleet.Inventory{HCAs: tc.hcas, NUMANodes: make([]fleet.NUMANode, tc.nodes)}}
			r.readPCI(t.Context())
			r.readRails(t.Context())
			var got []string
			for _, x := range r.inv.Rails {
				got = append(got, x.GPU+" "+x.HCA+" "+x.Distance+" "+x.Bridge)
			}
			roles := ""
			for i, h := range r.inv.HCAs {
				if i > 0 {
					roles += " "
				}
				roles += h.Role
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || roles != tc.roles {
				t.Errorf("roles %q, want %q; rails (-want +got):\n%s", roles, tc.roles, diff)
			}
		})
	}
}

func TestParseSmart(t *testing.T) {
	b := make([]byte, 512)
	b[0], b[1], b[2], b[3], b[4], b[5] = 0x09, 0x5e, 0x01, 7, 10, 120
	b[48] = 2
	for i := 160; i < 176; i++ {
		b[i] = 0xff
	}
	got, err := parseSmart(b)
	want := &fleet.Smart{CriticalWarning: []string{"spare-low", "read-only"}, TemperatureC: 77, SparePercent: 7, SpareThreshold: 10, UsedPercent: 120, WrittenBytes: 1_024_000, MediaErrors: math.MaxInt64}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, b := range map[string][]byte{"cut short": b[:511], "empty": make([]byte, 512)} {
		if s, err := parseSmart(b); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestDecodeACS(t *testing.T) {
	b := make([]byte, 4096)
	copy(b[0x100:], []byte{0x01, 0, 0x81, 0x14}) // AER, next at 148h
	copy(b[0x148:], []byte{0x0d, 0, 0x01, 0, 0x5f, 0, 0x1d, 0})
	if diff := cmp.Diff([]string{"source-validation", "request-redirect", "completion-redirect", "upstream-forwarding"}, decodeACS(b)); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	b[0x14e] = 0
	if got := decodeACS(b); got == nil || len(got) != 0 {
		t.Errorf("all off is %v", got)
	}
	copy(b[0x148:], []byte{0x19, 0, 0x01, 0x10}) // leads back to 100h
	for _, b := range [][]byte{b, b[:256], b[:64], nil} {
		if got := decodeACS(b); got != nil {
			t.Errorf("%d bytes: %v", len(b), got)
		}
	}
}

func FuzzParsers(f *testing.F) {
	f.Add(make([]byte, 512))
	f.Add([]byte("RxErr 1\nTOTAL_ERR_COR 1\n"))
	f.Add([]byte{0x40, 5, 2, 0x1f, 0x0b, 0xee, 3, 1, 4, 91})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSmart(b); (s == nil) == (err == nil) {
			t.Errorf("%v, %v", s, err)
		}
		decodeACS(append(make([]byte, extendedSpace), b...))
		for name, n := range parseAER(string(b)) {
			if n <= 0 || name == "" {
				t.Errorf("%q counted %d", name, n)
			}
		}
		hostInterfaceAddress(b)
	})
}
