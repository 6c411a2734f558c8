package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// stubCredential is where systemd-stub puts the credential that lay beside the image (systemd-stub(7), "Companion Files").
const stubCredential = "/.extra/credentials/node.cred"

// mediaWait is how long a virtual CD may take to appear.
const mediaWait = 60 * time.Second

// ReadCredential returns the credential of this boot: from the boot loader, or else from the CD or USB disk that carries the label
// METALCTL. The error is of kind NotFound when there is none, Invalid when there is one that cannot be used, and Conflict when two differ.
func ReadCredential(ctx context.Context) (*fleet.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, mediaWait)
	defer cancel()
	return readCredential(ctx, "/", time.Second)
}

func readCredential(ctx context.Context, root string, every time.Duration) (*fleet.Credential, error) {
	b, err := os.ReadFile(filepath.Join(root, stubCredential))
	if err == nil {
		c, err := fleet.ParseCredential(b)
		if !errors.Is(err, fleet.ErrNoCredential) {
			return c, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the boot credential: %w", err)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		c, err := scanMedia(root)
		if err != nil || c != nil {
			return c, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fleet.Errorf(fleet.NotFound, "MC-BOOT-CREDENTIAL", "no boot medium carries a credential for this machine").
				WithHint("boot the node from a medium that the server made for it: metalctl node retry NODE")
		}
	}
}

// scanMedia looks for the credential on CDs and then on removable or USB disks; nil, nil: no medium has one. Two media with different credentials are an
// error of kind Conflict: nobody knows which one this boot is meant to have.
func scanMedia(root string) (*fleet.Credential, error) {
	disks, err := filepath.Glob(filepath.Join(root, "sys/block/*"))
	if err != nil {
		return nil, err
	}
	cd := func(disk string) int {
		if strings.HasPrefix(filepath.Base(disk), "sr") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(disks, func(a, b string) int { return cmp.Compare(cd(a), cd(b)) })
	var found *fleet.Credential
	var on, text string
	for _, disk := range disks {
		if !isMedium(disk) {
			continue
		}
		device := filepath.Join("/dev", filepath.Base(disk))
		f, err := os.Open(filepath.Join(root, device))
		if err != nil {
			continue // no medium in the drive
		}
		b, err := readWindow(f)
		f.Close()
		if err != nil {
			continue // another medium, or one that is being changed; a later scan sees it again
		}
		c, err := fleet.ParseCredential(b)
		if errors.Is(err, fleet.ErrNoCredential) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("on %s: %w", device, err)
		}
		switch same := strings.TrimRight(string(b), " "); {
		case found == nil:
			found, on, text = c, device, same
		case same != text:
			return nil, fleet.Errorf(fleet.Conflict, "MC-BOOT-CREDENTIAL", "%s and %s carry different credentials (for %s, boot %d, and for %s, boot %d)", on, device,
				found.Node, found.Generation, c.Node, c.Generation).
				WithHint("take the medium of an earlier boot out of the machine, then: metalctl node retry NODE")
		}
	}
	return found, nil
}

// isMedium tells CDs and what is removable or on USB from the machine's own disks, which may hold anything.
func isMedium(disk string) bool {
	if strings.HasPrefix(filepath.Base(disk), "sr") {
		return true
	}
	if b, err := os.ReadFile(filepath.Join(disk, "removable")); err == nil && strings.TrimSpace(string(b)) == "1" {
		return true
	}
	target, err := filepath.EvalSymlinks(disk)
	return err == nil && strings.Contains(target, "/usb")
}

// readWindow reads the credential window of a boot medium without mounting it.
func readWindow(r io.ReaderAt) ([]byte, error) {
	d := make([]byte, 2048)
	if _, err := r.ReadAt(d, 16*2048); err != nil {
		return nil, fmt.Errorf("read volume descriptor: %w", err)
	}
	if string(d[:6]) != "\x01CD001" || strings.TrimRight(string(d[40:72]), " ") != fleet.VolumeLabel {
		return nil, errors.New("not a boot medium of metalctl")
	}
	w, _, err := fleet.ParseMark(d[883:1395])
	if err != nil {
		return nil, err
	}
	b := make([]byte, w.Size)
	if _, err := r.ReadAt(b, w.Offset); err != nil {
		return nil, fmt.Errorf("read credential window: %w", err)
	}
	return b, nil
}
