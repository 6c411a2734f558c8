//go:build !ramdisk

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images/ramdisk"
)

// payload holds agent.zst, the ramdisk build of this program, put there by `make build`; so that one file is the whole product.
//
//go:embed all:payload
var payload embed.FS

// embeddedAgent returns the agent that this program carries.
func embeddedAgent() ([]byte, error) {
	z, err := payload.ReadFile("payload/agent.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fleet.Errorf(fleet.NotFound, "MC-RAMDISK-AGENT", "this metalctl was built without its agent").
			WithHint("build it with `make build`, or give --agent FILE")
	}
	if err != nil {
		return nil, fmt.Errorf("read the embedded agent: %w", err)
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		return nil, fmt.Errorf("open the embedded agent: %w", err)
	}
	defer d.Close()
	return d.DecodeAll(z, nil)
}

type ramdiskOptions struct {
	agent, kernel, key, cert, out, cmdline string
	lab                                    bool
	modules                                []string
}

func ramdiskNoun(p *program) *cobra.Command {
	var o ramdiskOptions
	build := &cobra.Command{
		Use: "build -o FILE", Short: "Build the ISO that nodes boot the agent from", Args: exactly(),
		Long: `Build makes the boot medium from a Debian kernel and the agent that this program carries: one unified kernel image in an EFI system
partition, reproducible byte for byte, signed for Secure Boot where a key is given. It prints where the bytes go.`,
		Example: "  metalctl ramdisk build -o metalctl.iso\n  metalctl ramdisk build --kernel cloud --lab -o lab.iso",
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), p) },
	}
	f := build.Flags()
	o.addFlags(f.StringVar, f.BoolVar, f.StringSliceVar)
	return noun("ramdisk", "The system that nodes boot: build it, try it on a few, roll it out and back", build, ramdiskList(p), ramdiskCanary(p), ramdiskPromote(p), ramdiskRollback(p))
}

// addFlags adds the flags that the server shares with `ramdisk build`.
func (o *ramdiskOptions) addFlags(str func(*string, string, string, string), boolean func(*bool, string, bool, string), slice func(*[]string, string, []string, string)) {
	str(&o.agent, "agent", "", "the agent's program (default: the one that this program carries)")
	str(&o.kernel, "kernel", "", "kernel: a release, a .deb, a folder, generic or cloud (default: the newest installed generic one)")
	str(&o.key, "sign-key", "", "PEM key to sign with for Secure Boot")
	str(&o.cert, "sign-cert", "", "PEM certificate of the signing key")
	str(&o.cmdline, "cmdline", "", "the kernel's command line (default: consoles on tty0 and ttyS0)")
	boolean(&o.lab, "lab", false, "compress less: for media that are rebuilt often")
	slice(&o.modules, "module", nil, "further kernel modules")
}

func (o *ramdiskOptions) build(ctx context.Context) (*ramdisk.ISO, error) {
	ro, err := o.options()
	if err != nil {
		return nil, err
	}
	if ro.Kernel, err = ramdisk.FindKernel(o.kernel); err != nil {
		return nil, err
	}
	return ramdisk.Build(ctx, ro)
}

// inputs is a digest of what build would read.
func (o *ramdiskOptions) inputs() (string, error) {
	ro, err := o.options()
	if err != nil {
		return "", err
	}
	return ramdisk.Inputs(o.kernel, ro)
}

// options are those of the build, without the kernel.
func (o *ramdiskOptions) options() (ramdisk.Options, error) {
	ro := ramdisk.Options{Lab: o.lab, ExtraModules: o.modules, Cmdline: o.cmdline}
	var err error
	if o.agent != "" {
		if ro.Agent, err = os.ReadFile(o.agent); err != nil {
			return ro, fmt.Errorf("read --agent: %w", err)
		}
	} else if ro.Agent, err = embeddedAgent(); err != nil {
		return ro, err
	}
	if (o.key == "") != (o.cert == "") {
		return ro, usageError("--sign-key and --sign-cert go together")
	}
	if o.key != "" {
		ro.SignKey, ro.SignCert, err = ramdisk.LoadSigner(o.key, o.cert)
	}
	return ro, err
}

func (o *ramdiskOptions) run(ctx context.Context, p *program) error {
	o.out = p.flags.output // -o names the file here, as with every compiler
	if o.out == "" {
		return usageError("ramdisk build: -o FILE is missing")
	}
	iso, err := o.build(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"PART", "BYTES", "IN THE ISO"}}
	for _, part := range iso.Parts {
		rows = append(rows, []string{part.Name, fmt.Sprint(part.Bytes), fmt.Sprint(part.Compressed)})
	}
	rows = append(rows, []string{"total", "", fmt.Sprint(iso.Size)})
	if err := writeFile(o.out, iso); err != nil {
		return err
	}
	if err := printTable(p.stderr, rows); err != nil {
		return err
	}
	signed := "not signed"
	if iso.Signed {
		signed = "signed"
	}
	_, err = fmt.Fprintf(p.stdout, "%s  %s  kernel %s, %s\n", iso.SHA256, o.out, iso.KernelRelease, signed)
	return err
}

// writeFile writes the ISO whole or not at all.
func writeFile(path string, iso *ramdisk.ISO) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".iso-*")
	if err != nil {
		return fmt.Errorf("write ISO: %w", err)
	}
	_, err = iso.WriteTo(f)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write ISO: %w", err), os.Remove(f.Name()))
	}
	return nil
}
