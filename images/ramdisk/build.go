// Package ramdisk builds the boot medium of the agent: an initramfs, a unified kernel image and an ISO that boots under UEFI.
package ramdisk

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/metalctl/metalctl/fleet"
)

// Defaults of Options. The kernel takes one 8250 line as its console, and none at all when it is not the first line named, so that
// a BMC on another line is served by the credential's console, which the agent opens beside the kernel's.
const (
	DefaultStub    = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	DefaultCmdline = "console=tty0 console=ttyS0,115200n8 loglevel=6 panic=60"
	defaultRoots   = "/etc/ssl/certs/ca-certificates.crt"
)

// MaxSize is the size in bytes that an ISO with all module sets and the generic kernel stays under.
const MaxSize = 25 << 20

// credentialPath is where systemd-stub looks for the node's credential; it hands it on as /.extra/credentials/node.cred.
const (
	programPath    = "EFI/BOOT/BOOTX64.EFI"
	credentialPath = programPath + ".extra.d/node.cred"
)

// Options says what to build a boot medium from. Agent and Kernel are needed; zero values of the rest are the defaults.
type Options struct {
	// Agent is the program that becomes /init: the `ramdisk` build of metalctl for linux/amd64.
	Agent []byte
	// Kernel comes from FindKernel.
	Kernel Kernel
	// Lab compresses less, for media that are rebuilt often and read from memory.
	Lab bool
	// Stub is the path of systemd-stub; default DefaultStub.
	Stub string
	// SignKey and SignCert sign the image for Secure Boot; both or none.
	SignKey  crypto.Signer
	SignCert *x509.Certificate
	// ExtraModules go into the ramdisk beside the built-in sets; one that the kernel lacks is an error.
	ExtraModules []string
	// Cmdline is the kernel's command line; default DefaultCmdline.
	Cmdline string
	// Roots is the path of a PEM bundle for the agent's own https calls; default: Debian's, where it is installed.
	Roots string
}

// Part says where bytes of the ISO went.
type Part struct {
	Name string
	// Bytes is the size of the content, Compressed what it takes in the ISO.
	Bytes, Compressed int64
}

