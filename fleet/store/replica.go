package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Replica is the data folder of a server that follows another one: what it holds is the other's store at some position, and nobody changes it but by what
// the other committed. Close ends it.
type Replica struct {
	dir  string
	o    Options
	seal *sealer
	now  func() time.Time
	log  *slog.Logger

	mu sync.RWMutex // guards db
	db *DB          // nil before the first copy came, and while one is put in its place
}

// OpenReplica opens the data folder dir for following. A store that is there and does not follow stays as it is until Install; Options.Key or KeyFile is
// the master key of the server that is followed.
func OpenReplica(dir string, o Options) (*Replica, error) {
	o = o.withDefaults()
	o.AnyRole = true
	key := o.Key
	if key == nil {
		var err error
		if key, err = loadKey(o.KeyFile); err != nil {
			return nil, err
		}
	}
	o.Key = key
	seal, err := newSealer(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, openError(dir, err)
	}
	r := &Replica{dir: dir, o: o, seal: seal, now: o.Now, log: o.Log}
	left, err := filepath.Glob(filepath.Join(dir, ".copy-*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return nil, openError(dir, err)
	}
	role, there, err := RoleOf(dir)
	if err != nil || !there {
		return r, err
	}
	if role.Kind == fleet.RoleActs {
		return r, nil // whether it may be exchanged shows when the copy is here
	}
	r.db, err = Open(dir, o)
	return r, err
}

// Close closes the store.
func (r *Replica) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db == nil {
		return nil
	}
	err := r.db.Close()
	r.db = nil
	return err
}

// use calls f with the store, while it is not exchanged; false where there is none.
func (r *Replica) use(f func(*DB) error) (bool, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.db == nil {
		return false, nil
	}
	return true, f(r.db)
}

func errNoCopy() error {
	return fleet.Errorf(fleet.Unavailable, "MC-STANDBY-FOLLOWS", "this server has no whole copy of the other one's store yet").WithHint("metalctl standby status")
}

// View implements fleet.Store's reading side; MC-STANDBY-FOLLOWS before the first copy is here.
func (r *Replica) View(ctx context.Context, f func(fleet.Snapshot) error) error {
	ok, err := r.use(func(db *DB) error { return db.View(ctx, f) })
	if !ok {
		return errNoCopy()
	}
	return err
}

// Commit refuses: what follows takes no changes of its own.
func (r *Replica) Commit(ctx context.Context, c fleet.Change) (rev fleet.Revision, err error) {
	ok, err := r.use(func(db *DB) error { rev, err = db.Commit(ctx, c); return err })
	if !ok {
		return 0, errNoCopy()
	}
	return rev, err
}

// Events implements fleet.Store.
func (r *Replica) Events(ctx context.Context, after int64, limit int) (out []fleet.Event, err error) {
	ok, err := r.use(func(db *DB) error { out, err = db.Events(ctx, after, limit); return err })
	if !ok {
		return nil, errNoCopy()
	}
	return out, err
}

// LastEvent returns the newest event's id.
func (r *Replica) LastEvent(ctx context.Context) (id int64, err error) {
	ok, err := r.use(func(db *DB) error { id, err = db.LastEvent(ctx); return err })
	if !ok {
		return 0, errNoCopy()
	}
	return id, err
}

// Changed returns a channel that is closed at the next batch; a copy that replaces the store closes none.
func (r *Replica) Changed() (ch <-chan struct{}) {
	if ok, _ := r.use(func(db *DB) error { ch = db.Changed(); return nil }); !ok {
		return make(chan struct{})
	}
	return ch
}

// State says where the copy is and which store it is of; false where there is none that follows.
func (r *Replica) State(ctx context.Context) (pos fleet.Position, id fleet.StoreIdentity, role fleet.StoreRole, ok bool, err error) {
	ok, err = r.use(func(db *DB) (err error) {
		pos = db.Position()
		if id, err = db.Identity(ctx); err != nil {
			return err
		}
		role, err = db.Role(ctx)
		return err
	})
	return pos, id, role, ok, err
}

// Identity says which store it is a copy of.
func (r *Replica) Identity(ctx context.Context) (id fleet.StoreIdentity, err error) {
	ok, err := r.use(func(db *DB) error { id, err = db.Identity(ctx); return err })
	if !ok {
		return id, errNoCopy()
	}
	return id, err
}

