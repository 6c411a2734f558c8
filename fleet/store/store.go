// Package store remembers everything durable: records and events in one bbolt file, blobs and timelines in files beside it.
package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Options of Open. Exactly one of Key and KeyFile is needed.
type Options struct {
	// Key is the master key that secrets are sealed with, KeySize bytes, kept outside the data folder.
	Key []byte
	// KeyFile holds it as LoadOrCreateKey wrote it; the file must exist.
	KeyFile string
	// Now is the clock; nil takes time.Now.
	Now func() time.Time
	// Log gets what an operator should know; nil is silent.
	Log *slog.Logger
	// Backups is the folder with further backups than those below the data folder, for whoever meets a damaged store; may be "".
	Backups string
	Limits  Limits
	// AnyRole opens a store whose server does not act (it follows another, or was taken over from), too, for reading: it is not migrated and takes no
	// changes. Without it such a store is refused: MC-STANDBY-FOLLOWS, MC-STANDBY-RETIRED.
	AnyRole bool
	// May is asked before each batch whether this server may commit; what it answers is what the batch gets. nil: it may.
	May func() error

	// migrations and schema are replaced by tests of the migration itself.
	migrations []migration
	schema     uint64
}

// Limits bound what the store keeps. Zero values take the defaults that stand in their comments.
type Limits struct {
	// Events is how many events are kept; 100,000.
	Events int
	// TimelineBytes is the size of one of a node's two timeline segments; 1 MiB.
	TimelineBytes int64
	// BlobBytes is the largest blob; 1 GiB.
	BlobBytes int64
}

const (
	// MaxKeys and MaxBytes bound one Change, so that it fits etcd's transactions from the start.
	MaxKeys  = 64
	MaxBytes = 512 << 10

	fileName    = "store.db"
	lockTimeout = time.Second
	// mmapSize is address space, not memory: below it a reader never makes the committer wait for a new mapping.
	mmapSize = 256 << 20
)

var (
	bucketMeta    = []byte("meta")
	bucketRecords = []byte("records")
	bucketEvents  = []byte("events")

	metaSchema   = []byte("schema")
	metaRevision = []byte("revision")
	metaKeyCheck = []byte("keycheck")
)

// DB is the embedded store: fleet.Store, fleet.Blobs and fleet.Timeline in one data folder, for one process. Close ends it.
type DB struct {
	dir    string
	half   bool // one of the two first pages was damaged when it was opened
	bolt   *bbolt.DB
	seal   *sealer
	now    func() time.Time
	log    *slog.Logger
	limits Limits

	timeline *timeline
	shelf    shelf
	feed     feed
	durable  durable

	relay *relay
	// epoch is the store's present life. broken is why nothing more is committed, nil while something is; it belongs to the committer.
	epoch  string
	broken error
	may    func() error

	queue   chan *request
	control chan func() // what runs between two batches
	closing chan struct{}
	stopped chan struct{}
	once    sync.Once

	mu      sync.Mutex // guards changed
	changed chan struct{}
}

var (
	_ fleet.Store    = (*DB)(nil)
	_ fleet.Blobs    = (*DB)(nil)
	_ fleet.Timeline = (*DB)(nil)
)

