package server

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	"github.com/metalctl/metalctl/fleet"
)

// diskError says why the data folder does not take a file. The message of err names the place.
func diskError(doing string, err error) error {
	if fleet.NoSpace(err) {
		return fleet.Errorf(fleet.Unavailable, "MC-STORE-FULL", "%s: %w", doing, err).WithHint("free space on the data folder's disk, then the same again; metalctl doctor shows how much there is")
	}
	return fleet.Errorf(fleet.Broken, "MC-SERVER-DATADIR", "%s: %w", doing, err).WithHint("look at the disk of the data folder, or give a writable --data-dir")
}

// uploading begins the names of files that are still being received.
const uploading = ".upload-"

// settle puts a file that was received into its place. Only one that is whole on the disk gets there.
func settle(tmp *os.File, to string) error {
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// dropUnfinished removes what a server that was killed had not received whole; nobody else writes there while this one has the store.
func dropUnfinished(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, uploading+"*"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// writeCA puts the authority's certificate where clients find it. One that is there already is not touched, so that a full disk does not take it away.
func writeCA(dataDir string, caPEM []byte) error {
	path := filepath.Join(dataDir, "ca.pem")
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, caPEM) {
		return nil
	}
	tmp, err := os.CreateTemp(dataDir, ".ca-*")
	if err != nil {
		return diskError("write the authority's certificate", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(caPEM)
	if err = errors.Join(err, tmp.Chmod(0o644)); err == nil {
		err = settle(tmp, path)
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return diskError("write the authority's certificate", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
