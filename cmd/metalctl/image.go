//go:build !ramdisk

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/images"
)

var imageView = view[fleet.Image]{
	name: func(i fleet.Image) string { return "image/" + i.Name },
	columns: []column[fleet.Image]{
		{"NAME", false, func(i fleet.Image) string { return i.Name }},
		{"FORMAT", false, func(i fleet.Image) string { return i.Format }},
		{"SIZE", false, func(i fleet.Image) string { return bytesText(i.SizeBytes) }},
		{"DISK", false, func(i fleet.Image) string {
			if i.VirtualSizeBytes == 0 {
				return "-"
			}
			return bytesText(i.VirtualSizeBytes)
		}},
		{"SHA256", false, func(i fleet.Image) string { return i.SHA256[:min(16, len(i.SHA256))] }},
		{"URL", true, func(i fleet.Image) string { return orDash(i.URL) }},
	},
}

type imageOptions struct {
	file, url, format, sha256 string
	size                      int64
}

func imageNoun(p *program) *cobra.Command {
	var o imageOptions
	add := &cobra.Command{
		Use: "add NAME (--file F | --url U --sha256 D --size N)", Short: "Add an image: upload a file, or name an origin of the allow-list", Args: exactly("NAME"),
		Example: "  metalctl image add debian-12 --file debian-12.raw.zst",
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), p, args[0]) },
	}
	f := add.Flags()
	f.StringVar(&o.file, "file", "", "file to upload; its digest is computed here and checked there")
	f.StringVar(&o.url, "url", "", "http or https address that agents fetch it from")
	f.StringVar(&o.format, "format", "", "raw, raw.zst, raw.gz, raw.xz or qcow2 (default: by content, or the URL's ending)")
	f.StringVar(&o.sha256, "sha256", "", "digest of the file as served, 64 hex digits")
	f.Int64Var(&o.size, "size", 0, "size of the file in bytes")
	return noun("image", "Operating system images for tenants", add, imageList(p),
		imageOne(p, "show", "Show an image", func(ctx context.Context, cl *api.Client, name string) (fleet.Image, error) {
			return cl.Image(ctx, name)
		}),
		imageOne(p, "verify", "Read the stored image again and compare its digest", func(ctx context.Context, cl *api.Client, name string) (fleet.Image, error) {
			v, err := cl.VerifyImage(ctx, name)
			return v.Image, err
		}), imageRemove(p))
}

func (o *imageOptions) run(ctx context.Context, p *program, name string) error {
	if (o.file == "") == (o.url == "") {
		return usageError("image add: give either --file or --url\n  try: metalctl image add --help")
	}
	img := fleet.Image{Name: name, URL: o.url, Format: o.format, SHA256: o.sha256, SizeBytes: o.size}
	if o.file != "" {
		d, err := images.Describe(ctx, o.file)
		if err != nil {
			return err
		}
		if o.format != "" && o.format != string(d.Format) {
			return fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "%s is %s, not %s", o.file, d.Format, o.format)
		}
		if o.sha256 != "" && o.sha256 != d.SHA256 {
			return fleet.Errorf(fleet.Invalid, "MC-IMAGE-DIGEST", "%s has digest %s, not %s", o.file, d.SHA256, o.sha256)
		}
		img.Format, img.SHA256, img.SizeBytes, img.VirtualSizeBytes = string(d.Format), d.SHA256, d.SizeBytes, d.VirtualSizeBytes
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	made, err := cl.AddImage(ctx, api.ImageCreate{Image: img})
	if err != nil {
		return err
	}
	if o.file != "" {
		in, err := os.Open(o.file)
		if err != nil {
			return fmt.Errorf("open image: %w", err)
		}
		defer in.Close()
		last := int64(-1)
		made, err = cl.UploadImage(ctx, name, in, func(sent int64) {
			if pct := sent * 100 / max(1, img.SizeBytes); pct != last && isTerminal(p.stderr) {
				last = pct
				fmt.Fprintf(p.stderr, "\rupload %s %3d%%", name, pct)
			}
		})
		if isTerminal(p.stderr) {
			fmt.Fprintln(p.stderr)
		}
		if err != nil {
			return err
		}
	}
	return imageView.print(p, []fleet.Image{made}, true)
}

func imageList(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List images", Args: exactly(), Example: "  metalctl image list -o wide",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			is, err := cl.Images(c.Context())
			if err != nil {
				return err
			}
			return imageView.print(p, is, false)
		},
	}
}

func imageOne(p *program, use, short string, get func(context.Context, *api.Client, string) (fleet.Image, error)) *cobra.Command {
	return &cobra.Command{
		Use: use + " IMAGE", Short: short, Args: exactly("IMAGE"), Example: "  metalctl image " + use + " debian-12",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			i, err := get(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			return imageView.print(p, []fleet.Image{i}, true)
		},
	}
}

func imageRemove(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "remove IMAGE", Short: "Remove an image that no lease needs", Args: exactly("IMAGE"), Example: "  metalctl image remove debian-11",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := p.client()
			if err != nil {
				return err
			}
			if err := cl.RemoveImage(c.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(p.stderr, "image/%s: removed\n", args[0])
			return nil
		},
	}
}