// Open opens or makes the store in the data folder dir and starts its committer. Errors: MC-STORE-BUSY where another process has it open,
// MC-STORE-KEY where the master key is missing or another one, MC-STORE-NEWER where a newer program wrote it, MC-STORE-DAMAGED where any page, record or event is
// not what was written; its hint names the newest backup that is sound.
func Open(dir string, o Options) (*DB, error) {
	o = o.withDefaults()
	key := o.Key
	if key == nil && o.KeyFile != "" {
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
	if err := refuseHalfRestored(dir); err != nil {
		return nil, err
	}
	half, err := proveFile(dir, o)
	if err != nil {
		return nil, err
	}
	bolt, err := openFile(filepath.Join(dir, fileName))
	if err != nil {
		return nil, err
	}
	db := &DB{
		dir: dir, half: half, bolt: bolt, seal: seal, now: o.Now, log: o.Log, limits: o.Limits, may: o.May,
		relay: newRelay(), control: make(chan func()),
		queue: make(chan *request, 256), closing: make(chan struct{}), stopped: make(chan struct{}), changed: make(chan struct{}),
	}
	if err := db.begin(o); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	if db.timeline, err = openTimeline(filepath.Join(dir, "timeline"), db.limits.TimelineBytes, db.log); err != nil {
		return nil, errors.Join(openError(dir, err), bolt.Close())
	}
	go db.commitLoop()
	return db, nil
}

// begin makes the file ready for its committer.
func (db *DB) begin(o Options) error {
	if err := db.admit(o); err != nil {
		return err
	}
	if err := db.prepare(o); err != nil {
		return err
	}
	if db.broken == nil {
		if err := db.ensureLife(); err != nil {
			return err
		}
	}
	err := db.relay.begin(db.bolt)
	db.epoch = db.relay.pos.Epoch
	db.feed.begin(db.relay.pos.Revision)
	return storeError("read the store's position", err)
}

// admit refuses a store whose server does not act, or lets nothing be committed to it.
func (db *DB) admit(o Options) error {
	var role fleet.StoreRole
	err := db.bolt.View(func(tx *bbolt.Tx) (err error) {
		if meta := tx.Bucket(bucketMeta); meta != nil {
			role, err = readRole(meta)
		}
		return err
	})
	switch {
	case err != nil:
		return storeError("read the store's role", err)
	case role.Kind == fleet.RoleActs:
		return nil
	case !o.AnyRole:
		return errRole(role)
	}
	db.broken = errRole(role)
	return nil
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.May == nil {
		o.May = func() error { return nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Limits.Events == 0 {
		o.Limits.Events = 100_000
	}
	if o.Limits.TimelineBytes == 0 {
		o.Limits.TimelineBytes = 1 << 20
	}
	if o.Limits.BlobBytes == 0 {
		o.Limits.BlobBytes = 1 << 30
	}
	if o.schema == 0 {
		o.schema, o.migrations = Schema, migrations
	}
	return o
}

// openFile opens bbolt's file under its lock and makes its name durable.
func openFile(path string) (*bbolt.DB, error) {
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, InitialMmapSize: mmapSize})
	if err != nil {
		return nil, openError(path, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(openError(path, err), bolt.Close())
	}
	return bolt, nil
}

// prepare makes a new file's buckets, refuses a wrong key or a newer schema, and migrates an older one.
func (db *DB) prepare(o Options) error {
	var found uint64
	var check []byte
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		if meta := tx.Bucket(bucketMeta); meta != nil {
			found = getUint(meta, metaSchema)
			check = append(check, meta.Get(metaKeyCheck)...)
		}
		return nil
	})
	if err != nil {
		return openError(db.dir, err)
	}
	if found > o.schema {
		return errNewer(db.dir, found, o.schema)
	}
	if found != 0 {
		if err := db.seal.verify(check); err != nil {
			return fleet.Errorf(fleet.Denied, "MC-STORE-KEY", "the master key is not the one that the store in %s was made with", db.dir).
				WithHint("give the key file that belongs to this data folder")
		}
		if db.broken != nil {
			return nil // it is migrated when it acts: what it follows goes on in the older schema
		}
		return db.migrate(found, o)
	}
	sealed, err := db.seal.seal(metaKeyCheck, []byte(keyCheckText))
	if err != nil {
		return err
	}
	err = db.bolt.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketRecords, bucketEvents} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if err := meta.Put(metaKeyCheck, sealed); err != nil {
			return err
		}
		return putUint(meta, metaSchema, o.schema)
	})
	if err != nil {
		return openError(db.dir, err)
	}
	return nil
}

// Close waits for the commit that runs, refuses those that wait with MC-STORE-CLOSED, writes what the timeline still holds and closes the file.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		close(db.closing)
		<-db.stopped
		err = errors.Join(db.timeline.close(), db.bolt.Close())
	})
	return err
}

// Dir is the data folder.
func (db *DB) Dir() string { return db.dir }

// View implements fleet.Store.
func (db *DB) View(ctx context.Context, f func(fleet.Snapshot) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tx, err := db.bolt.Begin(false)
	if err != nil {
		return storeError("read the store", err)
	}
	defer tx.Rollback() //nolint:errcheck // a read transaction has nothing to lose
	db.shelf.age(time.Now())
	return f(&snapshot{tx: tx, seal: db.seal, shelf: &db.shelf, feed: &db.feed})
}

// Changed implements fleet.Store.
func (db *DB) Changed() <-chan struct{} {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.changed
}

func (db *DB) ring() {
	db.mu.Lock()
	defer db.mu.Unlock()
	close(db.changed)
	db.changed = make(chan struct{})
}

func getUint(b *bbolt.Bucket, key []byte) uint64 {
	v := b.Get(key)
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func putUint(b *bbolt.Bucket, key []byte, n uint64) error {
	return b.Put(key, binary.BigEndian.AppendUint64(nil, n))
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", dir, err), d.Close())
	}
	return d.Close()
}