// CopyPath is a new name for a copy that comes, in the file system that it will be used in.
func (r *Replica) CopyPath() (string, error) {
	f, err := os.CreateTemp(r.dir, ".copy-*")
	if err != nil {
		return "", storeError("take a copy of the store", err)
	}
	return f.Name(), storeError("take a copy of the store", errors.Join(f.Close(), os.Remove(f.Name())))
}

// Install puts a copy of peer's store, a file that CopyFile wrote there, in the place of what is here. A store of this folder that acted once is kept in
// DATA_DIR/aside-TIME, whose path is returned. Errors: MC-STORE-KEY where the master key is another one, MC-STORE-NEWER where this program is older than
// the other server's, MC-STANDBY-STRANGER where the store here is no earlier state of that one, MC-STORE-DAMAGED. After any of them nothing has changed.
func (r *Replica) Install(ctx context.Context, file, peer string) (aside string, err error) {
	defer os.Remove(file)
	id, err := r.prepareCopy(ctx, file, peer)
	if err != nil {
		return "", err
	}
	if err := refuseHalfRestored(r.dir); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db != nil {
		err := r.db.Close()
		r.db = nil
		if err != nil {
			return "", err
		}
	}
	path := filepath.Join(r.dir, fileName)
	aside, err = r.makeWay(ctx, path, id)
	if err == nil {
		err = errors.Join(os.Rename(file, path), syncDir(r.dir))
	}
	if err != nil {
		if role, there, _ := RoleOf(r.dir); there && role.Kind != fleet.RoleActs {
			db, openErr := Open(r.dir, r.o)
			r.db, err = db, errors.Join(err, openErr)
		}
		return aside, storeError("put the copy in its place", err)
	}
	r.db, err = Open(r.dir, r.o)
	return aside, err
}

// prepareCopy makes sure that the copy can be used, and writes into it that it follows.
func (r *Replica) prepareCopy(ctx context.Context, file, peer string) (id fleet.StoreIdentity, err error) {
	if err := wholeFile(file); err != nil {
		return id, err
	}
	bolt, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return id, openError(file, err)
	}
	err = bolt.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil || tx.Bucket(bucketRecords) == nil || tx.Bucket(bucketEvents) == nil {
			return fleet.Errorf(fleet.Broken, "MC-STORE-DAMAGED", "the copy of the store is no store")
		}
		if schema := getUint(meta, metaSchema); schema > r.o.schema {
			return fleet.Errorf(fleet.Refused, "MC-STORE-NEWER", "the store of %s has schema %d and this program reads up to %d", peer, schema, r.o.schema).
				WithHint("install the version on this machine that runs there; of two servers the one that follows is upgraded first")
		}
		if err := r.seal.verify(meta.Get(metaKeyCheck)); err != nil {
			return fleet.Errorf(fleet.Denied, "MC-STORE-KEY", "the master key is not the one of the server %s", peer).
				WithHint("copy the key file from there, and give it with --key-file")
		}
		for problem := range tx.Check() {
			return fleet.Errorf(fleet.Broken, "MC-STORE-DAMAGED", "the copy of the store is damaged: %w", problem)
		}
		if id, err = identityOf(tx); err != nil {
			return err
		}
		return putRole(meta, fleet.StoreRole{Kind: fleet.RoleFollows, Peer: peer, Since: r.now().UTC().Truncate(time.Second)})
	})
	if err = errors.Join(err, bolt.Close()); err != nil {
		return id, storeError("look at the copy of the store", err)
	}
	return id, ctx.Err()
}

// wholeFile proves every page of a copy before anybody maps it.
func wholeFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return openError(file, err)
	}
	defer f.Close()
	if _, err := provePages(f); err != nil {
		return fleet.Errorf(fleet.Broken, "MC-STORE-DAMAGED", "the copy of the store is damaged: %w", err).WithHint("metalctl standby status; another copy is fetched by itself")
	}
	return nil
}

