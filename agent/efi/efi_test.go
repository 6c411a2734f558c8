package efi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

var entry = Entry{Label: "debian", PartitionGUID: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, Number: 15, StartLBA: 2048, SizeLBA: 253952,
	Path: `\EFI\debian\shimx64.efi`}

func TestABootEntryHasTheBytesOfTheStandard(t *testing.T) {
	got, err := entry.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	u16 := func(s string) []byte {
		var b []byte
		for _, c := range s + "\x00" {
			b = append(b, byte(c), 0)
		}
		return b
	}
	file := u16(`\EFI\debian\shimx64.efi`)
	want := bytes.Join([][]byte{
		{1, 0, 0, 0}, {byte(42 + 4 + len(file) + 4), 0}, u16("metalctl: debian"),
		{4, 1, 42, 0, 15, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0xe0, 3, 0, 0, 0, 0, 0}, entry.PartitionGUID[:], {2, 2},
		{4, 4, byte(4 + len(file)), 0}, file, {0x7f, 0xff, 4, 0}}, nil)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Fatal(diff)
	}
	o, err := ParseLoadOption(got)
	if err != nil {
		t.Fatal(err)
	}
	if o.Label != "metalctl: debian" || !o.Ours() || o.Path != entry.Path || o.HD == nil || o.HD.GUID != entry.PartitionGUID || o.HD.Number != 15 {
		t.Errorf("parsed as %+v", o)
	}
}

