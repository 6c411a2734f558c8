package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

func readBlob(t *testing.T, db *store.DB, digest string) []byte {
	t.Helper()
	b, err := db.OpenBlob(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBlobs(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := contract.OpenStoreIn(t, dir, store.Options{Limits: store.Limits{BlobBytes: 1 << 20}})
	for name, content := range map[string][]byte{"empty": {}, "small": []byte("hello"), "large": bytes.Repeat([]byte("0123456789abcdef"), 60000)} {
		for _, kind := range []string{"inventory", store.BlobUserData} {
			digest, err := db.PutBlob(ctx, kind, bytes.NewReader(content))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if again, err := db.PutBlob(ctx, kind, bytes.NewReader(content)); err != nil || again != digest {
				t.Errorf("%s: the same bytes got %s, then %s, %v", name, digest, again, err)
			}
			if got := readBlob(t, db, digest); !bytes.Equal(got, content) {
				t.Errorf("%s: read back %d of %d bytes", name, len(got), len(content))
			}
		}
	}
	_, err := db.PutBlob(ctx, "inventory", io.LimitReader(zeros{}, 1<<20+1))
	wantCode(t, err, fleet.Invalid, "MC-STORE-LIMIT")
	_, err = db.PutBlob(ctx, "../x", strings.NewReader(""))
	wantCode(t, err, fleet.Invalid, "MC-STORE-VALUE")
	_, err = db.OpenBlob(ctx, "sha256:../../x")
	wantCode(t, err, fleet.Invalid, "MC-STORE-VALUE")
	_, err = db.OpenBlob(ctx, "sha256:"+strings.Repeat("0", 64))
	wantCode(t, err, fleet.NotFound, "MC-STORE-ABSENT")
	cut := errors.New("cable cut")
	if _, err = db.PutBlob(ctx, "inventory", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(cut))); !errors.Is(err, cut) {
		t.Errorf("a source that breaks off: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "blobs", "*", ".tmp-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBlobDamaged(t *testing.T) {
	for _, kind := range []string{"inventory", store.BlobUserData} {
		dir := t.TempDir()
		db := mustOpen(t, dir)
		digest, err := db.PutBlob(context.Background(), kind, strings.NewReader("a report"))
		if err != nil {
			t.Fatal(err)
		}
		path, _ := filepath.Glob(filepath.Join(dir, "blobs", kind, "*", "*"))
		b, err := os.ReadFile(path[0])
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		if err := os.WriteFile(path[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = db.OpenBlob(context.Background(), digest)
		wantCode(t, err, fleet.Broken, "MC-STORE-BLOB")
		if problems := db.Check(context.Background()); len(problems) != 1 {
			t.Errorf("%s: the check found %v", kind, problems)
		}
	}
}

func TestSweepBlobs(t *testing.T) {
	ctx := context.Background()
	db := contract.OpenStoreIn(t, t.TempDir(), store.Options{Now: func() time.Time { return time.Now().Add(time.Hour) }})
	used, err1 := db.PutBlob(ctx, "report", strings.NewReader("used"))
	idle, err2 := db.PutBlob(ctx, "report", strings.NewReader("idle"))
	other, err3 := db.PutBlob(ctx, "inventory", strings.NewReader("other kind"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	inUse := func(d string) bool { return d == used }
	if n, err := db.SweepBlobs(ctx, "report", 2*time.Hour, inUse); n != 0 || err != nil {
		t.Errorf("swept %d young blobs, %v", n, err)
	}
	if n, err := db.SweepBlobs(ctx, "report", time.Minute, inUse); n != 1 || err != nil {
		t.Errorf("swept %d blobs, %v", n, err)
	}
	if n, err := db.SweepBlobs(ctx, "never-seen", 0, inUse); n != 0 || err != nil {
		t.Errorf("swept %d of a kind that has none, %v", n, err)
	}
	readBlob(t, db, used)
	readBlob(t, db, other)
	_, err := db.OpenBlob(ctx, idle)
	wantCode(t, err, fleet.NotFound, "MC-STORE-ABSENT")
}
