package ramdisk

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// elfFile makes an object with one section, as a kernel module is one, or a program without sections that needs no loader.
func elfFile(kind elf.Type, section string, content []byte) []byte {
	names := "\x00.shstrtab\x00" + section + "\x00"
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(kind), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 1}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	h.Shoff = uint64(64 + len(names) + len(content))
	_ = binary.Write(&b, binary.LittleEndian, h)
	b.WriteString(names)
	b.Write(content)
	for _, s := range []elf.Section64{{},
		{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: 64, Size: uint64(len(names))},
		{Name: 11, Type: uint32(elf.SHT_PROGBITS), Off: uint64(64 + len(names)), Size: uint64(len(content))}} {
		_ = binary.Write(&b, binary.LittleEndian, s)
	}
	return b.Bytes()
}

// fakeModule makes a module with the modinfo lines given.
func fakeModule(lines ...string) []byte {
	return elfFile(elf.ET_REL, ".modinfo", []byte(strings.Join(lines, "\x00")+"\x00"))
}

// fakeImage is as much of a kernel as is looked at.
func fakeImage() []byte {
	b := make([]byte, 0x1000)
	copy(b, "MZ")
	copy(b[0x202:], "HdrS")
	return b
}

// fakeModules is a small kernel's lib/modules/RELEASE.
func fakeModules() memory {
	return memory{
		"modules.builtin":                       []byte("kernel/drivers/base/firmware.ko\nkernel/drivers/char/sr-mod.ko\n"),
		"kernel/drivers/nvme/host/nvme.ko":      fakeModule("depends=nvme-core", "alias=pci:v*d*sv*sd*bc01sc08i02*", "license=GPL"),
		"kernel/drivers/nvme/host/nvme-core.ko": fakeModule("depends=", "softdep=pre: crc32c post: other"),
		"kernel/crypto/crc32c_generic.ko":       fakeModule("depends="),
		"kernel/net/8021q/8021q.ko":             fakeModule("depends=mrp,garp"),
		"kernel/net/802/mrp.ko":                 fakeModule("depends="),
		"kernel/net/802/garp.ko":                fakeModule("depends=stp"),
		"kernel/net/802/stp.ko":                 fakeModule("depends=firmware"),
		"kernel/extra/odd.ko":                   fakeModule("depends=absent"),
		"kernel/extra/extra.ko":                 fakeModule("depends="),
	}
}

func fakeKernel() Kernel {
	return Kernel{Release: "6.1.0-99-amd64", From: "test", Image: fakeImage(), Modules: fakeModules()}
}

// fakeAgent is a program that is linked statically.
func fakeAgent() []byte { return elfFile(elf.ET_EXEC, ".text", []byte("code")) }

// debPackage makes a kernel package with data compressed as ext says.
func debPackage(t testing.TB, ext string, k Kernel) []byte {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	put := func(name string, b []byte) {
		if err := w.WriteHeader(&tar.Header{Name: "./" + name, Mode: 0o644, Size: int64(len(b)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	put("boot/vmlinuz-"+k.Release, k.Image)
	put("boot/config-"+k.Release, []byte("CONFIG_X=y"))
	for name, b := range k.Modules.(memory) {
		put("lib/modules/"+k.Release+"/"+name, b)
	}
	put("lib/modules/"+k.Release+"/kernel/sound/big.ko", []byte("left out"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	packed := compress(t, ext, data.Bytes())
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.xz", []byte("odd")}, {"data.tar" + ext, packed}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func compress(t testing.TB, ext string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	switch ext {
	case ".xz":
		w, err := xz.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	case ".zst":
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(data, nil)
	default:
		return data
	}
	return b.Bytes()
}

// writeTree writes files below a temporary folder.
func writeTree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	for name, b := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
