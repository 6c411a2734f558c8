package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// restoringName marks a data folder whose contents are being exchanged: until it is gone, no store is opened there, so that a restore that was cut off
// never looks like a first start.
const restoringName = "restoring"

// RestoreOptions of Restore.
type RestoreOptions struct {
	// Key is the master key that the store was made with.
	Key []byte
	// MoveAside lets a store that is there be moved to DATA_DIR/aside-TIME; else it is refused.
	MoveAside bool
	// By names who restores, for the freeze and the event.
	By string
	// Now is the clock; nil takes time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Restored says what Restore did.
type Restored struct {
	Manifest Manifest
	// Identity is the restored store's, in its new life.
	Identity fleet.StoreIdentity
	// Aside is where the store that was there lies now, "" where there was none.
	Aside string
}

// VerifyBackup restores the backup in a folder into a place of its own beside it, opens it with the master key and checks it whole. A nil error with no
// problems means that Restore would succeed. The backup is not changed.
func VerifyBackup(ctx context.Context, dir string, key []byte) (Manifest, []Problem, error) {
	return verifyBackup(ctx, dir, Options{Key: key})
}

func verifyBackup(ctx context.Context, dir string, o Options) (Manifest, []Problem, error) {
	m, err := ReadManifest(ctx, dir)
	if err != nil {
		return m, nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".check-*")
	if err != nil {
		return m, nil, storeError("check the backup", err)
	}
	defer os.RemoveAll(tmp)
	if err := placeBackup(ctx, m, dir, tmp); err != nil {
		return m, nil, storeError("check the backup", err)
	}
	problems, err := checkPlaced(ctx, tmp, o)
	return m, problems, err
}

// placeBackup puts the files of a backup where a store has them. The store's own file is copied, because opening it may migrate it.
func placeBackup(ctx context.Context, m Manifest, from, to string) error {
	for _, f := range m.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		place := linkOrCopy
		if f.Path == fileName {
			place = copyFile
		}
		if err := place(filepath.Join(from, filepath.FromSlash(f.Path)), filepath.Join(to, filepath.FromSlash(f.Path))); err != nil {
			return err
		}
	}
	return nil
}

func checkPlaced(ctx context.Context, dir string, o Options) ([]Problem, error) {
	db, err := Open(dir, o)
	if err != nil {
		return nil, err
	}
	return db.Check(ctx), db.Close()
}

// Restore makes the backup, an archive or a folder, the store of a data folder: it is unpacked beside, checked whole, given a new life and a freeze of
// everything, and only then exchanged for what is there, which is kept. Timelines, uploaded images and key files stay where they are.
//
// Errors: MC-STORE-EXISTS where there is a store and MoveAside is not set, MC-STORE-BUSY where a server runs on it, MC-STORE-BACKUP where the backup is
// damaged, MC-STORE-KEY where the key is another one, MC-STORE-UNSOUND where the check finds anything. After any of them the data folder is as it was.
func Restore(ctx context.Context, backup, dataDir string, o RestoreOptions) (Restored, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return Restored{}, openError(dataDir, err)
	}
	release, err := takeOver(dataDir, o.MoveAside)
	if err != nil {
		return Restored{}, err
	}
	defer release()
	tmp, err := os.MkdirTemp(dataDir, ".restore-*")
	if err != nil {
		return Restored{}, storeError("restore", err)
	}
	defer os.RemoveAll(tmp)
	r := Restored{}
	if r.Manifest, err = unpack(ctx, backup, tmp); err != nil {
		return Restored{}, err
	}
	problems, err := checkPlaced(ctx, tmp, Options{Key: o.Key})
	if err != nil {
		return Restored{}, err
	}
	if len(problems) > 0 {
		e := fleet.Errorf(fleet.Refused, "MC-STORE-UNSOUND", "the backup %s is not sound: %d things do not hold", backup, len(problems)).
			WithHint("take an older backup; nothing was changed")
		for _, p := range problems[:min(len(problems), 20)] {
			e.Fields = append(e.Fields, fleet.FieldError{Field: p.Key, Message: p.Text})
		}
		return Restored{}, e
	}
	if r.Identity, err = beginLife(ctx, tmp, r.Manifest, o); err != nil {
		return Restored{}, err
	}
	r.Aside, err = exchange(tmp, dataDir, o.MoveAside, o.Now())
	return r, storeError("put the restored store in its place", err)
}

// takeOver makes sure that nobody uses the data folder, and keeps it so until release.
func takeOver(dataDir string, moveAside bool) (release func(), err error) {
	path := filepath.Join(dataDir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	} else if err != nil {
		return nil, openError(path, err)
	}
	// A file that is no store any more is exactly what is moved aside; only one that somebody has open is not.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		if e := openError(path, err); fleet.CodeOf(e) == "MC-STORE-BUSY" {
			return nil, e
		}
		release = func() {}
	} else {
		release = func() { db.Close() } //nolint:errcheck // nothing was written
	}
	if !moveAside {
		release()
		return nil, errOccupied(dataDir)
	}
	return release, nil
}

func errOccupied(dataDir string) error {
	return fleet.Errorf(fleet.Conflict, "MC-STORE-EXISTS", "there is a store in %s", dataDir).
		WithHint("to keep it as %s: add --move-aside; or give another --data-dir", filepath.Join(dataDir, "aside-TIME"))
}

