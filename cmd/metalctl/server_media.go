//go:build !ramdisk

package main

import (
	"context"
	"net/netip"
	"net/url"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
	"github.com/metalctl/metalctl/images"
	"github.com/metalctl/metalctl/images/configdrive"
)

// imageChecker looks into images for the server.
type imageChecker struct{}

// CheckFile implements server.ImageChecker.
func (imageChecker) CheckFile(ctx context.Context, path string, img fleet.Image) (int64, error) {
	d, err := images.Describe(ctx, path)
	if err != nil {
		return 0, err
	}
	if string(d.Format) != img.Format {
		return 0, fleet.Errorf(fleet.Invalid, "MC-IMAGE-FORMAT", "the file of image %s is %s, not %s", img.Name, d.Format, img.Format).
			WithHint("metalctl image add %s --file FILE --format %s", img.Name, d.Format)
	}
	if d.SHA256 != img.SHA256 {
		return 0, fleet.Errorf(fleet.Invalid, "MC-IMAGE-DIGEST", "the file of image %s has digest %s, not %s", img.Name, d.SHA256, img.SHA256)
	}
	return d.VirtualSizeBytes, nil
}

// CheckAddress implements server.ImageChecker.
func (imageChecker) CheckAddress(u *url.URL, site fleet.Site) error {
	policy, err := originPolicy(site)
	if err != nil {
		return err
	}
	return policy.Check(u)
}

// CheckOrigin implements server.ImageChecker.
func (imageChecker) CheckOrigin(ctx context.Context, img fleet.Image, site fleet.Site) (read, virtual int64, err error) {
	policy, err := originPolicy(site)
	if err != nil {
		return 0, 0, err
	}
	src, err := images.Open(ctx, img.URL, policy)
	if err != nil {
		return 0, 0, err
	}
	res, err := images.Decode(ctx, src, imageOf(img), func(e images.Extent) error { e.Release(); return nil })
	return img.SizeBytes, res.DiskBytes, err
}

func imageOf(i fleet.Image) images.Image {
	return images.Image{Name: i.Name, URL: i.URL, Format: images.Format(i.Format), SHA256: i.SHA256, SizeBytes: i.SizeBytes, VirtualSizeBytes: i.VirtualSizeBytes}
}

func originPolicy(site fleet.Site) (images.Policy, error) {
	p := images.Policy{Origins: site.Origins}
	for _, d := range site.Denied {
		n, err := netip.ParsePrefix(d)
		if err != nil {
			return p, fleet.Errorf(fleet.Invalid, "MC-SITE-DENIED", "the site's image_denied %q is no address range: %w", d, err)
		}
		p.Deny = append(p.Deny, n)
	}
	return p, nil
}

// checkDrive builds a config drive as the agent would, for its errors.
func checkDrive(p step.ConfigDriveParams, userData []byte) error {
	_, err := configdrive.Build(configdrive.Content{InstanceID: p.InstanceID, Hostname: p.Hostname, SSHKeys: p.SSHKeys, MetaData: p.Meta, NetworkData: p.Network,
		UserData: userData, Form: configdrive.Form(p.Form)})
	return err
}
