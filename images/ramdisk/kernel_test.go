package ramdisk

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func TestFindKernel(t *testing.T) {
	builtin := []byte("kernel/x.ko\n")
	root := writeTree(t, map[string][]byte{
		"boot/vmlinuz-6.1.0-9-amd64": fakeImage(), "lib/modules/6.1.0-9-amd64/modules.builtin": builtin,
		"boot/vmlinuz-6.1.0-56-amd64": fakeImage(), "lib/modules/6.1.0-56-amd64/modules.builtin": builtin,
		"boot/vmlinuz-6.1.0-99-amd64":    fakeImage(), // its modules were removed
		"boot/vmlinuz-6.1.0-70-rt-amd64": fakeImage(), "lib/modules/6.1.0-70-rt-amd64/modules.builtin": builtin,
		"boot/vmlinuz-6.1.0-80-cloud-amd64": fakeImage(), "lib/modules/6.1.0-80-cloud-amd64/modules.builtin": builtin,
		"boot/vmlinuz-6.1.0-1-old": []byte("not a kernel"), "lib/modules/6.1.0-1-old/modules.builtin": builtin,
	})
	old := fakeKernel()
	old.Release = "6.1.0-8-amd64"
	cache := writeTree(t, map[string][]byte{
		"linux-image-6.1.0-8-amd64_6.1.8_amd64.deb":        debPackage(t, ".xz", old),
		"linux-image-6.1.0-99-amd64_6.1.99_amd64.deb":      debPackage(t, ".xz", fakeKernel()),
		"linux-image-amd64_6.1.99_amd64.deb":               []byte("a package that only depends on another"),
		"linux-image-6.1.0-99-cloud-amd64_6.1.9_amd64.deb": []byte("damaged"),
	})
	for _, c := range []struct {
		name, spec, root, cache, release, from, err string
	}{
		{"the newest that is installed, by number and not by letters", "", root, cache, "6.1.0-56-amd64", "vmlinuz-6.1.0-56-amd64", ""},
		{"a flavour", "cloud", root, cache, "6.1.0-80-cloud-amd64", "vmlinuz", ""},
		{"a release", "6.1.0-9-amd64", root, cache, "6.1.0-9-amd64", "vmlinuz", ""},
		{"none is installed, the newest package", "", t.TempDir(), cache, "6.1.0-99-amd64", "6.1.99_amd64.deb", ""},
		{"a package", filepath.Join(cache, "linux-image-6.1.0-8-amd64_6.1.8_amd64.deb"), root, cache, "6.1.0-8-amd64", ".deb", ""},
		{"an unpacked package", root, "/", "", "6.1.0-99-amd64", "", "has no modules"},
		{"a damaged package", "cloud", t.TempDir(), cache, "", "", "not a Debian package"},
		{"a release that is not there", "6.9", root, cache, "", "", "read kernel 6.9"},
		{"a file that is not there", "/no/such.deb", root, cache, "", "", "there is no /no/such.deb"},
		{"a file that is no kernel", "6.1.0-1-old", root, cache, "", "", "is not an x86-64 kernel"},
		{"nothing anywhere", "", t.TempDir(), t.TempDir(), "", "", "no generic kernel is installed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := findKernel(c.spec, c.root, c.cache)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || fleet.CodeOf(err) != "MC-RAMDISK-KERNEL" {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || k.Release != c.release || !strings.Contains(k.From, c.from) {
				t.Errorf("got %v, %v; want %s from %s", k, err, c.release, c.from)
			}
		})
	}
}

func TestReadPackage(t *testing.T) {
	for _, ext := range []string{".xz", ".zst", ""} {
		k, err := readPackage(bytes.NewReader(debPackage(t, ext, fakeKernel())))
		if err != nil {
			t.Errorf("%q: %v", ext, err)
			continue
		}
		if diff := cmp.Diff(k.Modules, Files(fakeModules())); diff != "" || k.Release != "6.1.0-99-amd64" || !bytes.Equal(k.Image, fakeImage()) {
			t.Errorf("%q: kernel %s, modules (-got +want):\n%s", ext, k.Release, diff)
		}
	}
	whole := debPackage(t, ".xz", fakeKernel())
	for _, cut := range []int{0, 7, 30, 100, len(whole) / 2, len(whole) - 5} {
		if _, err := readPackage(bytes.NewReader(whole[:cut])); err == nil {
			t.Errorf("a package cut at %d was accepted", cut)
		}
	}
}

func FuzzReadPackage(f *testing.F) {
	f.Add(debPackage(f, "", fakeKernel()))
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := readPackage(bytes.NewReader(b)); err == nil && (k.Release == "" || k.Modules == nil) {
			t.Errorf("half a kernel: %+v", k)
		}
	})
}

func TestClosure(t *testing.T) {
	files := fakeModules()
	for _, ext := range []string{".xz", ".zst"} { // other distributions compress their modules
		files["kernel/extra/packed"+ext[1:]+".ko"+ext] = compress(t, ext, fakeModule("depends=extra", "alias=x:"+ext))
	}
	tree, err := openModules(files)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tree.closure([]string{"nvme", "8021q", "sr_mod", "not-there", "packedxz", "packedzst"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.missing, []string{"not_there"}); diff != "" {
		t.Errorf("missing (-got +want):\n%s", diff)
	}
	a := newArchive()
	c.install(a, "r", []byte("builtin"))
	want := `kernel/net/8021q/8021q.ko: kernel/net/802/garp.ko kernel/net/802/stp.ko kernel/net/802/mrp.ko
kernel/crypto/crc32c_generic.ko:
kernel/extra/extra.ko:
kernel/net/802/garp.ko: kernel/net/802/stp.ko
kernel/net/802/mrp.ko:
kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko kernel/crypto/crc32c_generic.ko
kernel/drivers/nvme/host/nvme-core.ko: kernel/crypto/crc32c_generic.ko
kernel/extra/packedxz.ko: kernel/extra/extra.ko
kernel/extra/packedzst.ko: kernel/extra/extra.ko
kernel/net/802/stp.ko:
`
	if diff := cmp.Diff(string(a.entries["lib/modules/r/modules.dep"].data), want); diff != "" {
		t.Errorf("modules.dep (-got +want):\n%s", diff)
	}
	want = "alias pci:v*d*sv*sd*bc01sc08i02* nvme\nalias x:.xz packedxz\nalias x:.zst packedzst\n"
	if diff := cmp.Diff(string(a.entries["lib/modules/r/modules.alias"].data), want); diff != "" {
		t.Errorf("modules.alias (-got +want):\n%s", diff)
	}
	if _, err := tree.closure([]string{"odd"}); err == nil || !strings.Contains(err.Error(), "odd needs kernel module absent") {
		t.Errorf("a module without what it needs: %v", err)
	}
}

func FuzzModule(f *testing.F) {
	f.Add(fakeModule("depends=a,b", "softdep=pre: x"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &module{name: "x", data: b}
		_ = m.readInfo() // must return, whatever the bytes
	})
}
