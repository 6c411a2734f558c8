package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Schema is the version of the file's layout that this program writes.
const Schema = 1

// backupDir, in the data folder, gets a copy of the file before each migration.
const backupDir = "backups"

// migration moves a file from one schema to the next.
type migration struct {
	from uint64
	run  func(*bbolt.Tx) error
}

// migrations leads from the first schema to Schema, one step a row.
var migrations = []migration{}

// migrate brings the file to this program's schema: all steps in one transaction, after a copy of the file was made durable.
func (db *DB) migrate(found uint64, o Options) error {
	if found == o.schema {
		return nil
	}
	dir := filepath.Join(db.dir, backupDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return storeError("back up before migrating", err)
	}
	backup := filepath.Join(dir, fmt.Sprintf("store-schema%d-%s.db", found, o.Now().UTC().Format("20060102T150405Z")))
	if err := db.backupFile(backup); err != nil {
		return storeError("back up before migrating", err)
	}
	db.log.Info("migrating the store", "from", found, "to", o.schema, "backup", backup)
	err := db.bolt.Update(func(tx *bbolt.Tx) error {
		at := found
		for _, m := range o.migrations {
			if m.from != at {
				continue
			}
			if err := m.run(tx); err != nil {
				return fmt.Errorf("from schema %d: %w", m.from, err)
			}
			at++
		}
		if at != o.schema {
			return fmt.Errorf("no way leads from schema %d to %d", at, o.schema)
		}
		return putUint(tx.Bucket(bucketMeta), metaSchema, at)
	})
	if err != nil {
		return storeError("migrate the store (nothing was changed)", err)
	}
	return nil
}

func (db *DB) backupFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = db.bolt.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(f)
		return err
	})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(filepath.Dir(path))
}

// Backup writes a consistent copy of the store's file to w while it runs, and returns the revision that it holds. Secrets stay sealed: the
// copy is worth nothing without the master key. Blobs and timelines are not in it.
func (db *DB) Backup(ctx context.Context, w io.Writer) (fleet.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var rev fleet.Revision
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		rev = fleet.Revision(getUint(tx.Bucket(bucketMeta), metaRevision))
		_, err := tx.WriteTo(w)
		return err
	})
	return rev, storeError("back up the store", err)
}
