package store

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// metaLives holds every life of the store, oldest first, as JSON.
var metaLives = []byte("lives")

// newEpoch makes 80 random bits in lower-case letters and digits, which any log and any BMC takes.
func newEpoch() string {
	b := make([]byte, 10)
	rand.Read(b)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}

// appendLife begins a new life of the store at the revision that it has.
func appendLife(meta *bbolt.Bucket, now time.Time) error {
	lives, err := readLives(meta)
	if err != nil {
		return err
	}
	lives = append(lives, fleet.StoreLife{Epoch: newEpoch(), From: fleet.Revision(getUint(meta, metaRevision)), At: now.UTC().Truncate(time.Second)})
	b, err := json.Marshal(lives)
	if err != nil {
		return fmt.Errorf("encode the store's lives: %w", err)
	}
	return meta.Put(metaLives, b)
}

func readLives(meta *bbolt.Bucket) ([]fleet.StoreLife, error) {
	raw := meta.Get(metaLives)
	if raw == nil {
		return nil, nil
	}
	var lives []fleet.StoreLife
	if err := json.Unmarshal(raw, &lives); err != nil {
		return nil, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode the store's lives: %w", err).WithHint("metalctl server check")
	}
	return lives, nil
}

// Identity says which store this is: its lives, the last of which is the present one, and the revision that it is at.
func (db *DB) Identity(ctx context.Context) (fleet.StoreIdentity, error) {
	var id fleet.StoreIdentity
	if err := ctx.Err(); err != nil {
		return id, err
	}
	err := db.bolt.View(func(tx *bbolt.Tx) (err error) {
		id, err = identityOf(tx)
		return err
	})
	return id, storeError("read the store's identity", err)
}

func identityOf(tx *bbolt.Tx) (fleet.StoreIdentity, error) {
	meta := tx.Bucket(bucketMeta)
	lives, err := readLives(meta)
	return fleet.StoreIdentity{Lives: lives, Revision: fleet.Revision(getUint(meta, metaRevision))}, err
}

var errNoLife = errors.New("the store has no life yet")

// ensureLife gives a store that has none, because an older program made it, its first life.
func (db *DB) ensureLife() error {
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		id, err := identityOf(tx)
		if err == nil && len(id.Lives) == 0 {
			return errNoLife
		}
		return err
	})
	if !errors.Is(err, errNoLife) {
		return storeError("read the store's identity", err)
	}
	err = db.bolt.Update(func(tx *bbolt.Tx) error { return appendLife(tx.Bucket(bucketMeta), db.now()) })
	return storeError("begin the store's first life", err)
}
