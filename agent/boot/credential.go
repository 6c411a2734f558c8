package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// stubCredential is where systemd-stub puts the credential that lay beside the image (systemd-stub(7), "Companion Files").
const stubCredential = "/.extra/credentials/node.cred"

// mediaWait is how long a virtual CD may take to appear.
const mediaWait = 60 * time.Second

// ReadCredential returns the credential of this boot: from the boot loader, or else from the first CD or USB disk that carries the
// label METALCTL. The error is of kind NotFound when there is none, and Invalid when there is one that cannot be used.
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

// scanMedia looks for the credential on CDs and removable or USB disks; nil, nil: no medium has one.
func scanMedia(root string) (*fleet.Credential, error) {
	disks, err := filepath.Glob(filepath.Join(root, "sys/block/*"))
	if err != nil {
		return nil, err
	}
	for _, disk := range disks {
		if !isMedium(disk) {
			continue
		}
		f, err := os.Open(filepath.Join(root, "dev", filepath.Base(disk)))
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
		return c, err
	}
	return nil, nil
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
