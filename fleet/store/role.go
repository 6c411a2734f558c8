package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// metaRole holds the store's role as JSON; a store without one acts.
var metaRole = []byte("role")

func readRole(meta *bbolt.Bucket) (fleet.StoreRole, error) {
	var r fleet.StoreRole
	raw := meta.Get(metaRole)
	if raw == nil {
		return r, nil
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode the store's role: %w", err).WithHint("metalctl server check")
	}
	return r, nil
}

func putRole(meta *bbolt.Bucket, r fleet.StoreRole) error {
	if r == (fleet.StoreRole{}) {
		return meta.Delete(metaRole)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return meta.Put(metaRole, b)
}

// RoleOf reads the role of the store in a folder that no process uses. There is false where there is no store.
func RoleOf(dir string) (role fleet.StoreRole, there bool, err error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return role, false, nil
	}
	if _, err := proveFile(dir, Options{}.withDefaults()); err != nil {
		return role, true, err
	}
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true})
	if err != nil {
		return role, true, openError(path, err)
	}
	err = bolt.View(func(tx *bbolt.Tx) (err error) {
		if meta := tx.Bucket(bucketMeta); meta != nil {
			role, err = readRole(meta)
		}
		return err
	})
	return role, true, errors.Join(storeError("read the store's role", err), bolt.Close())
}

// errRole is what a store says that does not act.
func errRole(r fleet.StoreRole) error {
	if r.Kind == fleet.RoleFollows {
		return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FOLLOWS", "this store follows the server %s and takes no changes", r.Peer).
			WithHint("ask that one; or, to let this one take over: metalctl standby promote")
	}
	return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-RETIRED", "the server %s took over from this one at %s", r.Peer, r.Since.UTC().Format(time.RFC3339)).
		WithHint("ask that one; to let this one follow it: metalctl server --standby %s", r.Peer)
}

// Role is what the store's server may do.
func (db *DB) Role(ctx context.Context) (role fleet.StoreRole, err error) {
	if err := ctx.Err(); err != nil {
		return role, err
	}
	err = db.bolt.View(func(tx *bbolt.Tx) (err error) {
		role, err = readRole(tx.Bucket(bucketMeta))
		return err
	})
	return role, storeError("read the store's role", err)
}

// Retire ends what the store's server may do: when it returns, that is durable and nothing more is committed. The position is the last.
func (db *DB) Retire(ctx context.Context, peer, why string) (fleet.Position, error) {
	role := fleet.StoreRole{Kind: fleet.RoleRetired, Peer: peer, Why: why, Since: db.now().UTC().Truncate(time.Second)}
	err := db.exclusive(ctx, func() error {
		if err := db.bolt.Update(func(tx *bbolt.Tx) error { return putRole(tx.Bucket(bucketMeta), role) }); err != nil {
			return storeError("retire the store", err)
		}
		db.broken = errRole(role)
		return nil
	})
	return db.Position(), err
}

// HandsOn records that the calls of the server before are over.
func (db *DB) HandsOn(ctx context.Context) error {
	return db.exclusive(ctx, func() error {
		err := db.bolt.Update(func(tx *bbolt.Tx) error { return putRole(tx.Bucket(bucketMeta), fleet.StoreRole{}) })
		return storeError("write the store's role", err)
	})
}

// exclusive runs f in the committer, between two batches.
func (db *DB) exclusive(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case db.control <- func() { done <- f() }:
	case <-db.stopped:
		return errClosed("write the store's role")
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-done
}
