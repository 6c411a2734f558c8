//go:build !ramdisk

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images/pack"
)

// packChecker looks into packs for the server.
type packChecker struct{}

// CheckPack implements server.PackChecker.
func (packChecker) CheckPack(ctx context.Context, path string, keys []string) (p fleet.Pack, err error) {
	trusted, err := pack.ParsePublicKeys([]byte(strings.Join(keys, "\n")))
	if err != nil {
		return p, err
	}
	f, err := os.Open(path)
	if err != nil {
		return p, fmt.Errorf("open the pack: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var parts fleet.PackParts
	read, write := io.Pipe()
	listed := make(chan error, 1)
	go func() {
		err := fleet.Catch(func() error { return pack.List(read, parts.Add) })
		_, rest := io.Copy(io.Discard, read) // all of it is proven, whether it can be listed or not
		listed <- errors.Join(err, rest)
	}()
	m, err := pack.Verify(ctx, bufio.NewReaderSize(f, 1<<20), pack.Trust{Keys: trusted}, write)
	write.CloseWithError(err)
	if unread := <-listed; err == nil && unread != nil {
		err = fleet.Errorf(fleet.Invalid, "MC-PACK-DAMAGED", "the files of the pack cannot be listed: %w", unread).WithHint("metalctl pack build DIR --name %s --version V --out FILE", m.Name)
	}
	if err != nil {
		return p, err
	}
	p = fleet.Pack{Name: m.Name, Version: m.Version, KernelRelease: m.KernelRelease, Arch: m.Arch, UnpackedBytes: m.UnpackedBytes, KeyID: m.KeyID}
	p.Carries, err = parts.Carries(p)
	return p, err
}

// CheckPackKey implements server.PackChecker.
func (packChecker) CheckPackKey(pem string) error {
	_, err := pack.ParsePublicKeys([]byte(pem))
	return err
}

var packView = view[fleet.Pack]{
	name: func(k fleet.Pack) string { return "pack/" + k.ID() },
	columns: []column[fleet.Pack]{
		{"PACK", false, fleet.Pack.ID},
		{"KERNEL", false, func(k fleet.Pack) string { return orDash(k.KernelRelease) }},
		{"ARCH", false, func(k fleet.Pack) string { return orDash(k.Arch) }},
		{"SIZE", false, func(k fleet.Pack) string { return bytesText(k.SizeBytes) }},
		{"UNPACKED", false, func(k fleet.Pack) string { return bytesText(k.UnpackedBytes) }},
		{"SHA256", false, func(k fleet.Pack) string { return k.SHA256[:min(16, len(k.SHA256))] }},
		{"BRINGS", true, func(k fleet.Pack) string { return orDash(brings(k)) }},
		{"KEY", true, func(k fleet.Pack) string { return k.KeyID }},
	},
}

// brings are the parts that a pack carries, with their versions.
func brings(k fleet.Pack) string {
	var out []string
	for _, part := range slices.Sorted(maps.Keys(k.Carries)) {
		out = append(out, part+" "+k.Carries[part])
	}
	return strings.Join(out, ", ")
}

func packAdd(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "add FILE", Short: "Give the server a signed pack; it keeps what a key of the site signed", Args: exactly("FILE"), Example: "  metalctl pack add nvidia.pack",
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open the pack: %w", err)
			}
			defer f.Close()
			m, err := pack.Read(f)
			if err != nil {
				return err
			}
			info, err := f.Stat()
			if err != nil {
				return fmt.Errorf("look at the pack: %w", err)
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return fmt.Errorf("read the pack again: %w", err)
			}
			cl, err := p.client()
			if err != nil {
				return err
			}
			id, last := m.Name+"@"+m.Version, int64(-1)
			made, err := cl.AddPack(c.Context(), id, f, func(sent int64) {
				if pct := sent * 100 / max(1, info.Size()); pct != last && isTerminal(p.stderr) {
					last = pct
					fmt.Fprintf(p.stderr, "\rupload %s %3d%%", id, pct)
				}
			})
			if isTerminal(p.stderr) {
				fmt.Fprintln(p.stderr)
			}
			if err != nil {
				return err
			}
			return packView.print(p, []fleet.Pack{made}, true)
		},
	}
}

func packList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the server's packs", Args: exactly(), Example: "  metalctl pack list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			all, err := cl.Packs(c.Context())
			if err != nil {
				return err
			}
			return packView.print(p, all, false)
		},
	}
}

func packShow(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show PACK", Short: "Show a pack of the server, by NAME@VERSION or sha256:DIGEST", Args: exactly("PACK"), Example: "  metalctl pack show nvidia@580.95.05 -o yaml",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			k, err := cl.Pack(c.Context(), args[0])
			if err != nil {
				return err
			}
			return packView.print(p, []fleet.Pack{k}, true)
		},
	}
}

func packRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove PACK", Short: "Remove a pack that no class wants", Args: exactly("PACK"), Example: "  metalctl pack remove nvidia@570.1",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if err := cl.RemovePack(c.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(p.stderr, "pack/%s: removed\n", args[0])
			return nil
		},
	}
}
