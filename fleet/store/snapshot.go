package store

import (
	"bytes"
	"encoding/json"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// snapshot is one read transaction. What it hands out is copied: a slice of bbolt's mapping would be a trap after View returns.
type snapshot struct {
	tx    *bbolt.Tx
	seal  *sealer
	shelf *shelf
	feed  *feed
}

func (s *snapshot) Revision() fleet.Revision {
	return fleet.Revision(getUint(s.tx.Bucket(bucketMeta), metaRevision))
}

func (s *snapshot) Get(key fleet.Key) (fleet.Record, error) {
	v := s.tx.Bucket(bucketRecords).Get([]byte(key))
	if v == nil {
		return fleet.Record{}, fleet.Errorf(fleet.NotFound, "MC-STORE-ABSENT", "there is no %s", key)
	}
	return s.record([]byte(key), v)
}

// Since implements fleet.Feed.
func (s *snapshot) Since(kind string, rev fleet.Revision) ([]fleet.Key, bool) {
	return s.feed.since(kind, rev, s.Revision())
}

// Kept implements fleet.Shelf.
func (s *snapshot) Kept(key fleet.Key, decode func(json.RawMessage) (fleet.Keeper, error)) (fleet.Kept, error) {
	v := s.tx.Bucket(bucketRecords).Get([]byte(key))
	if v == nil {
		return fleet.Kept{}, fleet.Errorf(fleet.NotFound, "MC-STORE-ABSENT", "there is no %s", key)
	}
	if k, ok := s.shelf.get(key, recordRevision(v)); ok {
		return k, nil
	}
	r, err := s.record([]byte(key), v)
	if err != nil {
		return fleet.Kept{}, err
	}
	k := fleet.Kept{Data: r.Data, Revision: r.Revision}
	if k.Value, err = decode(r.Data); err != nil {
		return k, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", key, err)
	}
	s.shelf.add(key, k)
	return k, nil
}

func (s *snapshot) List(kind string, yield func(fleet.Record) bool) error {
	prefix := []byte(kind + "/")
	c := s.tx.Bucket(bucketRecords).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		r, err := s.record(k, v)
		if err != nil {
			return err
		}
		if !yield(r) {
			return nil
		}
	}
	return nil
}

func (s *snapshot) Revisions(kind string, yield func(fleet.Key, fleet.Revision) bool) error {
	prefix := []byte(kind + "/")
	c := s.tx.Bucket(bucketRecords).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		r, err := decodeRecord(k, v)
		if err != nil {
			return fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", k, err).WithHint("metalctl server check")
		}
		if !yield(r.Key, r.Revision) {
			return nil
		}
	}
	return nil
}

func (s *snapshot) record(key, v []byte) (fleet.Record, error) {
	r, err := decodeRecord(key, v)
	if err != nil {
		return r, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", key, err).WithHint("metalctl server check")
	}
	if r.Key.Kind() != fleet.KindSecret {
		r.Data = bytes.Clone(r.Data)
		return r, nil
	}
	text, err := s.seal.open(key, r.Data)
	if err != nil {
		return r, fleet.Errorf(fleet.Broken, "MC-STORE-DECODE", "decode record %s: %w", key, err).WithHint("metalctl server check")
	}
	r.Data, err = json.Marshal(string(text))
	return r, err
}
