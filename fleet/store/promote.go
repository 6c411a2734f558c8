package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

// Promote makes the copy a store that acts, in a new life, from which on nothing that the other server commits belongs to it. With handsOff the calls of
// that one may still run. The folder is closed afterwards: Open it.
func (r *Replica) Promote(ctx context.Context, why string, handsOff bool) (id fleet.StoreIdentity, err error) {
	ok, err := r.use(func(db *DB) error {
		id, err = db.Promote(ctx, why, handsOff)
		return err
	})
	if !ok {
		return id, errNoCopy()
	}
	if err != nil {
		return id, err
	}
	return id, r.Close()
}

// Promote begins a new life of the store, in which its server acts. It is for a store that follows or has retired, and for one that acts and whose server
// does not know whether another took over. Close and Open it afterwards.
func (db *DB) Promote(ctx context.Context, why string, handsOff bool) (id fleet.StoreIdentity, err error) {
	err = db.exclusive(ctx, func() error {
		now := db.now()
		err := db.bolt.Update(func(tx *bbolt.Tx) error {
			meta := tx.Bucket(bucketMeta)
			role, err := readRole(meta)
			if err != nil {
				return err
			}
			if err := appendLife(meta, now); err != nil {
				return err
			}
			if err := leavePartner(tx, role.Kind, now.UTC().Truncate(time.Second)); err != nil {
				return err
			}
			if err := putRole(meta, fleet.StoreRole{Peer: role.Peer, Why: why, Since: now.UTC().Truncate(time.Second), HandsOff: handsOff}); err != nil {
				return fmt.Errorf("write the store's role: %w", err)
			}
			id, err = identityOf(tx)
			return err
		})
		return storeError("take over", err)
	})
	return id, err
}

// leavePartner makes the follower that is recorded nobody's follower: who follows from now on is recorded anew. What stays of it is the other server's
// addresses. For a store that followed that is the one that was followed, for one that had a follower that one.
func leavePartner(tx *bbolt.Tx, was fleet.RoleKind, now time.Time) error {
	records := tx.Bucket(bucketRecords)
	raw := records.Get([]byte(fleet.FollowerKey))
	if raw == nil {
		return nil
	}
	r, err := decodeRecord([]byte(fleet.FollowerKey), raw)
	if err != nil {
		return err
	}
	var f fleet.Follower
	if err := json.Unmarshal(r.Data, &f); err != nil {
		return fmt.Errorf("decode the follower: %w", err)
	}
	p := fleet.Partner{URL: f.URL, Nodes: f.Nodes, Since: now}
	if was == fleet.RoleFollows {
		p.URL, p.Nodes = f.Primary, f.PrimaryNodes
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	rev := fleet.Revision(getUint(tx.Bucket(bucketMeta), metaRevision))
	return errors.Join(records.Delete([]byte(fleet.FollowerKey)),
		records.Put([]byte(fleet.PartnerKey), withSum([]byte(fleet.PartnerKey), encodeRecord(fleet.KindMeta, versionOf(fleet.KindMeta), rev, data))))
}
