package ramdisk

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/metalctl/metalctl/fleet"
)

// fakeISO is a medium that is laid out like a real one and boots nothing.
func fakeISO(t testing.TB) *ISO {
	t.Helper()
	iso, err := assembleISO(bytes.Repeat([]byte("unified kernel image "), 50000), "6.1.0-99-amd64", false)
	if err != nil {
		t.Fatal(err)
	}
	return iso
}

func TestBuildIsReproducible(t *testing.T) {
	needFiles(t, DefaultStub)
	var sums []string
	for range 2 {
		iso, err := Build(t.Context(), Options{Agent: fakeAgent(), Kernel: fakeKernel(), Roots: os.DevNull})
		if err != nil {
			t.Fatal(err)
		}
		var total int64
		for _, p := range iso.Parts {
			total += p.Compressed
		}
		if total != iso.Size {
			t.Errorf("the parts are %d bytes together, the medium has %d", total, iso.Size)
		}
		sums = append(sums, iso.SHA256)
	}
	if sums[0] != sums[1] {
		t.Error("the same input gave different media")
	}
}

func TestBuildRefuses(t *testing.T) {
	needFiles(t, DefaultStub)
	good := func() Options { return Options{Agent: fakeAgent(), Kernel: fakeKernel(), Roots: os.DevNull} }
	notPE := filepath.Join(writeTree(t, map[string][]byte{"stub": []byte("hello")}), "stub")
	for _, c := range []struct {
		name string
		edit func(o *Options)
		code string
		want string
	}{
		{"no agent", func(o *Options) { o.Agent = nil }, "MC-RAMDISK-AGENT", "not a program for linux/amd64"},
		{"an agent that is a script", func(o *Options) { o.Agent = []byte("#!/bin/sh\n") }, "MC-RAMDISK-AGENT", "not a program"},
		{"no kernel", func(o *Options) { o.Kernel = Kernel{} }, "MC-RAMDISK-KERNEL", "no kernel was given"},
		{"a kernel without modules", func(o *Options) { o.Kernel.Modules = memory{} }, "MC-RAMDISK-KERNEL", "there are none"},
		{"an extra module that is not there", func(o *Options) { o.ExtraModules = []string{"extra", "zfs"} }, "MC-RAMDISK-KERNEL", "has no module zfs"},
		{"a stub that is not there", func(o *Options) { o.Stub = "/no/stub" }, "MC-RAMDISK-STUB", "no such file"},
		{"a stub that is no program", func(o *Options) { o.Stub = notPE }, "MC-RAMDISK-STUB", "not a PE file"},
		{"a key without a certificate", func(o *Options) { o.SignKey = new(rsa.PrivateKey) }, "MC-RAMDISK-SIGN", "belong together"},
		{"certificates that are not there", func(o *Options) { o.Roots = "/no/roots" }, "MC-RAMDISK-AGENT", "no such file"},
		{"more than El Torito can name", func(o *Options) { o.Kernel.Image = append(o.Kernel.Image, noise(t, 33<<20)...) }, "MC-RAMDISK-SIZE", "El Torito"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good()
			c.edit(&o)
			iso, err := Build(t.Context(), o)
			if err == nil || iso != nil || fleet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s %q", err, c.code, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, good()); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled build: %v", err)
	}
}

func noise(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestInitramfs reads the segments back with another cpio implementation.
func TestInitramfs(t *testing.T) {
	o := Options{Agent: fakeAgent(), Kernel: fakeKernel(), Roots: os.DevNull, ExtraModules: []string{"extra"}}
	segments, _, err := o.segments()
	if err != nil {
		t.Fatal(err)
	}
	plain := map[string][]byte{}
	for _, s := range segments {
		plain[s.name] = s.plain
	}
	if err := compressAll(t.Context(), segments, zstd.SpeedDefault); err != nil {
		t.Fatal(err)
	}
	got, inodes := map[string]string{}, map[int64]string{}
	for _, s := range segments {
		d, err := zstd.NewReader(bytes.NewReader(s.packed))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(d)
		d.Close()
		if err != nil || !bytes.Equal(raw, plain[s.name]) {
			t.Fatalf("segment %s does not unpack to what went in: %v", s.name, err)
		}
		r := cpio.NewReader(bytes.NewReader(raw))
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := inodes[h.Inode]; ok {
				t.Errorf("%s and %s have one inode", h.Name, other)
			}
			inodes[h.Inode] = h.Name
			got[h.Name] = string(b)
		}
	}
	if got["init"] != string(fakeAgent()) {
		t.Error("/init is not the agent")
	}
	for _, name := range []string{"dev/console", "proc", "sys", "lib/modules/6.1.0-99-amd64/kernel/extra/extra.ko",
		"lib/modules/6.1.0-99-amd64/modules.dep", "etc/hosts"} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
}