// store is a folder of variables, as efivarfs shows them, with a few that firmware makes.
func store(t *testing.T, order []uint16, boots map[uint16][]byte) FileVars {
	t.Helper()
	dir := t.TempDir()
	v := FileVars{dir}
	for n, data := range boots {
		if err := v.Write(fmt.Sprintf("Boot%04X", n), data); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string][]byte{"BootOrder": numbers(order...), "BootCurrent": {1, 0}, "Boot0000x": {1}, "BootOptionSupport": {1, 0, 0, 0}} {
		if err := v.Write(name, data); err != nil {
			t.Fatal(err)
		}
	}
	v, err := OpenVars(dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// option is an entry as another system made it.
func option(t *testing.T, label string, guid [16]byte) []byte {
	t.Helper()
	e := entry
	e.PartitionGUID = guid
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	o, n, _ := cutUTF16(b[6:])
	if o == "" {
		t.Fatal("no label")
	}
	return bytes.Join([][]byte{b[:6], utf16z(label), b[6+n:]}, nil)
}

func TestOurOldEntriesGoAndOthersStay(t *testing.T) {
	old, err := Entry{Label: "old", PartitionGUID: [16]byte{7}, Number: 1, StartLBA: 1, SizeLBA: 1, Path: `\a`}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	firmware := append([]byte{1, 0, 0, 0, 4, 0}, append(utf16z("UEFI Shell"), 0x7f, 0xff, 4, 0)...)
	vars := store(t, []uint16{1, 0, 2, 3, 9}, map[uint16][]byte{0: firmware, 1: old, 2: option(t, "debian", [16]byte{8}), 3: option(t, "data", [16]byte{5}), 4: {1, 2, 3}})
	out, err := SetBootEntry(vars, Want{Entry: entry, Present: [][16]byte{entry.PartitionGUID, {5}}})
	if err != nil {
		t.Fatal(err)
	}
	want := Outcome{Name: "Boot0001", Removed: []string{"Boot0001 metalctl: old", "Boot0002 debian"}, Order: []string{"Boot0001", "Boot0000", "Boot0003", "Boot0009"}}
	if diff := cmp.Diff(out, want); diff != "" {
		t.Error(diff)
	}
	file, err := os.ReadFile(filepath.Join(vars.dir, "Boot0001-"+globalGUID))
	if err != nil {
		t.Fatal(err)
	}
	b, err := entry.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(file, append([]byte{7, 0, 0, 0}, b...)); diff != "" {
		t.Error(diff)
	}
	next, err := vars.Read("BootNext")
	if err != nil || !bytes.Equal(next, []byte{1, 0}) {
		t.Errorf("BootNext is % x (%v), want 01 00", next, err)
	}
	again, err := SetBootEntry(vars, Want{Entry: entry, Present: [][16]byte{entry.PartitionGUID, {5}}})
	if err != nil {
		t.Fatal(err)
	}
	want.Removed = []string{"Boot0001 metalctl: debian"}
	if diff := cmp.Diff(again, want); diff != "" {
		t.Error("a second run:", diff)
	}
	if removed, _, err := RemoveOurs(vars); err != nil || len(removed) != 1 {
		t.Errorf("RemoveOurs: %v %v", removed, err)
	}
	left, err := vars.Read("BootOrder")
	if err != nil || !bytes.Equal(left, []byte{0, 0, 3, 0, 9, 0}) {
		t.Errorf("the order is % x (%v)", left, err)
	}
}

// fickle is firmware that refuses or forgets one variable.
type fickle struct {
	Vars
	name string
	err  error // nil: accepts and forgets
}

func (f fickle) Write(name string, data []byte) error {
	if name == f.name && data != nil {
		if f.err != nil {
			return fmt.Errorf("write: %w", f.err)
		}
		return f.Vars.Write(name, []byte{0xee, 0xee})
	}
	return f.Vars.Write(name, data)
}

func TestFirmwareThatDoesNotKeepItsVariablesIsAnError(t *testing.T) {
	for _, c := range []struct {
		name, variable string
		err            error
		code           string
	}{
		{"no room for the entry", "Boot0000", unix.ENOSPC, "MC-EFI-FULL"},
		{"no room for the order", "BootOrder", unix.ENOSPC, "MC-EFI-FULL"},
		{"the entry reads back different", "Boot0000", nil, "MC-EFI-READBACK"},
		{"the order reads back different", "BootOrder", nil, "MC-EFI-READBACK"},
		{"BootNext reads back different", "BootNext", nil, "MC-EFI-READBACK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			vars := fickle{store(t, []uint16{3}, map[uint16][]byte{3: option(t, "other", [16]byte{5})}), c.variable, c.err}
			_, err := SetBootEntry(vars, Want{Entry: entry})
			if fleet.CodeOf(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if _, err := vars.Read("Boot0003"); err != nil {
				t.Errorf("the other entry is gone: %v", err)
			}
		})
	}
}

func TestAMachineWithoutVariablesIsTold(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/nowhere"} {
		if _, err := OpenVars(dir); fleet.CodeOf(err) != "MC-EFI-NO-VARS" {
			t.Errorf("%s: got %v", dir, err)
		}
	}
}

// esp makes a FAT volume with mkfs.vfat and mtools, as an image's maker would.
func esp(t *testing.T, bits string, mib int64, files map[string]string) *os.File {
	t.Helper()
	for _, tool := range []string{"mkfs.vfat", "mcopy", "mmd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s (packages dosfstools, mtools) is not here", tool)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "esp")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	run("mkfs.vfat", "-F", bits, "-n", "ESP", path)
	made := map[string]bool{}
	for name, content := range files {
		src := filepath.Join(dir, "src")
		if err := os.WriteFile(src, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, c := range name {
			if c == '/' && !made[name[:i]] {
				made[name[:i]] = true
				run("mmd", "-i", path, "::"+name[:i])
			}
		}
		run("mcopy", "-i", path, src, "::"+name)
	}
	return f
}

func csv(text string) string {
	b := []byte{0xff, 0xfe}
	for _, c := range text {
		b = binary.LittleEndian.AppendUint16(b, uint16(c))
	}
	return string(b)
}

func TestTheLoaderOfAnImageIsFound(t *testing.T) {
	program := string(bytes.Repeat([]byte("MZ program "), 20000))
	for _, c := range []struct {
		name string
		bits string
		mib  int64
		have map[string]string
		want Loader
		code string
	}{
		{"Debian: a CSV names shim", "16", 16, map[string]string{"EFI/debian/BOOTX64.CSV": csv("shimx64.efi,Debian GNU/Linux,,This is the boot entry\n"),
			"EFI/debian/shimx64.efi": program, "EFI/BOOT/BOOTX64.EFI": program, "EFI/BOOT/fbx64.efi": program},
			Loader{`\EFI\debian\shimx64.efi`, "Debian GNU/Linux", `\EFI\debian\BOOTX64.CSV`, true}, ""},
		{"only the fallback, lower case", "32", 40, map[string]string{"efi/boot/bootx64.efi": program}, Loader{FallbackPath, "", "fallback", true}, ""},
		{"a CSV that names nothing here", "12", 2, map[string]string{"EFI/x/BOOTX64.CSV": csv("gone.efi,X,,\n"), "EFI/BOOT/BOOTX64.EFI": program}, Loader{FallbackPath, "", "fallback", true}, ""},
		{"only a well-known name", "16", 16, map[string]string{"EFI/ubuntu/grubx64.efi": program}, Loader{`\EFI\ubuntu\grubx64.efi`, "ubuntu", "well-known name", false}, ""},
		{"an empty volume", "16", 16, nil, Loader{}, "MC-EFI-NO-LOADER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := esp(t, c.bits, c.mib, c.have)
			got, err := FindLoader(f, c.mib<<20)
			if fleet.CodeOf(err) != c.code || (err == nil) != (c.code == "") {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if diff := cmp.Diff(got, c.want); diff != "" {
				t.Error(diff)
			}
			v, err := openFAT(f, c.mib<<20)
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range c.have {
				b, err := v.readFile(name, 1<<20)
				if err != nil || string(b) != content {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(b), err, len(content))
				}
			}
			if _, err := v.lookup("EFI/nothing"); err != fs.ErrNotExist {
				t.Errorf("a missing file: %v", err)
			}
		})
	}
}

func TestWhatIsNoFATIsTold(t *testing.T) {
	if _, err := FindLoader(bytes.NewReader(make([]byte, 1<<20)), 1<<20); fleet.CodeOf(err) != "MC-EFI-ESP" {
		t.Errorf("got %v, want MC-EFI-ESP", err)
	}
}

func FuzzLoadOption(f *testing.F) {
	b, err := entry.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	f.Add([]byte{1, 0, 0, 0, 4, 0, 'a', 0, 0, 0, 0x7f, 0xff, 4, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseLoadOption(b)
		if err == nil && len(o.DevicePath)+len(o.Data) > len(b) {
			t.Errorf("more came out than went in: %+v", o)
		}
	})
}

func FuzzFAT(f *testing.F) {
	boot := make([]byte, 64<<10)
	copy(boot, "\xeb\x3c\x90mkfs.fat\x00\x02\x01\x01\x00\x01\x10\x00\x80\x00\xf8\x01\x00")
	boot[510], boot[511] = 0x55, 0xaa
	copy(boot[512:], []byte{0xf8, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(boot[1024:], "EFI        \x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00")
	f.Add(boot)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := FindLoader(bytes.NewReader(b), int64(len(b)))
		if err == nil && l.Path == "" {
			t.Error("a loader without a path")
		}
	})
}
