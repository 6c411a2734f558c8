package inspect

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

var update = flag.Bool("update", false, "write the golden inventories anew")

// recording unpacks a tree from testdata: "LINK -> TARGET" is a link, "FILE.hex" is bytes, "FILE.iso" a volume with that label.
func recording(t *testing.T, name string) string {
	t.Helper()
	archive, err := os.ReadFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	write := func(name string, b []byte) {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range strings.Split(string(archive), "\n-- ")[1:] {
		name, text, ok := strings.Cut(part, " --\n")
		if !ok {
			name, ok = strings.CutSuffix(part, " --") // a link at the very end
		}
		if !ok {
			t.Fatalf("%q is not a file of the recording", part)
		}
		if link, target, ok := strings.Cut(name, " -> "); ok {
			p := filepath.Join(root, link)
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.Symlink(target, p)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		switch base, kind := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name); kind {
		case ".hex":
			b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			write(base, b)
		case ".iso":
			write(base, volume(strings.TrimSpace(text)))
		default:
			write(name, []byte(text))
		}
	}
	return root
}

// volume is the start of an ISO 9660 volume.
func volume(label string) []byte {
	b := make([]byte, 18*2048)
	pvd := b[16*2048:]
	copy(pvd, "\x01CD001\x01\x00")
	copy(pvd[40:72], fmt.Sprintf("%-32s", label))
	return b
}

func read(t *testing.T, opts Options) fleet.Inventory {
	t.Helper()
	opts.Now = func() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }
	inv, err := Read(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestRecordings(t *testing.T) {
	for _, name := range []string{"hgx", "bios"} {
		t.Run(name, func(t *testing.T) {
			inv := read(t, Options{Root: recording(t, name)})
			got, err := json.MarshalIndent(inv, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
				t.Errorf("inventory (-want +got):\n%s", diff)
			}
		})
	}
}

// What the golden files must say, whoever updates them.
func TestTheHGXMachine(t *testing.T) {
	inv := read(t, Options{Root: recording(t, "hgx")})
	count := func(vendor, device string) (n int) {
		for _, p := range inv.PCI {
			if p.Vendor == vendor && p.Device == device {
				n++
			}
		}
		return n
	}
	if g, s, h := count("10de", "2330"), count("10de", "22a3"), count("15b3", "1021"); g != 8 || s != 4 || h != 8 {
		t.Errorf("%d GPUs, %d NVSwitches, %d HCAs; want 8, 4, 8", g, s, h)
	}
	want := []fleet.CPU{
		{Socket: 0, Model: "Example Xeon 8480C", Cores: 8, Threads: 16, Microcode: "0x2b000603", MaxMHz: 3800},
		{Socket: 1, Model: "Example Xeon 8480C", Cores: 8, Threads: 16, Microcode: "0x2b000603", MaxMHz: 3800},
	}
	if diff := cmp.Diff(want, inv.CPUs); diff != "" {
		t.Errorf("CPUs (-want +got):\n%s", diff)
	}
	if inv.System.UUID != "6f1c0a52-8e7b-4d1a-9c2e-0123456789ab" || inv.System.SecureBoot != "on" || inv.System.FirmwareMode != "uefi" {
		t.Errorf("system = %+v", inv.System)
	}
	if len(inv.Memory.DIMMs) != 16 || inv.Memory.DIMMs[0].SizeBytes != 64<<30 || inv.Memory.DIMMs[0].SpeedMTs != 4800 {
		t.Errorf("%d DIMMs, the first %+v", len(inv.Memory.DIMMs), inv.Memory.DIMMs[0])
	}
	if diff := cmp.Diff([]int{21, 10}, inv.NUMANodes[1].Distances); diff != "" {
		t.Errorf("distances (-want +got):\n%s", diff)
	}
	serials := map[string]string{}
	for _, d := range inv.Disks {
		serials[d.Name] = d.Serial
		if d.BootMedium != (d.Name == "sr0") {
			t.Errorf("%s: boot medium %v", d.Name, d.BootMedium)
		}
	}
	if len(inv.Disks) != 9 || serials["nvme5n1"] != "S64HNE0T500005" || serials["nvme5n2"] != "S64HNE0T500005" || serials["sda"] != "4C530001" {
		t.Errorf("serials: %v", serials)
	}
	var names []string
	for _, n := range inv.NICs {
		names = append(names, n.Name)
	}
	if !slices.Equal(names, []string{"ens1f0", "ens1f1"}) {
		t.Errorf("NICs: %v; HCAs in InfiniBand mode, bonds and lo are none", names)
	}
	narrow := 0
	for _, p := range inv.PCI {
		if p.Device == "2330" && p.Width != p.MaxWidth {
			narrow++
		}
	}
	if narrow != 1 {
		t.Errorf("%d GPUs with half their lanes, want 1", narrow)
	}
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	inv := read(t, Options{Root: recording(t, "bios")})
	for _, what := range []string{
		"system.model", "system.uuid", "system.serial", "system.vendor",
	} {
		if hasMissing(inv, what) {
			t.Errorf("%s is missing although SMBIOS has it", what)
		}
	}
	if inv.System.Vendor != "Acme" || inv.System.Serial != "A-77" || inv.System.UUID != "00112233-4455-6677-8899-aabbccddeeff" {
		t.Errorf("system = %+v", inv.System)
	}
	for _, what := range []string{"memory.total", "memory/BANK0 DIMM2 size", "cpu", "numa", "disk/sdb serial", "system.board"} {
		if !hasMissing(inv, what) {
			t.Errorf("%s is not in missing: %v", what, inv.Missing)
		}
	}
	for _, d := range inv.Disks {
		want := map[string]struct {
			transport string
			boot      bool
		}{"sda": {"sata", false}, "sdb": {"sas", false}, "sdc": {"usb", true}}[d.Name]
		if d.Transport != want.transport || d.BootMedium != want.boot {
			t.Errorf("%s: transport %s, boot medium %v; want %+v", d.Name, d.Transport, d.BootMedium, want)
		}
	}
	if inv.System.SecureBoot != "off" || inv.System.FirmwareMode != "bios" || inv.TPM != nil {
		t.Errorf("system = %+v, TPM %v", inv.System, inv.TPM)
	}
	if inv.NICs[0].MAC != "00:25:90:aa:bb:dd" {
		t.Errorf("a bond's member has the MAC %s, not its own", inv.NICs[0].MAC)
	}
}

func hasMissing(inv fleet.Inventory, what string) bool {
	return slices.ContainsFunc(inv.Missing, func(m fleet.Missing) bool { return m.What == what })
}

func TestAnEmptyTreeIsAllMissing(t *testing.T) {
	inv := read(t, Options{Root: t.TempDir()})
	for _, what := range []string{"smbios", "cpu", "numa", "memory.total", "memory.dimms", "pci", "system.serial", "system.uuid"} {
		if !hasMissing(inv, what) {
			t.Errorf("%s is not in missing", what)
		}
	}
	b, err := json.Marshal(inv)
	if err != nil || bytes.Contains(b, []byte("null")) {
		t.Errorf("inventory = %s, %v; lists must be empty, not null", b, err)
	}
}

func TestStandIns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk0")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "disks.json")
	if err := os.WriteFile(list, fmt.Appendf(nil, `[{"path":%q,"serial":"F1","model":"FILE","transport":"nvme"}]`, file), 0o600); err != nil {
		t.Fatal(err)
	}
	disks, err := LoadFileDisks(list)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	inv := read(t, Options{
		Root: recording(t, "hgx"), Disks: disks, NICs: []fleet.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01"}}, System: &fleet.System{Serial: "SIM-1", UUID: "u", FirmwareMode: "bios", SecureBoot: "off"},
		Progress: func(string) { asked++ },
	})
	want := []fleet.Disk{{Name: "disk0", Path: file, Serial: "F1", Model: "FILE", SizeBytes: 4096, BlockBytes: 512, Transport: "nvme", NUMANode: -1}}
	if diff := cmp.Diff(want, inv.Disks); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
	if inv.System.Serial != "SIM-1" || inv.System.Kernel == "" || len(inv.NICs) != 1 || asked != Parts() {
		t.Errorf("system %+v, NICs %v, %d parts", inv.System, inv.NICs, asked)
	}
	for name, bad := range map[string][]FileDisk{
		"no serial":      {{Path: file}},
		"serial twice":   {{Path: file, Serial: "A"}, {Path: file, Serial: "A"}},
		"not there":      {{Path: file + "x", Serial: "A"}},
		"not plain":      {{Path: "/dev/null", Serial: "A"}},
		"a directory":    {{Path: "/", Serial: "A"}},
		"no path at all": {{Serial: "A"}},
	} {
		if _, err := FileDisks(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOnlyAndCancel(t *testing.T) {
	root := recording(t, "hgx")
	inv := read(t, Options{Root: root, Only: []string{PartDisk}})
	if len(inv.Disks) == 0 || len(inv.PCI) != 0 || inv.System.Serial != "" {
		t.Errorf("%d disks, %d PCI functions, serial %q", len(inv.Disks), len(inv.PCI), inv.System.Serial)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, Options{Root: root}); !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v", err)
	}
}

func TestSanitizeIsAskedOfDisksOnly(t *testing.T) {
	inv := read(t, Options{Root: recording(t, "bios"), Sanitize: func(_ context.Context, d fleet.Disk) ([]string, error) {
		if d.BootMedium {
			t.Errorf("%s was asked", d.Name)
		}
		if d.Name == "sdb" {
			return nil, errors.New("no answer")
		}
		return []string{"discard"}, nil
	}})
	if !slices.Equal(inv.Disks[0].Sanitize, []string{"discard"}) || !hasMissing(inv, "disk/sdb sanitize") {
		t.Errorf("disks %+v, missing %v", inv.Disks, inv.Missing)
	}
}

func TestParseManufacturer(t *testing.T) {
	good, err := hex.DecodeString("80010000001b00000000" + "01" + "00000006" + "00000001" + "00000105" + "49465800")
	if err != nil {
		t.Fatal(err)
	}
	if name, err := parseManufacturer(good); err != nil || name != "IFX" {
		t.Errorf("parseManufacturer = %q, %v", name, err)
	}
	for i := range good {
		if name, err := parseManufacturer(good[:i]); err == nil {
			t.Errorf("%d bytes were taken for %q", i, name)
		}
	}
	good[9] = 1
	if _, err := parseManufacturer(good); err == nil {
		t.Error("an error code was taken for an answer")
	}
}

func FuzzDMI(f *testing.F) {
	f.Add([]byte{1, 27, 1, 0, 1, 2, 0, 3, 0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255, 6, 0, 0, 'A', 0, 'B', 0, 0, 127, 4, 2, 0, 0, 0})
	f.Add([]byte{17, 4, 0, 0, 0, 0})
	f.Add([]byte{17, 3, 0, 0})
	f.Fuzz(func(t *testing.T, table []byte) {
		version, err := entryVersion([]byte("_SM3_\x00\x18\x03\x03\x00"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := decodeDMI(table, version)
		if (d == nil) == (err == nil) {
			t.Errorf("decodeDMI = %v, %v", d, err)
		}
	})
}