// TestPeersReadTheMedium asks mtools and xorriso what they find.
func TestPeersReadTheMedium(t *testing.T) {
	for _, tool := range []string{"mcopy", "xorriso"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	iso := fakeISO(t)
	dir := t.TempDir()
	file := writeMedium(t, iso, []byte(`{"node":"x"}`))
	out, err := exec.Command("xorriso", "-indev", file, "-report_el_torito", "plain", "-osirrox", "on", "-extract", "/ESP.IMG", dir+"/esp").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"Volume id    : 'METALCTL'", "UEFI  y   none", "/ESP.IMG"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("xorriso does not say %q:\n%s", want, out)
		}
	}
	for name, want := range map[string][]byte{
		programPath:    bytes.Repeat([]byte("unified kernel image "), 50000),
		credentialPath: append([]byte(`{"node":"x"}`), bytes.Repeat([]byte(" "), fleet.CredentialWindow-12)...),
	} {
		got, err := exec.Command("mcopy", "-n", "-i", dir+"/esp", "::/"+name, "-").Output()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("mcopy reads %d bytes of %s, want %d: %v", len(got), name, len(want), err)
		}
	}
	if fsck, err := exec.LookPath("fsck.fat"); err == nil {
		if out, err := exec.Command(fsck, "-n", dir+"/esp").CombinedOutput(); err != nil {
			t.Errorf("fsck.fat: %v\n%s", err, out)
		}
	}
}

func TestFATClusters(t *testing.T) {
	for _, size := range []int{0, 1, 5000, 1 << 20, 9 << 20, 31 << 20} {
		img, offsets, err := writeFAT16("TEST", 1, []espFile{{"EFI/BOOT/BOOTX64.EFI", bytes.Repeat([]byte{7}, size)}, {"a/long name.text", []byte("x")}})
		if err != nil {
			t.Fatal(err)
		}
		perCluster, fat := int(img[13]), int(img[22])|int(img[23])<<8
		clusters := (len(img)/fatSector - 1 - 2*fat - fatRootSlots*32/fatSector) / perCluster
		if clusters < fatMinCluster || clusters > fatMaxCluster || fat*fatSector < 2*(clusters+2) {
			t.Errorf("%d bytes: %d clusters of %d sectors, table of %d", size, clusters, perCluster, fat)
		}
		if at := offsets["a/long name.text"]; img[at] != 'x' {
			t.Errorf("%d bytes: the file is not at %d", size, at)
		}
	}
	if _, _, err := writeFAT16("TEST", 1, []espFile{{"a//b", nil}}); err == nil {
		t.Error("a path with an empty name was accepted")
	}
}

