package store

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// relayBytes bounds what is kept for followers; who is further behind takes a copy of the whole store.
const relayBytes = 64 << 20

// relay keeps the newest batches for followers. It begins to when the first follower comes, so that a server without one pays nothing.
type relay struct {
	limit int

	mu      sync.Mutex // guards what follows; the committer holds it from the commit to the entry, so that a copy and the entries after it fit
	on      bool
	entries []fleet.LogEntry
	begins  []fleet.Position // where the store was before each entry
	last    int64            // the newest entry's Seq
	bytes   int
	pos     fleet.Position
	wake    chan struct{} // closed at the next entry
}

func newRelay() *relay { return &relay{limit: relayBytes, wake: make(chan struct{})} }

// addLocked takes an entry that leads to pos.
func (f *relay) addLocked(e fleet.LogEntry, pos fleet.Position) {
	before := f.pos
	f.pos = pos
	if !f.on {
		return
	}
	f.last++
	e.Seq = f.last
	f.entries, f.begins = append(f.entries, e), append(f.begins, before)
	f.bytes += len(e.Batch) + len(e.File)
	for f.bytes > f.limit && len(f.entries) > 1 {
		f.bytes -= len(f.entries[0].Batch) + len(f.entries[0].File)
		f.entries, f.begins = f.entries[1:], f.begins[1:]
	}
	close(f.wake)
	f.wake = make(chan struct{})
}

// stored tells followers of a file, before anything can name it.
func (f *relay) stored(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addLocked(fleet.LogEntry{File: path}, f.pos)
}

// Stored tells followers of an uploaded image or pack, by its path in the data folder.
func (db *DB) Stored(path string) {
	if bigFile.MatchString(path) {
		db.relay.stored(path)
	}
}

// Follow begins to keep entries, if nobody followed before, and returns the number of the entry that leads to pos, for LogAfter. It is NotFound with code
// MC-STANDBY-BEHIND where the entries after pos are not kept, or pos is no place in this store's history: a copy is needed then.
func (db *DB) Follow(pos fleet.Position) (int64, error) {
	f := db.relay
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = true
	for i, at := range f.begins {
		if at == pos {
			return f.entries[i].Seq - 1, nil
		}
	}
	if pos == f.pos {
		return f.last, nil
	}
	return 0, errBehind(pos, f.pos)
}

func errBehind(pos, now fleet.Position) error {
	return fleet.Errorf(fleet.NotFound, "MC-STANDBY-BEHIND", "revision %d of life %s is not kept for followers; the store is at revision %d of life %s", pos.Revision, pos.Epoch, now.Revision, now.Epoch)
}

// LogAfter waits for entries after the one with that number and returns them in order, and where the store is by now. MC-STANDBY-BEHIND: they are not
// kept any more.
func (db *DB) LogAfter(ctx context.Context, seq int64) ([]fleet.LogEntry, error) {
	f := db.relay
	for {
		f.mu.Lock()
		first := f.last + 1 - int64(len(f.entries))
		pos, wake := f.pos, f.wake
		var out []fleet.LogEntry
		if seq+1 >= first && seq < f.last {
			out = append(out, f.entries[seq+1-first:]...)
		}
		f.mu.Unlock()
		switch {
		case seq+1 < first:
			return nil, errBehind(pos, pos)
		case len(out) > 0:
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-db.stopped:
			return nil, errClosed("follow the store")
		case <-wake:
		}
	}
}

// Position says where the store is.
func (db *DB) Position() fleet.Position {
	db.relay.mu.Lock()
	defer db.relay.mu.Unlock()
	return db.relay.pos
}

// CopyFile writes the store as it is to a new file at path; LogAfter leads on from the position that it returns.
func (db *DB) CopyFile(ctx context.Context, path string) (fleet.Position, error) {
	if err := ctx.Err(); err != nil {
		return fleet.Position{}, err
	}
	db.relay.mu.Lock()
	db.relay.on = true
	tx, err := db.bolt.Begin(false)
	db.relay.mu.Unlock()
	if err != nil {
		return fleet.Position{}, storeError("copy the store", err)
	}
	defer tx.Rollback() //nolint:errcheck // a read transaction has nothing to lose
	pos, err := positionOf(tx)
	if err != nil {
		return pos, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return pos, storeError("copy the store", err)
	}
	_, err = tx.WriteTo(f)
	return pos, storeError("copy the store", errors.Join(err, f.Close()))
}

// begin reads where the store is, before its committer starts.
func (f *relay) begin(bolt *bbolt.DB) error {
	return bolt.View(func(tx *bbolt.Tx) (err error) {
		f.pos, err = positionOf(tx)
		return err
	})
}

// entry makes an entry of a batch and the digest after it, and notes the latter in the transaction.
func (b *batch) entry(tx *bbolt.Tx, epoch string) (fleet.LogEntry, fleet.Position, error) {
	meta, text := tx.Bucket(bucketMeta), b.encode()
	chain := nextChain(meta.Get(metaChain), text)
	e := fleet.LogEntry{Batch: text, Chain: hex.EncodeToString(chain)}
	return e, fleet.Position{Epoch: epoch, Revision: b.after, Chain: e.Chain}, meta.Put(metaChain, chain)
}
