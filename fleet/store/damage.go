package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/metalctl/metalctl/fleet"
)

// proveFile reads the whole file before bbolt maps it, and refuses one that is not what was written. It holds the file's lock meanwhile, as one that is being
// written is never whole. half is what provePages says.
func proveFile(dir string, o Options) (half bool, err error) {
	path := filepath.Join(dir, fileName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // bbolt makes it
	}
	if err != nil {
		return false, openError(path, err)
	}
	defer f.Close()
	if err := lockFile(f); err != nil {
		return false, openError(path, err)
	}
	if half, err = provePages(f); err == nil {
		err = neverEmptied(dir, f)
	}
	var failed *fs.PathError
	switch {
	case errors.As(err, &failed):
		return half, openError(path, err)
	case err != nil:
		return half, errDamaged(dir, o, err)
	case half:
		o.Log.Warn("one of the store's two first pages is damaged, and the other one counts: what was being written when the machine lost its power is not there, or else the newest commit: compare with metalctl doctor --world",
			"file", path)
	}
	return half, nil
}

// neverEmptied refuses a file without content where there was a store: a new one would be made in its place. Each store has made its timeline's folder.
func neverEmptied(dir string, f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() > 0 {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "timeline")); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(errors.New("it is empty, and there was a store"), err)
	}
	return nil
}

// lockFile takes the lock that bbolt takes.
func lockFile(f *os.File) error {
	for end := time.Now().Add(lockTimeout); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return berrors.ErrTimeout
		}
	}
}

// soundTries is how many backups are looked at for one that is sound.
const soundTries = 5

// errDamaged refuses a store that is not what was written, and names the newest backup that is sound.
func errDamaged(dir string, o Options, why error) error {
	e := fleet.Errorf(fleet.Broken, "MC-STORE-DAMAGED", "the store in %s is damaged: %w", filepath.Join(dir, fileName), why)
	if backup := newestSound(dir, o); backup != "" {
		return e.WithHint("restore the newest backup that is sound, and lose what was written since: metalctl server restore %s --data-dir %s --move-aside", backup, dir)
	}
	return e.WithHint("no sound backup lies in %s: look where else backups are kept, then: metalctl server restore FILE --data-dir %s --move-aside", filepath.Join(dir, backupDir), dir)
}

// newestSound is the newest of the backups at hand that restores and passes the check, or "".
func newestSound(dir string, o Options) string {
	type made struct {
		dir string
		at  time.Time
	}
	var all []made
	for _, parent := range []string{filepath.Join(dir, backupDir), o.Backups} {
		found, err := filepath.Glob(filepath.Join(parent, "*", manifestName))
		if parent == "" || err != nil {
			continue
		}
		for _, path := range found {
			// One that cannot be read is none.
			if m, err := UnmarshalManifest(filepath.Dir(path)); err == nil && m.Schema <= o.schema {
				all = append(all, made{filepath.Dir(path), m.MadeAt})
			}
		}
	}
	slices.SortFunc(all, func(a, b made) int { return b.at.Compare(a.at) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for _, b := range all[:min(len(all), soundTries)] {
		if _, problems, err := verifyBackup(ctx, b.dir, Options{Key: o.Key, schema: o.schema, migrations: o.migrations}); err == nil && len(problems) == 0 {
			return b.dir
		}
	}
	return ""
}
