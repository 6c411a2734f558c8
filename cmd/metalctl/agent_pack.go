package main

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/images/pack"
)

// packTimeout is how long a pack may take to arrive: some GB over a slow network.
const packTimeout = 30 * time.Minute

// agentPack is in the ramdisk's build, too: there it brings drivers and tools to a machine that has booted.
func agentPack(p *program) *cobra.Command {
	var keys, dir, kernel string
	fetch := &cobra.Command{
		Use: "fetch URL --keys FILE --dir DIR", Short: "Fetch a pack, prove its signature, and unpack it", Args: exactly("URL"),
		Example: "  metalctl agent pack fetch https://packs.example.org/nvidia.pack --keys ops.pub --dir /run/packs/nvidia",
		RunE: func(c *cobra.Command, args []string) error {
			if keys == "" || dir == "" {
				return usageError("agent pack fetch: --keys and --dir are needed")
			}
			b, err := os.ReadFile(keys)
			if err != nil {
				return fmt.Errorf("read the keys: %w", err)
			}
			trusted, err := pack.ParsePublicKeys(b)
			if err != nil {
				return err
			}
			if kernel == "" {
				if kernel, err = kernelRelease(); err != nil {
					return err
				}
			}
			m, err := pack.Install(c.Context(), pack.Source{Client: &http.Client{Timeout: packTimeout}, URL: args[0]}, pack.Trust{Keys: trusted, KernelRelease: kernel, Arch: runtime.GOARCH}, dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "%s %s is in %s\n", m.Name, m.Version, dir)
			return nil
		},
	}
	f := fetch.Flags()
	f.StringVar(&keys, "keys", "", "file with the public keys that are trusted")
	f.StringVar(&dir, "dir", "", "folder to make; it appears whole or not at all")
	f.StringVar(&kernel, "kernel-release", "", "kernel that the pack must be for (default: the one that runs)")
	return noun("pack", "Signed bundles of drivers and tools", fetch)
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
