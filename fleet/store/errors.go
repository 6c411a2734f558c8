package store

import (
	"errors"
	"io/fs"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/metalctl/metalctl/fleet"
)

// openError explains why a store could not be opened.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fleet.Errorf(fleet.Conflict, "MC-STORE-BUSY", "open %s: another process has it open", path).
			WithHint("stop the other metalctl server, or give this one its own --data-dir")
	}
	return storeError("open "+path, err)
}

// storeError gives an error of the file its kind: a full disk and a closed store may pass, everything else is broken.
func storeError(doing string, err error) error {
	var known *fleet.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case isFull(err):
		return fleet.Errorf(fleet.Unavailable, "MC-STORE-FULL", "%s: %w", doing, err).
			WithHint("free space on the data folder's disk; nothing was written and nothing is lost")
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return errClosed(doing)
	case errors.Is(err, fs.ErrPermission):
		return fleet.Errorf(fleet.Denied, "MC-STORE-IO", "%s: %w", doing, err).
			WithHint("run metalctl as the owner of the data folder")
	}
	return fleet.Errorf(fleet.Broken, "MC-STORE-IO", "%s: %w", doing, err).
		WithHint("look at the disk (dmesg), then: metalctl server check")
}

func errClosed(doing string) error {
	return fleet.Errorf(fleet.Unavailable, "MC-STORE-CLOSED", "%s: the store is closed", doing)
}

func isFull(err error) bool {
	return fleet.NoSpace(err) || errors.Is(err, berrors.ErrMaxSizeReached)
}
