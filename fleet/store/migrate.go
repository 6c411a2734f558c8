package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
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

// migrate brings the file to this program's schema: all steps in one transaction, after a backup was made and proven to restore.
func (db *DB) migrate(found uint64, o Options) error {
	ctx := context.Background() // opening a store has no deadline: a half-made backup helps nobody
	if found == o.schema {
		return nil
	}
	backup, err := db.backupBefore(ctx, found, o)
	if err != nil {
		return fmt.Errorf("before migrating (nothing was changed): %w", err)
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
	db.log.Info("store migrated", "from", found, "to", o.schema, "backup", backup)
	return nil
}

// backupBefore returns a whole backup of the store as it is, which either program can restore. A migration that fails or is cut off is tried again at
// each start: the backup that is there already then serves, if it still is what it was.
func (db *DB) backupBefore(ctx context.Context, found uint64, o Options) (string, error) {
	id, err := db.Identity(ctx)
	if err != nil {
		return "", err
	}
	if err := db.sweepUnfinished(); err != nil {
		return "", err
	}
	first := filepath.Join(db.dir, backupDir, fmt.Sprintf("schema%d-r%d%s", found, id.Revision, id.Epoch()))
	for i := 1; ; i++ {
		dir := first
		if i > 1 {
			dir = fmt.Sprintf("%s-%d", first, i)
		}
		_, err := os.Lstat(dir)
		made := errors.Is(err, fs.ErrNotExist)
		if made {
			if _, err := db.Backup(ctx, dir, ""); err != nil {
				return "", err
			}
		}
		m, problems, err := verifyBackup(ctx, dir, Options{Key: o.Key, schema: found})
		switch {
		case err == nil && len(problems) > 0:
			err = errUnsound(problems)
		case err == nil && slices.Equal(m.Identity.Lives, id.Lives):
			return dir, nil
		}
		if made {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
}

// sweepUnfinished removes what a migration that was cut off had begun to write. The store is locked, so that no other one is at it.
func (db *DB) sweepUnfinished() error {
	for _, pattern := range []string{".tmp-*", ".check-*"} {
		left, err := filepath.Glob(filepath.Join(db.dir, backupDir, pattern))
		if err != nil {
			return err
		}
		for _, dir := range left {
			if err := os.RemoveAll(dir); err != nil {
				return storeError("remove an unfinished backup", err)
			}
		}
	}
	return nil
}

// errUnsound says what the check of the store as it is found: it is not migrated, so that the program before goes on with it.
func errUnsound(problems []Problem) error {
	e := fleet.Errorf(fleet.Refused, "MC-STORE-UNSOUND", "the store is not sound: %d things do not hold", len(problems)).
		WithHint("start the program of before again, then: metalctl server check")
	for _, p := range problems[:min(len(problems), 20)] {
		e.Fields = append(e.Fields, fleet.FieldError{Field: p.Key, Message: p.Text})
	}
	return e
}

// errNewer refuses a store that a newer program wrote, and names the backup that leads back where there is one.
func errNewer(dir string, found, reads uint64) error {
	e := fleet.Errorf(fleet.Refused, "MC-STORE-NEWER", "the store in %s has schema %d and this program reads up to %d", dir, found, reads)
	backup := newestBackup(dir, reads)
	if backup == "" {
		return e.WithHint("start the newer metalctl again; in %s is no backup that this one could go back to", filepath.Join(dir, backupDir))
	}
	return e.WithHint("start the newer metalctl again; or go back, and lose what was written since: metalctl server restore %s --data-dir %s --move-aside", backup, dir)
}

// newestBackup is the newest backup in the data folder that a program reads which knows schemas up to reads, or "". Whether it is sound is for the
// restore to find out.
func newestBackup(dir string, reads uint64) string {
	made, err := filepath.Glob(filepath.Join(dir, backupDir, "*", manifestName))
	if err != nil {
		return ""
	}
	best, at := "", time.Time{}
	for _, path := range made {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		m, err := parseManifest(b)
		if err == nil && m.Schema <= reads && (best == "" || m.MadeAt.After(at)) {
			best, at = filepath.Dir(path), m.MadeAt
		}
	}
	return best
}
