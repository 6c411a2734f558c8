package ramdisk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/foxboron/go-uefi/authenticode"
)

// needLong skips what belongs to `make test-long`: boots that take minutes without hardware virtualisation.
func needLong(t *testing.T) {
	t.Helper()
	if os.Getenv("METALCTL_LONG") != "1" {
		t.Skip("long: takes minutes; set METALCTL_LONG=1")
	}
}

// snakeoil returns the files of the key that Debian's ovmf package enrols in its test firmware, decrypted.
func snakeoil(t *testing.T) (key, cert string) {
	t.Helper()
	encrypted := "/usr/share/ovmf/PkKek-1-snakeoil.key"
	cert = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
	needFiles(t, encrypted, cert)
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	key = filepath.Join(t.TempDir(), "db.key")
	if b, err := exec.Command(openssl, "pkey", "-in", encrypted, "-passin", "pass:snakeoil", "-out", key).CombinedOutput(); err != nil {
		t.Fatalf("decrypt the test key: %v\n%s", err, b)
	}
	return key, cert
}

func TestSigned(t *testing.T) {
	needFiles(t, DefaultStub)
	key, cert, err := LoadSigner(snakeoil(t))
	if err != nil {
		t.Fatal(err)
	}
	stub, err := os.ReadFile(DefaultStub)
	if err != nil {
		t.Fatal(err)
	}
	uki, err := assembleUKI(stub, []section{{".osrel", []byte("ID=metalctl\n")}, {".linux", bytes.Repeat([]byte("kernel"), 1000)}})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signPE(uki, key, cert)
	if err != nil {
		t.Fatal(err)
	}
	for name, image := range map[string][]byte{"as signed": signed, "one bit changed": flip(signed, bytes.Index(signed, []byte("kernelkernel")))} {
		pe, err := authenticode.Parse(bytes.NewReader(image))
		if err != nil {
			t.Fatal(err)
		}
		ok, err := pe.Verify(cert)
		if want := name == "as signed"; ok != want {
			t.Errorf("%s: verified %v (%v), want %v", name, ok, err, want)
		}
	}
}

// TestFullSize builds the product's own medium: all module sets, the generic kernel and the real agent stay under the limit.
func TestFullSize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the agent and unpacks a kernel package")
	}
	needFiles(t, DefaultStub)
	o := Options{Agent: buildAgent(t, "../../cmd/metalctl"), Kernel: needKernel(t, "generic")}
	start := time.Now()
	iso, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s\nbuilt in %.1f s", describe(iso), time.Since(start).Seconds())
	if iso.Size >= MaxSize {
		t.Errorf("the medium has %d bytes, the limit is %d", iso.Size, MaxSize)
	}
	if strings.HasPrefix(iso.KernelRelease, "6.1.") && len(iso.Missing) > 0 {
		t.Errorf("Debian 12's kernel lacks %v", iso.Missing)
	}
	for _, set := range moduleSets { // and the sets are there, not only small
		if len(set.modules) == 0 {
			t.Errorf("module set %s is empty", set.name)
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// TestBootSecure boots with Secure Boot and the test keys of Debian's ovmf package: signed runs, unsigned is refused.
func TestBootSecure(t *testing.T) {
	needLong(t)
	needFiles(t, DefaultStub)
	key, cert, err := LoadSigner(snakeoil(t))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Agent: buildInit(t), Kernel: needKernel(t, "cloud"), Lab: true}
	secure := machine{secure: true, code: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", vars: "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd",
		args: cdOn("scsi")}
	unsigned, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	o.SignKey, o.SignCert = key, cert
	signed, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !signed.Signed || unsigned.Signed {
		t.Errorf("signed: %v and %v, want true and false", signed.Signed, unsigned.Signed)
	}
	t.Run("signed", func(t *testing.T) {
		log := qemu(t, writeMedium(t, signed, testCredential(t, "hgx-001.example", nil)), secure)
		wantLines(t, log, "TEST secure-boot true", "TEST credential node=hgx-001.example", "TEST done")
	})
	t.Run("unsigned", func(t *testing.T) {
		log := qemu(t, writeMedium(t, unsigned, testCredential(t, "hgx-001.example", nil)), secure, "Access Denied", "TEST done")
		wantLines(t, log, "Access Denied")
		if strings.Contains(log, "Linux version") {
			t.Error("the unsigned kernel ran")
		}
	})
}

// TestBootGeneric boots what a real server boots: the generic kernel with all module sets, from a USB CD as a BMC presents it.
func TestBootGeneric(t *testing.T) {
	needLong(t)
	needFiles(t, DefaultStub)
	iso, err := Build(t.Context(), Options{Agent: buildInit(t), Kernel: needKernel(t, "generic")})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(describe(iso))
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	log := qemu(t, writeMedium(t, iso, testCredential(t, "hgx-001.example", nil)), machine{args: append(cdOn("usb"),
		"-netdev", "user,id=n0", "-device", "e1000e,netdev=n0",
		"-drive", "if=none,id=d0,format=raw,file="+disk, "-device", "nvme,drive=d0,serial=S1")})
	wantLines(t, log, "TEST credential node=hgx-001.example", "/sys/block/nvme0n1", "TEST libc 2.",
		"TEST medium node=hgx-001.example", "TEST network link=eth0", "TEST done")
}
