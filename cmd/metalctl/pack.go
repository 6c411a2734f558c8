//go:build !ramdisk

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/images/pack"
)

func packNoun(p *program) *cobra.Command {
	return noun("pack", "Signed bundles of drivers and tools that the agent fetches", packKey(p), packBuild(p), packSign(p), packVerify(p),
		packAdd(p), packList(p), packShow(p), packRemove(p))
}

func packBuild(p *program) *cobra.Command {
	var o pack.Options
	var out string
	c := &cobra.Command{
		Use: "build DIR --name N --version V --out FILE", Short: "Pack a folder; the same folder gives the same bytes", Args: exactly("DIR"),
		Example: "  metalctl pack build ./nvidia-driver --name nvidia --version 580.95.05 --kernel-release 6.1.0-56-amd64 --arch amd64 --out nvidia.pack",
		RunE: func(c *cobra.Command, args []string) error {
			if o.Name == "" || o.Version == "" || out == "" {
				return usageError("pack build: --name, --version and --out are needed")
			}
			o.Dir = args[0]
			m, err := pack.Build(c.Context(), o, out)
			if err != nil {
				return err
			}
			return printManifest(p, m)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", "", "name of the pack")
	f.StringVar(&o.Version, "version", "", "version of the pack")
	f.StringVar(&o.KernelRelease, "kernel-release", "", "kernel that its modules are for")
	f.StringVar(&o.Arch, "arch", "", "processor that its programs and modules are for: amd64, arm64")
	f.StringVar(&out, "out", "", "file to write")
	return c
}

var manifestView = view[*pack.Manifest]{
	name: func(m *pack.Manifest) string { return "pack/" + m.Name },
	columns: []column[*pack.Manifest]{
		{"NAME", false, func(m *pack.Manifest) string { return m.Name }},
		{"VERSION", false, func(m *pack.Manifest) string { return m.Version }},
		{"KERNEL", false, func(m *pack.Manifest) string { return orDash(m.KernelRelease) }},
		{"ARCH", false, func(m *pack.Manifest) string { return orDash(m.Arch) }},
		{"SIZE", false, func(m *pack.Manifest) string { return bytesText(m.SizeBytes) }},
		{"KEY", false, func(m *pack.Manifest) string { return orDash(m.KeyID) }},
	},
}

func printManifest(p *program, m *pack.Manifest) error {
	return manifestView.print(p, []*pack.Manifest{m}, true)
}

func packSign(p *program) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "sign FILE --key KEY", Short: "Sign a pack in place, after proving its content", Args: exactly("FILE"), Example: "  metalctl pack sign nvidia.pack --key pack.key",
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usageError("pack sign: --key is needed; make one with: metalctl pack key NAME")
			}
			k, err := pack.LoadPrivateKey(key)
			if err != nil {
				return err
			}
			m, err := pack.Sign(args[0], k)
			if err != nil {
				return err
			}
			return printManifest(p, m)
		},
	}
	c.Flags().StringVar(&key, "key", "", "file with the private key")
	return c
}

func packVerify(p *program) *cobra.Command {
	var keyFile, kernel string
	c := &cobra.Command{
		Use: "verify FILE --keys KEYS", Short: "Verify a pack as the agent does: key, digests, kernel", Args: exactly("FILE"), Example: "  metalctl pack verify nvidia.pack --keys pack.pub",
		RunE: func(c *cobra.Command, args []string) error {
			if keyFile == "" {
				return usageError("pack verify: --keys is needed")
			}
			b, err := os.ReadFile(keyFile)
			if err != nil {
				return fmt.Errorf("read --keys: %w", err)
			}
			keys, err := pack.ParsePublicKeys(b)
			if err != nil {
				return err
			}
			m, err := verifyPack(c.Context(), args[0], keys, kernel)
			if err != nil {
				return err
			}
			return printManifest(p, m)
		},
	}
	c.Flags().StringVar(&keyFile, "keys", "", "file with the public keys that are trusted")
	c.Flags().StringVar(&kernel, "kernel-release", "", "kernel that it must be for")
	return c
}

func verifyPack(ctx context.Context, path string, keys []ed25519.PublicKey, kernel string) (m *pack.Manifest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pack: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return pack.Verify(ctx, bufio.NewReaderSize(f, 1<<20), pack.Trust{Keys: keys, KernelRelease: kernel}, io.Discard)
}

func packKey(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "key NAME", Short: "Make a key pair: NAME.key to sign with, NAME.pub to verify with", Args: exactly("NAME"), Example: "  metalctl pack key pack",
		RunE: func(_ *cobra.Command, args []string) error {
			private, public, err := pack.GenerateKey()
			if err != nil {
				return err
			}
			if err := writeNew(args[0]+".key", private, 0o600); err != nil {
				return err
			}
			if err := writeNew(args[0]+".pub", public, 0o644); err != nil {
				return errors.Join(err, os.Remove(args[0]+".key"))
			}
			fmt.Fprintf(p.stderr, "wrote %s.key and %s.pub\n", args[0], args[0])
			return nil
		},
	}
}

// writeNew writes a file that must not exist.
func writeNew(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return nil
}
