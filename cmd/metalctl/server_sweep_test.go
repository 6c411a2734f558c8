//go:build !ramdisk

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// TestSweepOnce: what a tenant handed in goes when its lease is over for good, and old inventories after their time; what a record needs stays.
func TestSweepOnce(t *testing.T) {
	ctx := context.Background()
	later := time.Now()
	db := contract.OpenStoreIn(t, t.TempDir(), store.Options{Now: func() time.Time { return later }})
	put := func(kind, text string) string {
		t.Helper()
		digest, err := db.PutBlob(ctx, kind, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	newest, older := put("inventory", "newest"), put("inventory", "older")
	living, grace, released := put(store.BlobUserData, "living"), put(store.BlobUserData, "grace"), put(store.BlobUserData, "released")
	lease := func(id, data string, state fleet.LeaseState, members ...fleet.Member) fleet.Write {
		return fleet.Write{Key: fleet.KeyOf(fleet.KindLease, fleet.LeaseID(id)), Value: fleet.Lease{ID: fleet.LeaseID(id), State: state, UserData: data, Members: members}}
	}
	left := put("evidence", "of a try that failed")
	named, unnamed := put("evidence", "named"), put("evidence", "of a try that was overtaken")
	_, err := db.Commit(ctx, fleet.Change{Writes: []fleet.Write{
		{Key: "node/n1", Value: fleet.Node{ID: "n1", Name: "n1", State: fleet.Grace, Lease: "l2", Inventory: newest}},
		{Key: "operation/o1", Value: fleet.Operation{ID: "o1", Node: "n1", State: fleet.OperationDone, Steps: []fleet.StepRun{{Name: "x", Left: []string{left}}, {Name: "y", Evidence: json.RawMessage(`{"blob":"` + named + `","evidence":[1]}`)}}}},
		lease("l1", living, fleet.LeaseActive), lease("l2", grace, fleet.LeaseReleased, fleet.Member{Node: "n1", State: fleet.MemberReleased}), lease("l3", released, fleet.LeaseReleased),
	}})
	if err != nil {
		t.Fatal(err)
	}
	there := func(digest string) bool {
		b, err := db.OpenBlob(ctx, digest)
		if err == nil {
			b.Close()
		}
		return err == nil
	}
	for _, c := range []struct {
		after         time.Duration
		removed       int
		released, old bool
	}{{time.Hour, 0, true, true}, {25 * time.Hour, 2, false, true}, {91 * 24 * time.Hour, 1, false, false}} {
		later = time.Now().Add(c.after)
		n, err := sweepOnce(ctx, db)
		if err != nil || n != c.removed {
			t.Errorf("after %s: %d were removed, want %d, %v", c.after, n, c.removed, err)
		}
		if !there(named) || !there(left) || there(unnamed) != c.released {
			t.Errorf("after %s: evidence that a journal names is there: %v; that none names: %v", c.after, there(named), there(unnamed))
		}
		if there(released) != c.released || there(older) != c.old || !there(living) || !there(grace) || !there(newest) {
			t.Errorf("after %s: of a released lease %v, older inventory %v, living %v, in grace %v, newest inventory %v", c.after, there(released), there(older), there(living), there(grace), there(newest))
		}
	}
}
