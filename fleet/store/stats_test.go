package store_test

import (
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// Stats counts records, events and files by kind, and a write more is one more.
func TestStats(t *testing.T) {
	db := contract.OpenStore(t)
	before, err := db.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.PutBlob(t.Context(), "attachment", strings.NewReader("twelve bytes")); err != nil {
		t.Fatal(err)
	}
	const key fleet.Key = "site/01900000-0000-7000-8000-000000000001"
	rev, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{{Key: key, Value: map[string]string{"a": "b"}}}, Events: []fleet.Event{{Type: "t", Subject: key}}})
	if err != nil {
		t.Fatal(err)
	}
	after, err := db.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := after.Kinds[fleet.KindSite].Count - before.Kinds[fleet.KindSite].Count; got != 1 {
		t.Errorf("%d records more, want 1", got)
	}
	if got := after.Events.Count - before.Events.Count; got != 1 {
		t.Errorf("%d events more, want 1", got)
	}
	if got, want := after.Blobs["attachment"], (store.Amount{Count: 1, Bytes: 12}); got != want {
		t.Errorf("blobs %v, want %v", got, want)
	}
	if after.Identity.Revision != rev || after.Schema == 0 || after.Size == 0 {
		t.Errorf("%+v does not say which store it is", after)
	}
}
