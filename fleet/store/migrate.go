package store

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
)

// Schema is the version of the file's layout that this program writes.
const Schema = 1

// backupDir, in the data folder, gets a backup before each migration.
const backupDir = "backups"

// migration moves a file from one schema to the next.
type migration struct {
	from uint64
	run  func(*bbolt.Tx) error
}

// migrations leads from the first schema to Schema, one step a row.
var migrations = []migration{}

// migrate brings the file to this program's schema: all steps in one transaction, after a backup was made and read again.
func (db *DB) migrate(found uint64, o Options) error {
	ctx := context.Background() // opening a store has no deadline: a half-made backup helps nobody
	if found == o.schema {
		return nil
	}
	id, err := db.Identity(ctx)
	if err != nil {
		return err
	}
	// A whole backup, so that either program can restore it; it is read again before anything is changed. A migration that fails is tried again at each
	// start: the backup that is there already then serves.
	backup := filepath.Join(db.dir, backupDir, fmt.Sprintf("schema%d-r%d%s", found, id.Revision, id.Epoch()))
	if m, err := ReadManifest(ctx, backup); err != nil || !slices.Equal(m.Identity.Lives, id.Lives) {
		if _, err := db.Backup(ctx, backup, ""); err != nil {
			return fmt.Errorf("before migrating: %w", err)
		}
		if _, err := ReadManifest(ctx, backup); err != nil {
			return fmt.Errorf("before migrating: %w", err)
		}
	}
	db.log.Info("migrating the store", "from", found, "to", o.schema, "backup", backup)
	err = db.bolt.Update(func(tx *bbolt.Tx) error {
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
