package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Events implements fleet.Store. Ids count up by one, so that a gap between after and the oldest kept event means that some were dropped; an id
// from the future belongs to another life of the store (a restored backup) and is answered the same way.
func (db *DB) Events(ctx context.Context, after int64, limit int) ([]fleet.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []fleet.Event
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEvents)
		c := b.Cursor()
		last, oldest := int64(b.Sequence()), int64(b.Sequence())+1
		if k, _ := c.First(); k != nil {
			oldest = int64(binary.BigEndian.Uint64(k))
		}
		if after > last || after < oldest-1 && (after > 0 || oldest > 1) {
			return fleet.Errorf(fleet.NotFound, "MC-EVENTS-GONE", "event %d is not kept; the oldest is %d and the newest %d", after, oldest, last).
				WithHint("list the resources anew, then follow from event %d", last)
		}
		for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, uint64(after)+1)); k != nil && len(out) < limit; k, v = c.Next() {
			e, err := decodeEvent(k, v)
			if err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	})
	return out, storeError("read events", err)
}

// LastEvent returns the newest event's id, 0 where there was none: where a follower that has just listed begins.
func (db *DB) LastEvent(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var id int64
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		id = int64(tx.Bucket(bucketEvents).Sequence())
		return nil
	})
	return id, storeError("read events", err)
}

func decodeEvent(k, v []byte) (fleet.Event, error) {
	var e fleet.Event
	v, _, err := cutSum(k, v)
	if err != nil {
		return e, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode event %x: %w", k, err)
	}
	if len(k) != 8 || len(v) < 8 {
		return e, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode event %x: too short", k)
	}
	if err := json.Unmarshal(v[8:], &e); err != nil {
		return e, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode event %d: %w", binary.BigEndian.Uint64(k), err)
	}
	e.ID = int64(binary.BigEndian.Uint64(k))
	e.Revision = fleet.Revision(binary.BigEndian.Uint64(v))
	return e, nil
}

// trimEvents drops the oldest events over keep.
func trimEvents(events *bbolt.Bucket, keep int) error {
	last := events.Sequence()
	if last <= uint64(keep) {
		return nil
	}
	c := events.Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= last-uint64(keep); k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return fmt.Errorf("drop event: %w", err)
		}
	}
	return nil
}
