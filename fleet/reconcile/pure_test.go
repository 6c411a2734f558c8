package reconcile

import (
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func inventory() fleet.Inventory {
	return fleet.Inventory{System: fleet.System{Serial: "SN", UUID: "AB"}, CPUs: make([]fleet.CPU, 2), Memory: fleet.Memory{TotalBytes: 1000},
		NICs: make([]fleet.NIC, 1),
		PCI:  []fleet.PCI{{Vendor: "10de", Class: "030200"}, {Vendor: "10de", Class: "068000"}, {Vendor: "15b3", Class: "020700"}, {Vendor: "1234", Class: "030000"}},
		Disks: []fleet.Disk{{Serial: "A", SizeBytes: 10, Transport: "nvme"}, {Serial: "B", SizeBytes: 10, Transport: "sata"}, {Serial: "CD", SizeBytes: 1, BootMedium: true},
			{Serial: "USB", SizeBytes: 1, Removable: true}, {Serial: "RO", SizeBytes: 1, ReadOnly: true}, {Serial: "", SizeBytes: 1}, {Serial: "EMPTY"}}}
}

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		node   fleet.Node
		expect fleet.ClassExpect
		class  string
		want   string
	}{
		"as it must be":          {fleet.Node{Expect: fleet.Expect{Serial: "sn", UUID: "ab"}}, fleet.ClassExpect{CPUs: 2, MemoryBytes: 1000, NVMe: fleet.ExpectNVMe{Count: 1}, NICs: 1, GPUs: fleet.ExpectGPUs{Count: 1}, InfiniBand: fleet.ExpectInfiniBand{Count: 1}}, "c", ""},
		"RAM the firmware keeps": {fleet.Node{}, fleet.ClassExpect{MemoryBytes: 1060}, "c", ""},
		"a module is missing":    {fleet.Node{}, fleet.ClassExpect{MemoryBytes: 1100}, "c", "MC-CLASS-MEMORY memory"},
		"a GPU is missing":       {fleet.Node{}, fleet.ClassExpect{GPUs: fleet.ExpectGPUs{Count: 8}}, "c", "MC-CLASS-GPUS gpus"},
		"several":                {fleet.Node{}, fleet.ClassExpect{CPUs: 4, NICs: 2}, "c", "MC-CLASS-CPU cpus, MC-CLASS-NICS nics"},
		"no class":               {fleet.Node{Class: "gone"}, fleet.ClassExpect{}, "", "MC-CLASS-NONE class"},
		"another machine":        {fleet.Node{BMC: fleet.BMC{UUID: "CD"}}, fleet.ClassExpect{}, "c", "MC-NODE-IDENTITY system/uuid"},
		"another machine than was expected": {fleet.Node{BMC: fleet.BMC{Serial: "SN"}, Expect: fleet.Expect{Serial: "OTHER"}}, fleet.ClassExpect{}, "c",
			"MC-NODE-IDENTITY system/serial"},
		"a disk nobody accepted": {fleet.Node{Accepted: []fleet.AcceptedDevice{{Serial: "A"}}}, fleet.ClassExpect{}, "c", "MC-DEVICE-UNEXPECTED disk/B"},
		"a shelf of accepted disks gone": {fleet.Node{Accepted: []fleet.AcceptedDevice{{Serial: "A"}, {Serial: "B"}, {Serial: "1"}, {Serial: "2"}, {Serial: "3"}, {Serial: "4"}}}, fleet.ClassExpect{}, "c",
			"MC-DEVICE-MISSING disk/1, MC-DEVICE-MISSING disk/2, MC-DEVICE-MISSING disk/3"},
		"an accepted disk gone": {fleet.Node{Accepted: []fleet.AcceptedDevice{{Serial: "A"}, {Serial: "B"}, {Serial: "C"}}}, fleet.ClassExpect{}, "c", "MC-DEVICE-MISSING disk/C"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range Compare(c.node, fleet.Class{Name: c.class, Expect: c.expect}, inventory(), nil) {
				got = append(got, f.Code+" "+f.Component)
				if f.Evidence == "" || f.Hint == "" || f.Blocks == "" {
					t.Errorf("not whole: %+v", f)
				}
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestSimulatedHardwareIsOfSimulatedNodes(t *testing.T) {
	inv := inventory()
	inv.Simulated = "hgx-h200"
	for enrolled, want := range map[bool]string{true: "", false: "MC-NODE-SIMULATED"} {
		got := ""
		for _, f := range Compare(fleet.Node{Simulated: enrolled}, fleet.Class{Name: "c"}, inv, nil) {
			got += f.Code
			if f.Blocks != fleet.BlocksEverything {
				t.Errorf("it blocks %q", f.Blocks)
			}
		}
		if got != want {
			t.Errorf("enrolled as simulated %v: got %q, want %q", enrolled, got, want)
		}
	}
}

func TestBootVerdict(t *testing.T) {
	layout := MediaLayout{HeaderBytes: 40 << 10, KernelOffset: 1 << 20, KernelBytes: 4 << 20}
	n := fleet.Node{Name: "n1", Boot: fleet.BootRecord{Generation: 3}}
	media := func(generation, offset, length int64) fleet.TimelineEntry {
		return fleet.TimelineEntry{Source: "media", Generation: generation, Offset: offset, Length: length}
	}
	console := func(text string) fleet.TimelineEntry {
		return fleet.TimelineEntry{Source: "serial", Generation: 3, Text: text}
	}
	whole, denied := media(3, 0, 6<<20), console(`BdsDxe: failed to load Boot0001 "UEFI CD" from PciRoot(0x0): Access Denied`)
	for name, c := range map[string]struct {
		entries []fleet.TimelineEntry
		code    string
		text    string
		secure  string
		lax     bool // the medium is signed
		sure    bool
	}{
		"nothing was read":               {entries: nil, code: "MC-BOOT-MEDIA-UNREAD", text: "never read"},
		"only an older boot read":        {entries: []fleet.TimelineEntry{media(2, 0, 10<<20)}, code: "MC-BOOT-MEDIA-UNREAD", text: "never read"},
		"another system was started":     {entries: []fleet.TimelineEntry{console("Linux version 5.4")}, code: "MC-BOOT-MEDIA-UNREAD", text: "last line: Linux version 5.4"},
		"only headers were read":         {entries: []fleet.TimelineEntry{media(3, 0x8000, 4096)}, code: "MC-BOOT-FIRMWARE", text: "up to byte 36864"},
		"the kernel was cut":             {entries: []fleet.TimelineEntry{media(3, 0, 40<<10), media(3, 1<<20, 1<<20)}, code: "MC-BOOT-MEDIA-CUT", text: "stopped at byte 2097152, after 1048576 of 4194304"},
		"cut, whatever is denied":        {entries: []fleet.TimelineEntry{media(3, 0, 40<<10), media(3, 1<<20, 1<<20), denied}, code: "MC-BOOT-MEDIA-CUT", text: "Access Denied"},
		"the kernel was read whole":      {entries: []fleet.TimelineEntry{media(3, 0, 40<<10), media(3, 1<<20, 4<<20)}, code: "MC-BOOT-KERNEL", text: "last byte 5242880"},
		"the kernel panicked":            {entries: []fleet.TimelineEntry{whole, console("[    1.000000] Kernel panic - not syncing\n"), console("Rebooting")}, code: "MC-BOOT-KERNEL", text: "died; the console says: [    1.000000] Kernel panic", sure: true},
		"a panic of an older boot":       {entries: []fleet.TimelineEntry{whole, {Source: "serial", Generation: 2, Text: "Kernel panic"}}, code: "MC-BOOT-KERNEL", text: "neither it nor the agent spoke"},
		"the kernel ran":                 {entries: []fleet.TimelineEntry{whole, console("[    0.500000] Run /init as init process"), denied, console("no carrier")}, code: "MC-BOOT-KERNEL", text: "found no way to the server; the console's last line: no carrier"},
		"refused, the console says":      {entries: []fleet.TimelineEntry{whole, denied, console("UEFI Shell")}, code: "MC-BOOT-REFUSED", text: "Access Denied", sure: true},
		"refused, as nothing is signed":  {entries: []fleet.TimelineEntry{whole}, secure: "Enabled", code: "MC-BOOT-REFUSED", text: "is not signed"},
		"signed, and nobody says a word": {entries: []fleet.TimelineEntry{whole}, secure: "Enabled", lax: true, code: "MC-BOOT-KERNEL", text: "neither"},
		"nothing is enforced":            {entries: []fleet.TimelineEntry{whole}, secure: "Disabled", code: "MC-BOOT-KERNEL", text: "neither"},
		"it ran with Secure Boot on":     {entries: []fleet.TimelineEntry{whole, console("Linux version 6.1")}, secure: "Enabled", code: "MC-BOOT-KERNEL", text: "kernel started"},
		"read in pieces out of order":    {entries: []fleet.TimelineEntry{media(3, 3<<20, 2<<20), media(3, 0, 3<<20)}, code: "MC-BOOT-KERNEL", text: "last byte"},
	} {
		t.Run(name, func(t *testing.T) {
			layout := layout
			layout.Signed = c.lax
			err, sure := BootVerdict(n, layout, c.secure, c.entries)
			if sure != c.sure {
				t.Errorf("sure is %v", sure)
			}
			if fleet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) || fleet.HintOf(err) == "" {
				t.Errorf("%s: %v", fleet.CodeOf(err), err)
			}
			if c.code == "MC-BOOT-MEDIA-UNREAD" {
				for _, text := range []string{fleet.HintOf(err), fleet.Codes[c.code].Text} {
					// https is the way that is taken first.
					if a, b := strings.Index(text, "advertise"), strings.Index(text, "listen_boot"); a < 0 || b < a {
						t.Errorf("leads to the wrong address first: %q", text)
					}
				}
			}
		})
	}
}

// TestBootStage: whoever watches a boot sees how far it is.
func TestBootStage(t *testing.T) {
	layout := MediaLayout{KernelOffset: 1 << 20, KernelBytes: 4 << 20}
	n := fleet.Node{Boot: fleet.BootRecord{Generation: 3}}
	media := func(offset, length int64) fleet.TimelineEntry {
		return fleet.TimelineEntry{Source: "media", Generation: 3, Offset: offset, Length: length}
	}
	linux := fleet.TimelineEntry{Source: "serial", Generation: 3, Text: "Linux version 6.1"}
	for name, c := range map[string]struct {
		entries []fleet.TimelineEntry
		text    string
	}{
		"nothing yet":         {nil, "waiting for the agent of boot generation 3"},
		"another system":      {[]fleet.TimelineEntry{linux}, "waiting for the agent of boot generation 3"},
		"the medium is there": {[]fleet.TimelineEntry{media(0, 65536)}, "the BMC has mounted the boot medium, waiting for the agent of boot generation 3"},
		"a quarter":           {[]fleet.TimelineEntry{media(0, 2<<20)}, "the machine has read 25 % of the kernel from its boot medium"},
		"all of it":           {[]fleet.TimelineEntry{media(0, 6<<20)}, "the kernel was read, waiting for the agent of boot generation 3"},
		"it runs":             {[]fleet.TimelineEntry{media(0, 6<<20), linux}, "the kernel runs, waiting for the agent of boot generation 3"},
	} {
		if text := seeBoot(n, layout, c.entries).stage(n, layout); text != c.text {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func FuzzParseInventory(f *testing.F) {
	f.Add([]byte(`{"version":1,"system":{"uuid":"x"},"disks":[{"serial":"A","size_bytes":1}]}`))
	f.Add([]byte(`{"disks":null,"pci":[{}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		inv, err := parseInventory(b)
		if err != nil {
			if fleet.KindOf(err) != fleet.Invalid {
				t.Errorf("kind %s", fleet.KindOf(err))
			}
			return
		}
		for _, d := range inv.WouldErase() {
			if d.Serial == "" || d.SizeBytes == 0 {
				t.Errorf("would erase %+v", d)
			}
		}
		Compare(fleet.Node{Accepted: []fleet.AcceptedDevice{{Serial: "A"}}}, fleet.Class{Name: "c"}, *inv, inv)
	})
}