func unpack(ctx context.Context, backup, to string) (Manifest, error) {
	info, err := os.Stat(backup)
	if err != nil {
		return Manifest{}, errNoBackup(backup, err)
	}
	if !info.IsDir() {
		f, err := os.Open(backup)
		if err != nil {
			return Manifest{}, errNoBackup(backup, err)
		}
		defer f.Close()
		m, err := ReadArchive(ctx, f, to)
		if err != nil {
			return m, err
		}
		return m, storeError("unpack the backup", os.Remove(filepath.Join(to, manifestName)))
	}
	m, err := ReadManifest(ctx, backup)
	if err != nil {
		return m, err
	}
	return m, storeError("unpack the backup", placeBackup(ctx, m, backup, to))
}

// beginLife writes the new life and the freeze into the store before anybody can start a server on it.
func beginLife(ctx context.Context, dir string, m Manifest, o RestoreOptions) (fleet.StoreIdentity, error) {
	db, err := Open(dir, Options{Key: o.Key, Now: o.Now, Log: o.Log})
	if err != nil {
		return fleet.StoreIdentity{}, err
	}
	if err := db.bolt.Update(func(tx *bbolt.Tx) error {
		return errors.Join(putRole(tx.Bucket(bucketMeta), fleet.StoreRole{}), appendLife(tx.Bucket(bucketMeta), o.Now()))
	}); err != nil {
		return fleet.StoreIdentity{}, errors.Join(storeError("begin a new life", err), db.Close())
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fleet.StoreIdentity{}, errors.Join(fmt.Errorf("make an id: %w", err), db.Close())
	}
	now := o.Now().UTC().Truncate(time.Second)
	text := fmt.Sprintf("restored from a backup of %s at revision %d", m.MadeAt.Format(time.RFC3339), m.Identity.Revision)
	f := fleet.Freeze{ID: fleet.FreezeID(id.String()), Scope: fleet.FreezeAll, Reason: text, By: o.By, Since: now, Source: fleet.FrozenByRestore}
	_, err = db.Commit(ctx, fleet.Change{
		If:     []fleet.Precondition{{Key: fleet.KeyOf(fleet.KindFreeze, f.ID)}},
		Writes: []fleet.Write{{Key: fleet.KeyOf(fleet.KindFreeze, f.ID), Value: f}},
		Events: []fleet.Event{{Type: "store.restored", At: now, Subject: fleet.KeyOf(fleet.KindFreeze, f.ID), Text: text + " by " + o.By + "; everything is frozen"}},
	})
	if err == nil {
		err = doubtNodes(ctx, db, text, now)
	}
	if err != nil {
		return fleet.StoreIdentity{}, errors.Join(err, db.Close())
	}
	identity, err := db.Identity(ctx)
	return identity, errors.Join(err, db.Close())
}

// doubtNodes holds every node until a witness or a person has vouched for what the store knows of it.
func doubtNodes(ctx context.Context, db *DB, text string, now time.Time) error {
	var nodes []fleet.Node
	err := db.View(ctx, func(s fleet.Snapshot) (err error) {
		nodes, err = fleet.List[fleet.Node](s, fleet.KindNode)
		return err
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(nodes, 32) {
		var c fleet.Change
		for _, n := range some {
			n.DoubtStore("the store was "+text+", and no witness has told yet whether anything was done since", now)
			c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindNode, n.ID), Value: n})
		}
		if _, err := db.Commit(ctx, c); err != nil {
			return fmt.Errorf("hold the nodes of the restored store: %w", err)
		}
	}
	return nil
}

// exchange moves what is there aside and the restored store to its place, the store's own file last. The mark stays until all is durable; a restore
// that is cut off in between is repeated with the same command.
func exchange(tmp, dataDir string, moveAside bool, now time.Time) (aside string, err error) {
	mark := filepath.Join(dataDir, restoringName)
	if err := os.WriteFile(mark, []byte("a restore exchanges the store; run it again if it was cut off\n"), 0o600); err != nil {
		return "", err
	}
	if err := syncDir(dataDir); err != nil {
		return "", errors.Join(err, os.Remove(mark))
	}
	// From the mark on nobody opens a store here; a server that was quicker has made one.
	if _, err := os.Lstat(filepath.Join(dataDir, fileName)); err == nil && !moveAside {
		return "", errors.Join(errOccupied(dataDir), os.Remove(mark))
	}
	parts := []string{fileName, "blobs"}
	for _, part := range parts {
		from := filepath.Join(dataDir, part)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return aside, err
		}
		if aside == "" {
			if aside, err = os.MkdirTemp(dataDir, "aside-"+now.UTC().Format("20060102T150405Z")+"-*"); err != nil {
				return "", err
			}
		}
		if err := os.Rename(from, filepath.Join(aside, part)); err != nil {
			return aside, err
		}
	}
	for _, part := range []string{"blobs", fileName} {
		err := os.Rename(filepath.Join(tmp, part), filepath.Join(dataDir, part))
		if err != nil && !(part == "blobs" && errors.Is(err, fs.ErrNotExist)) {
			return aside, err
		}
	}
	if err := syncDir(dataDir); err != nil {
		return aside, err
	}
	if err := os.Remove(mark); err != nil {
		return aside, err
	}
	return aside, syncDir(dataDir)
}

// refuseHalfRestored opens no store where a restore was cut off.
func refuseHalfRestored(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, restoringName)); err != nil {
		return nil // nothing there; whatever else is wrong with the folder shows when the store is opened
	}
	return fleet.Errorf(fleet.Refused, "MC-STORE-RESTORING", "a restore into %s was cut off while it exchanged the store", dir).
		WithHint("run it again: metalctl server restore FILE --data-dir %s --move-aside; what was there before lies in %s", dir, filepath.Join(dir, "aside-*"))
}
