package store

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Stats is what the store holds, counted.
type Stats struct {
	Identity fleet.StoreIdentity
	Schema   uint64
	// Size is the length of the store's file, Free what of it no page uses, in bytes.
	Size, Free int64
	// Kinds are the records by kind, Blobs the files beside the store by kind.
	Kinds, Blobs      map[string]Amount
	Events, Timelines Amount
}

// Amount is a number of things and the bytes that they take.
type Amount struct{ Count, Bytes int64 }

func (a *Amount) add(bytes int64) {
	a.Count++
	a.Bytes += bytes
}

// Stats counts what the store holds. It reads every record's key and length, and no content.
func (db *DB) Stats(ctx context.Context) (Stats, error) {
	s := Stats{Kinds: map[string]Amount{}, Blobs: map[string]Amount{}}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	err := db.bolt.View(func(tx *bbolt.Tx) (err error) {
		if s.Identity, err = identityOf(tx); err != nil {
			return err
		}
		s.Schema = getUint(tx.Bucket(bucketMeta), metaSchema)
		s.Size = tx.Size()
		free := db.bolt.Stats()
		s.Free = int64(free.FreePageN+free.PendingPageN) * int64(db.bolt.Info().PageSize)
		err = tx.Bucket(bucketEvents).ForEach(func(k, v []byte) error {
			s.Events.add(int64(len(k) + len(v)))
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketRecords).ForEach(func(k, v []byte) error {
			kind := fleet.Key(k).Kind()
			a := s.Kinds[kind]
			a.add(int64(len(k) + len(v)))
			s.Kinds[kind] = a
			return ctx.Err()
		})
	})
	if err != nil {
		return s, storeError("count what the store holds", err)
	}
	err = countFiles(ctx, db.blobDir(), func(path string, bytes int64) {
		kind, _, _ := strings.Cut(path, string(filepath.Separator))
		a := s.Blobs[kind]
		a.add(bytes)
		s.Blobs[kind] = a
	})
	err = errors.Join(err, countFiles(ctx, db.timeline.dir, func(_ string, bytes int64) { s.Timelines.add(bytes) }))
	return s, storeError("count what the store holds", err)
}

// countFiles calls count for each file below dir with its path from there; what goes away meanwhile, or is not there, does not count.
func countFiles(ctx context.Context, dir string, count func(path string, bytes int64)) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil {
			count(rel, info.Size())
		}
		return err
	})
}