// makeWay looks at the store that the copy will replace, and keeps it aside where it is more than an older copy.
func (r *Replica) makeWay(ctx context.Context, path string, copied fleet.StoreIdentity) (aside string, err error) {
	role, there, err := RoleOf(r.dir)
	if err != nil || !there {
		return "", err
	}
	db, err := Open(r.dir, r.o)
	if err != nil {
		return "", err
	}
	mine, err := db.Identity(ctx)
	if err = errors.Join(err, db.Close()); err != nil {
		return "", err
	}
	switch same := mine.Epoch() == copied.Epoch(); {
	case same && role.Kind == fleet.RoleActs:
		return "", fleet.Errorf(fleet.Refused, "MC-STANDBY-STRANGER", "the store in %s acts itself: it is in the same life as the one that it shall follow", r.dir).
			WithHint("one of the two is a copy made by hand; look which one runs, and move the other away")
	case same && mine.Revision > copied.Revision:
		return "", fleet.Errorf(fleet.Refused, "MC-STANDBY-STRANGER", "the store in %s is at revision %d and the one that it follows at %d: that one has lost commits", r.dir, mine.Revision, copied.Revision).
			WithHint("stop that server and look at it; to let this one go on instead: metalctl standby promote --force")
	case !same && !copied.Succeeds(mine):
		return "", fleet.Errorf(fleet.Refused, "MC-STANDBY-STRANGER", "the store in %s is of another fleet, or of another branch of its history", r.dir).
			WithHint("give another --data-dir, or move that one away")
	}
	if role.Kind == fleet.RoleFollows {
		return "", nil
	}
	if aside, err = os.MkdirTemp(r.dir, "aside-"+r.now().UTC().Format("20060102T150405Z")+"-*"); err != nil {
		return "", err
	}
	if err := os.Link(path, filepath.Join(aside, fileName)); err != nil && !errors.Is(err, fs.ErrExist) {
		return aside, err
	}
	return aside, syncDir(aside)
}

// Apply repeats batches in one transaction, durably, and returns where the copy is then. A batch that does not follow on what is here, or that is not what
// its digest says, is MC-STANDBY-DIVERGED, and none of them is applied.
func (r *Replica) Apply(ctx context.Context, entries []fleet.LogEntry) (pos fleet.Position, err error) {
	ok, err := r.use(func(db *DB) error {
		pos, err = db.apply(ctx, entries)
		return err
	})
	if !ok {
		return pos, errNoCopy()
	}
	return pos, err
}

func (db *DB) apply(ctx context.Context, entries []fleet.LogEntry) (pos fleet.Position, err error) {
	err = db.exclusive(ctx, func() error {
		err := db.bolt.Update(func(tx *bbolt.Tx) error {
			meta := tx.Bucket(bucketMeta)
			if role, err := readRole(meta); err != nil || role.Kind != fleet.RoleFollows {
				return errors.Join(err, errRole(role))
			}
			for _, e := range entries {
				if err := repeat(tx, e); err != nil {
					return err
				}
			}
			if pos, err = positionOf(tx); err == nil {
				db.feed.lose(pos.Revision)
			}
			return err
		})
		if err != nil {
			return storeError("follow", err)
		}
		db.relay.mu.Lock()
		db.relay.pos = pos
		db.relay.mu.Unlock()
		db.ring()
		return nil
	})
	return pos, err
}

// repeat does one batch after it was compared with what is here.
func repeat(tx *bbolt.Tx, e fleet.LogEntry) error {
	meta := tx.Bucket(bucketMeta)
	b, err := decodeBatch(e.Batch)
	if err != nil {
		return errDiverged("a batch of %d bytes cannot be read", len(e.Batch))
	}
	if at := fleet.Revision(getUint(meta, metaRevision)); b.before != at {
		return errDiverged("a batch leads on from revision %d and this store is at %d", b.before, at)
	}
	chain := nextChain(meta.Get(metaChain), e.Batch)
	if want, err := hex.DecodeString(e.Chain); err != nil || !bytes.Equal(chain, want) {
		return errDiverged("the digest after revision %d is not the other server's", b.after)
	}
	if err := b.do(tx); err != nil {
		return err
	}
	return meta.Put(metaChain, chain)
}

func errDiverged(format string, args ...any) error {
	return fleet.Errorf(fleet.Conflict, "MC-STANDBY-DIVERGED", "what came from the other server does not fit: "+format, args...).
		WithHint("nothing of it was taken over; a whole copy is fetched by itself")
}