// Build makes a boot medium in memory; nothing is written to disk. The same inputs give the same bytes.
// Errors are of kind Invalid or NotFound and name the input that is at fault.
func Build(ctx context.Context, o Options) (*ISO, error) {
	stub, err := o.check()
	if err != nil {
		return nil, err
	}
	segments, missing, err := o.segments()
	if err != nil {
		return nil, err
	}
	level := zstd.SpeedBetterCompression
	if o.Lab {
		level = zstd.SpeedDefault
	}
	if err := compressAll(ctx, segments, level); err != nil {
		return nil, err
	}
	var initrd []byte
	for _, s := range segments {
		initrd = append(initrd, s.packed...)
	}
	uki, err := assembleUKI(stub, []section{
		{".osrel", []byte("ID=metalctl\nNAME=metalctl\nPRETTY_NAME=\"metalctl agent\"\nVERSION_ID=\"" + o.Kernel.Release + "\"\n")},
		{".cmdline", []byte(o.Cmdline)},
		{".initrd", initrd},
		{".linux", o.Kernel.Image},
	})
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-STUB", "assemble the unified kernel image from %s: %w", o.Stub, err).
			WithHint("apt-get install systemd-boot-efi")
	}
	if o.SignKey != nil {
		if uki, err = signPE(uki, o.SignKey, o.SignCert); err != nil {
			return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-SIGN", "%w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	iso, err := assembleISO(uki, o.Kernel.Release, o.SignKey != nil)
	if err != nil {
		return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-SIZE", "%w", err).WithHint("use fewer extra modules, or a smaller kernel")
	}
	iso.Missing = missing
	iso.account(segments, len(stub), o.Kernel.Image, len(uki))
	return iso, nil
}

// check fills in defaults and refuses what cannot work; it returns the stub.
func (o *Options) check() ([]byte, error) {
	if o.Kernel.Modules == nil || len(o.Kernel.Image) == 0 {
		return nil, noKernel("no kernel was given")
	}
	return o.stub()
}

// stub is check without the kernel.
func (o *Options) stub() ([]byte, error) {
	if o.Stub == "" {
		o.Stub = DefaultStub
	}
	if o.Cmdline == "" {
		o.Cmdline = DefaultCmdline
	}
	if f, err := elf.NewFile(bytes.NewReader(o.Agent)); err != nil || f.Machine != elf.EM_X86_64 {
		return nil, fleet.Errorf(fleet.Invalid, "MC-RAMDISK-AGENT", "the agent is not a program for linux/amd64").WithHint("make build")
	}
	if (o.SignKey == nil) != (o.SignCert == nil) {
		return nil, noSigner("a signing key and a certificate belong together")
	}
	stub, err := os.ReadFile(o.Stub)
	if err != nil {
		return nil, fleet.Errorf(fleet.NotFound, "MC-RAMDISK-STUB", "read systemd-stub: %w", err).WithHint("apt-get install systemd-boot-efi")
	}
	return stub, nil
}

// segment is one cpio archive of the initramfs; the kernel unpacks several in a row, each compressed by itself.
type segment struct {
	name   string
	raw    int64 // content in bytes
	plain  []byte
	packed []byte
}

func (o *Options) segments() (out []*segment, missing []string, err error) {
	tree, err := openModules(o.Kernel.Modules)
	if err != nil {
		return nil, nil, noKernel("kernel %s: %w", o.Kernel.Release, err)
	}
	var names []string
	for _, set := range moduleSets {
		names = append(names, set.modules...)
	}
	c, err := tree.closure(names)
	if err != nil {
		return nil, nil, noKernel("kernel %s: %w", o.Kernel.Release, err)
	}
	missing = c.missing
	if len(o.ExtraModules) > 0 {
		if c, err = tree.closure(append(append([]string(nil), names...), o.ExtraModules...)); err != nil {
			return nil, nil, noKernel("kernel %s: %w", o.Kernel.Release, err)
		}
		if extra := c.missing[len(missing):]; len(extra) > 0 {
			return nil, nil, noKernel("kernel %s has no module %s", o.Kernel.Release, extra[0])
		}
	}
	builtin, err := o.Kernel.Modules.Read("modules.builtin")
	if err != nil {
		return nil, nil, noKernel("kernel %s: %w", o.Kernel.Release, err)
	}

	agent, modules, base := newArchive(), newArchive(), newArchive()
	agent.file("init", 0o755, o.Agent)
	c.install(modules, o.Kernel.Release, builtin)
	if err := o.base(base); err != nil {
		return nil, nil, err
	}
	inode := 1
	for _, a := range []struct {
		name string
		*archive
	}{{"libc and tree", base}, {"modules", modules}, {"agent", agent}} {
		out = append(out, &segment{name: a.name, raw: a.size(), plain: a.bytes(inode)})
		inode += len(a.entries)
	}
	return out, missing, nil
}

// base is the tree that the agent finds: empty folders to mount on, a console, libc, and roots for https.
func (o *Options) base(a *archive) error {
	for _, dir := range []string{"dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var"} {
		a.add(entry{name: dir, mode: typeDir | 0o755})
	}
	a.add(entry{name: "dev/console", mode: typeChar | 0o600, major: 5, minor: 1})
	a.add(entry{name: "dev/null", mode: typeChar | 0o666, major: 1, minor: 3})
	a.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/init\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\n"))
	a.file("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	if err := installLibc(a, o.Agent, "/"); err != nil {
		return fleet.Errorf(fleet.Invalid, "MC-RAMDISK-AGENT", "%w", err).WithHint("build the agent on this machine: make build")
	}
	path := o.Roots
	if path == "" {
		path = defaultRoots
	}
	roots, err := os.ReadFile(path)
	if o.Roots == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fleet.Errorf(fleet.NotFound, "MC-RAMDISK-AGENT", "read the certificates for the agent: %w", err).WithHint("apt-get install ca-certificates")
	}
	a.file(defaultRoots, 0o644, roots)
	return nil
}

// compressAll packs every segment into a zstd frame of its own, side by side.
func compressAll(ctx context.Context, segments []*segment, level zstd.EncoderLevel) error {
	errs := make([]error, len(segments))
	var wg sync.WaitGroup
	for i, s := range segments {
		wg.Go(func() {
			if errs[i] = ctx.Err(); errs[i] != nil {
				return
			}
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
			if err != nil {
				errs[i] = err
				return
			}
			s.packed = enc.EncodeAll(s.plain, nil)
			s.plain = nil
			errs[i] = enc.Close()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// assembleISO lays uki and the empty credential window out on a volume.
func assembleISO(uki []byte, release string, signed bool) (*ISO, error) {
	sum := sha256.Sum256(uki)
	esp, offsets, err := writeFAT16(fleet.VolumeLabel, uint32(sum[0])<<24|uint32(sum[1])<<16|uint32(sum[2])<<8|uint32(sum[3]), []espFile{
		{programPath, uki},
		{credentialPath, bytes.Repeat([]byte{' '}, fleet.CredentialWindow)},
	})
	if err != nil {
		return nil, err
	}
	w := fleet.Window{Offset: isoESP*isoSector + offsets[credentialPath], Size: fleet.CredentialWindow}
	data, err := writeISO(esp, w, hex.EncodeToString(sum[:]), release, signed)
	if err != nil {
		return nil, err
	}
	return newISO(bytes.NewReader(data), int64(len(data)), w, release, signed)
}
