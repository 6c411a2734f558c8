package store_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// healthy fills a store with one of everything, all of it in order.
func healthy(t *testing.T) *store.DB {
	t.Helper()
	db := mustOpen(t, t.TempDir())
	inventory, err := db.PutBlob(context.Background(), "inventory", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	put(t, db, "node/n1", fleet.Node{ID: "n1", Name: "hgx-1", State: fleet.Deploying, Lease: "l1", Dirty: "l1", Operation: "o1", Inventory: inventory, StateSince: now})
	put(t, db, "node/n2", fleet.Node{ID: "n2", Name: "hgx-2", State: fleet.Available})
	put(t, db, "node/n3", fleet.Node{ID: "n3", Name: "hgx-3", State: fleet.Grace, Lease: "l2"})
	put(t, db, "lease/l1", fleet.Lease{ID: "l1", State: fleet.LeaseDeploying, Members: []fleet.Member{
		{Node: "n1", State: fleet.MemberDeploying}, {Node: "n2", State: fleet.MemberReserved}, {Node: "gone", State: fleet.MemberReplaced}}})
	put(t, db, "lease/l2", fleet.Lease{ID: "l2", State: fleet.LeaseReleased, Members: []fleet.Member{{Node: "n3", State: fleet.MemberReleased}}})
	put(t, db, "operation/o1", fleet.Operation{ID: "o1", Node: "n1", State: fleet.OperationRunning})
	put(t, db, "operation/o0", fleet.Operation{ID: "o0", Node: "n1", State: fleet.OperationDone})
	put(t, db, "unique/node-name/HGX-1", "n1")
	put(t, db, "unique/anything", "n2")
	put(t, db, "secret/n1", fleet.NewSecret("hunter2"))
	put(t, db, "site/site", fleet.Site{Isolation: "none"})
	put(t, db, "class/c", fleet.Class{Name: "c"})
	put(t, db, "image/i", fleet.Image{Name: "i"})
	if _, err := db.Commit(context.Background(), fleet.Change{Events: []fleet.Event{{Type: "a"}, {Type: "b"}}}); err != nil {
		t.Fatal(err)
	}
	if problems := db.Check(context.Background()); problems != nil {
		t.Fatalf("a healthy store: %v", problems)
	}
	return db
}

// raw writes below the store's own checks.
func raw(bucket, key string, value []byte) func(*testing.T, *store.DB) {
	return func(t *testing.T, db *store.DB) {
		err := db.Bolt().Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), value) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

func value(key string, v any) func(*testing.T, *store.DB) {
	return func(t *testing.T, db *store.DB) { put(t, db, key, v) }
}

func TestCheckFinds(t *testing.T) {
	event := "\x00\x00\x00\x00\x00\x00\x00\x02"
	for name, c := range map[string]struct {
		damage func(*testing.T, *store.DB)
		want   string
	}{
		"S2 no record":                  {raw("records", "x/a", []byte("?")), "x/a: is no record"},
		"S2 another kind":               {raw("records", "x/a", store.EncodeRecord("y", 1, 1, "1")), "x/a: is of another kind"},
		"S2 a version of tomorrow":      {raw("records", "x/a", store.EncodeRecord("x", 2, 1, "1")), "x/a: has version 2"},
		"S2 a revision of tomorrow":     {raw("records", "x/a", store.EncodeRecord("x", 1, 9999, "1")), "x/a: is of revision 9999"},
		"S2 no JSON":                    {raw("records", "x/a", store.EncodeRecord("x", 1, 1, "{")), "x/a: is not JSON"},
		"S2 no node":                    {value("node/n9", []int{1}), "node/n9: does not decode"},
		"S2 another id":                 {value("node/n9", fleet.Node{ID: "n8"}), `node/n9: holds the id "n8"`},
		"S3 nobody's unique value":      {value("unique/node-name/x", "n9"), `unique/node-name/x: names "n9", which does not exist`},
		"S3 another kind's value":       {value("unique/image-name/x", "n1"), `unique/image-name/x: names "n1", which is no image`},
		"S3 a renamed owner":            {value("unique/node-name/old", "n1"), `whose name is "hgx-1"`},
		"S4 a member that is gone":      {value("lease/l3", fleet.Lease{ID: "l3", State: fleet.LeaseActive, Members: []fleet.Member{{Node: "n9", State: fleet.MemberReady}}}), "lease/l3: has the member n9, which does not exist"},
		"S4 a member of another":        {value("lease/l3", fleet.Lease{ID: "l3", State: fleet.LeaseActive, Members: []fleet.Member{{Node: "n3", State: fleet.MemberReady}}}), "lease/l3: has the member n3, whose lease is l2"},
		"S4 a ready member without":     {value("lease/l3", fleet.Lease{ID: "l3", State: fleet.LeaseActive, Members: []fleet.Member{{Node: "n4", State: fleet.MemberReady}}}), "lease/l3: has the member n4"},
		"S4 two leases for one node":    {value("lease/l3", fleet.Lease{ID: "l3", State: fleet.LeaseAllocating, Members: []fleet.Member{{Node: "n2", State: fleet.MemberReserved}}}), "as well"},
		"S4 a lease that is gone":       {value("node/n2", fleet.Node{ID: "n2", Lease: "l9"}), "node/n2: is in the lease l9, which does not exist"},
		"S4 a lease that knows nothing": {value("node/n4", fleet.Node{ID: "n4", Lease: "l2"}), "node/n4: is in the lease l2, which does not list it"},
		"S5 two open operations":        {value("operation/o2", fleet.Operation{ID: "o2", Node: "n1", State: fleet.OperationPending}), "is open on node n1 beside"},
		"S5 an operation nobody runs":   {value("operation/o2", fleet.Operation{ID: "o2", Node: "n2", State: fleet.OperationPending}), `operation/o2: is open on node n2, which points to ""`},
		"S5 an operation of nobody":     {value("operation/o2", fleet.Operation{ID: "o2", Node: "n9", State: fleet.OperationPending}), "operation/o2: is open on node n9, which does not exist"},
		"S5 a pointer into the void":    {value("node/n2", fleet.Node{ID: "n2", Operation: "o9"}), "node/n2: points to the operation o9"},
		"S5 a pointer to another's":     {value("node/n2", fleet.Node{ID: "n2", Operation: "o0"}), "node/n2: points to the operation o0, which is of node n1"},
		"S6 a fat node":                 {value("node/n2", fleet.Node{ID: "n2", BMC: fleet.BMC{BootMethod: strings.Repeat("x", 4096)}}), "node/n2: has 4"},
		"S7 a missing blob":             {value("node/n2", fleet.Node{ID: "n2", Inventory: "sha256:" + strings.Repeat("0", 64)}), "node/n2: names the blob"},
		"S8 a secret of another key":    {raw("records", "secret/x", store.EncodeRecord("secret", 1, 1, strings.Repeat("s", 200))), "secret/x: cannot be decrypted"},
		"S9 an event of tomorrow":       {raw("events", event, append([]byte{0, 0, 0, 0, 0, 0, 99, 99}, `{"at":"2026-01-01T00:00:00Z"}`...)), "event/2: is of revision"},
		"S9 an event that is none":      {raw("events", event, []byte("12345678{")), "decode event 2"},
		"S9 a gap": {func(t *testing.T, db *store.DB) {
			err := db.Bolt().Update(func(tx *bbolt.Tx) error {
				b := tx.Bucket([]byte("events"))
				return b.Put([]byte("\x00\x00\x00\x00\x00\x00\x00\x09"), bytes.TrimRight(b.Get([]byte(event)), " \t\r\n")) // as a program without checksums wrote it
			})
			if err != nil {
				t.Fatal(err)
			}
		}, "event/9: follows event 2"},
	} {
		t.Run(name, func(t *testing.T) {
			db := healthy(t)
			put(t, db, "node/n4", fleet.Node{ID: "n4", Name: "hgx-4", State: fleet.Available})
			c.damage(t, db)
			var all []string
			for _, p := range db.Check(context.Background()) {
				all = append(all, p.String())
			}
			if !strings.Contains(strings.Join(all, "\n"), c.want) {
				t.Errorf("the check found %q, want %q", all, c.want)
			}
		})
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte("x/a"), store.EncodeRecord("x", 1, 7, `{"a":1}`))
	f.Add([]byte("node/1"), []byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 255, 'n'})
	f.Fuzz(func(t *testing.T, key, b []byte) {
		r, err := store.DecodeRecord(key, b)
		if err != nil {
			return
		}
		if again := store.EncodeRecord(r.Key.Kind(), r.Version, int64(r.Revision), string(r.Data)); string(again) != string(b) {
			t.Errorf("%x decodes and encodes to %x", b, again)
		}
	})
}