func TestOverlay(t *testing.T) {
	iso := fakeISO(t)
	cred := []byte(`{"node":"hgx-001"}`)
	o, err := iso.Overlay(cred)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, iso.Size)
	if _, err := o.ReadAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	want := contents(t, iso)
	copy(want[iso.Window.Offset:], cred)
	if !bytes.Equal(whole, want) {
		t.Fatal("the overlaid medium is not the shared one with the credential")
	}
	// Ranges that begin and end anywhere around the window.
	at := iso.Window.Offset
	for _, from := range []int64{0, at - 1, at, at + 1, at + 5, at + int64(len(cred)) - 1, at + int64(len(cred)), at + iso.Window.Size, iso.Size - 3} {
		for _, n := range []int64{0, 1, 2, 7, 4096, 40000} {
			p := make([]byte, n)
			got, err := o.ReadAt(p, from)
			end := min(from+n, iso.Size)
			if !bytes.Equal(p[:got], want[from:end]) || (err == io.EOF) != (from+n > iso.Size) {
				t.Errorf("%d bytes from %d: got %d, %v", n, from, got, err)
			}
		}
	}
	cred[2] = 'X' // the caller's buffer is its own
	if _, err := o.ReadAt(whole, 0); err != nil || !bytes.Equal(whole, want) {
		t.Error("the overlay shares the caller's buffer")
	}
	if bytes.Contains(contents(t, iso), []byte("hgx-001")) {
		t.Error("the shared medium was changed")
	}
	for size, code := range map[int]string{0: "", fleet.CredentialWindow: "", fleet.CredentialWindow + 1: "MC-RAMDISK-CREDENTIAL"} {
		if _, err := iso.Overlay(make([]byte, size)); fleet.CodeOf(err) != code {
			t.Errorf("%d bytes: %v, want %q", size, err, code)
		}
	}
}

func contents(t testing.TB, iso *ISO) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := iso.WriteTo(&b); err != nil || n != iso.Size {
		t.Fatalf("%d of %d bytes, %v", n, iso.Size, err)
	}
	return b.Bytes()
}

// TestLoad: a medium that is held in memory stays what it was, and one that was changed before is refused.
func TestLoad(t *testing.T) {
	data := contents(t, fakeISO(t))
	path := filepath.Join(t.TempDir(), "boot.iso")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	held, err := opened.Load()
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(data)
	changed[len(changed)/2] ^= 1
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(contents(t, held), data) {
		t.Error("what is held in memory follows the file")
	}
	if _, err := opened.Load(); fleet.CodeOf(err) != "MC-RAMDISK-ISO" {
		t.Errorf("a changed file: %v", err)
	}
}

func TestOpen(t *testing.T) {
	iso := fakeISO(t)
	path := filepath.Join(t.TempDir(), "boot.iso")
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data := contents(t, iso)
	write(data)
	got, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	view := func(i *ISO) []any { return []any{i.Size, i.SHA256, i.Window, i.KernelRelease, i.Signed} }
	if diff := cmp.Diff(view(got), view(iso)); diff != "" {
		t.Errorf("opened (-got +built):\n%s", diff)
	}
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(data); f(b); return b }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "too short"},
		{"zeros", make([]byte, iso.Size), "not an ISO 9660 volume"},
		{"cut short", data[:iso.Size-2048], "bytes instead of"},
		{"another label", edit(func(b []byte) { copy(b[isoPrimary*isoSector+40:], "DEBIAN  ") }), "not an ISO 9660 volume"},
		{"no mark", edit(func(b []byte) { b[isoPrimary*isoSector+isoAppUse] = 'X' }), "no credential window"},
		{"what one node was served", edit(func(b []byte) { b[iso.Window.Offset] = '{' }), "window is not empty"},
	} {
		write(c.data)
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), c.want) || fleet.CodeOf(err) != "MC-RAMDISK-ISO" {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Open(path + ".none"); fleet.CodeOf(err) != "MC-RAMDISK-ISO" {
		t.Errorf("a file that is not there: %v", err)
	}
}

func FuzzParseISO(f *testing.F) {
	iso := fakeISO(f)
	f.Add(contents(f, iso)[:isoESP*isoSector])
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := parseISO(bytes.NewReader(b), int64(len(b))); err == nil && i.Window.Offset+i.Window.Size > int64(len(b)) {
			t.Errorf("a window at %d in %d bytes", i.Window.Offset, len(b))
		}
	})
}

func FuzzAssembleUKI(f *testing.F) {
	if stub, err := os.ReadFile(DefaultStub); err == nil {
		f.Add(stub[:4096])
	}
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, stub []byte) {
		_, _ = assembleUKI(stub, []section{{".linux", []byte("x")}}) // must return, whatever the bytes
	})
}
