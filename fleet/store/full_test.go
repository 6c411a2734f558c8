package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// TestFullDisk fills the disk and tries each kind of write: each says so, nothing acknowledged is lost, and all goes on once there is space.
func TestFullDisk(t *testing.T) {
	ctx := context.Background()
	disk := contract.SmallDisk(t, 12)
	dir := filepath.Join(disk, "data")
	db, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "x/before", "kept")
	db.AppendTimeline("n1", fleet.TimelineEntry{At: time.Unix(1, 0).UTC(), Source: "state", Text: "before"})
	if err := db.FlushTimeline(); err != nil {
		t.Fatal(err)
	}
	free := contract.Fill(t, disk)

	acknowledged, refused := 0, 0
	for i := 0; i < 200 && refused < 5; i++ {
		_, err := db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.Key(fmt.Sprintf("x/%03d", i)), Value: strings.Repeat("v", 100<<10)}}})
		if err == nil && refused == 0 {
			acknowledged++
			continue
		}
		wantCode(t, err, fleet.Unavailable, "MC-STORE-FULL")
		if fleet.HintOf(err) == "" {
			t.Error("the error has no hint")
		}
		refused++
	}
	if refused == 0 {
		t.Fatal("no commit was refused: the disk did not fill")
	}
	if got := get[string](t, db, "x/before"); got != "kept" {
		t.Errorf("on a full disk: %q", got)
	}
	_, err = db.PutBlob(ctx, "inventory", io.LimitReader(zeros{}, 1<<20))
	wantCode(t, err, fleet.Unavailable, "MC-STORE-FULL")
	long := strings.Repeat("t", 8000)
	db.AppendTimeline("n1", fleet.TimelineEntry{At: time.Unix(2, 0).UTC(), Source: "state", Text: long})
	wantCode(t, db.FlushTimeline(), fleet.Unavailable, "MC-STORE-FULL")

	free()
	put(t, db, "x/after", "kept as well")
	digest, err := db.PutBlob(ctx, "inventory", bytes.NewReader([]byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.FlushTimeline(); err != nil {
		t.Error(err)
	}
	if problems := db.Check(ctx); problems != nil {
		t.Error(problems)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	again := mustOpen(t, dir)
	defer again.Close()
	for i := range acknowledged {
		if got := get[string](t, again, fmt.Sprintf("x/%03d", i)); len(got) != 100<<10 {
			t.Errorf("x/%03d has %d bytes", i, len(got))
		}
	}
	if got := get[string](t, again, "x/after"); got != "kept as well" {
		t.Errorf("got %q", got)
	}
	if b, err := again.OpenBlob(ctx, digest); err != nil {
		t.Error(err)
	} else {
		b.Close()
	}
	entries, err := again.ReadTimeline(ctx, "n1", time.Time{}, 0)
	if err != nil || len(entries) != 2 || entries[0].Text != "before" || entries[1].Text != long {
		t.Errorf("the timeline has %d entries, %v", len(entries), err)
	}
	if problems := again.Check(ctx); problems != nil {
		t.Error(problems)
	}
}

// TestFullDiskAtOpen: neither a first start nor a migration leaves something half-done on a full disk.
func TestFullDiskAtOpen(t *testing.T) {
	disk := contract.SmallDisk(t, 4)
	dir := filepath.Join(disk, "data")
	free := contract.Fill(t, disk)
	if db, err := store.Open(dir, store.Options{Key: contract.TestKey()}); err == nil {
		db.Close()
		t.Fatal("opened a new store on a full disk")
	} else {
		wantCode(t, err, fleet.Unavailable, "MC-STORE-FULL")
	}
	free()
	db, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "x/a", strings.Repeat("v", 100<<10))
	db.Close()

	free = contract.Fill(t, disk)
	_, err = store.Open(dir, store.Options{Key: contract.TestKey()}.WithSchema(2, nil))
	wantCode(t, err, fleet.Unavailable, "MC-STORE-FULL")
	if left, _ := filepath.Glob(filepath.Join(dir, "backups", "*")); len(left) > 0 {
		t.Errorf("a backup that failed left %v", left)
	}
	free()
	again := mustOpen(t, dir)
	defer again.Close()
	if got := get[string](t, again, "x/a"); len(got) != 100<<10 {
		t.Errorf("x/a has %d bytes", len(got))
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
