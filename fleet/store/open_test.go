package store_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

func put(t *testing.T, db *store.DB, key string, v any) {
	t.Helper()
	if _, err := db.Commit(context.Background(), fleet.Change{Writes: []fleet.Write{{Key: fleet.Key(key), Value: v}}}); err != nil {
		t.Fatal(err)
	}
}

func get[T any](t *testing.T, db *store.DB, key string) T {
	t.Helper()
	var v T
	err := db.View(context.Background(), func(s fleet.Snapshot) (err error) {
		v, _, err = fleet.Get[T](s, fleet.Key(key))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantCode(t *testing.T, err error, kind fleet.Kind, code string) {
	t.Helper()
	if err == nil || fleet.KindOf(err) != kind || fleet.CodeOf(err) != code {
		t.Fatalf("got %v (%v, %q), want %v %s", err, fleet.KindOf(err), fleet.CodeOf(err), kind, code)
	}
}

func mustOpen(t *testing.T, dir string) *store.DB {
	t.Helper()
	db, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestOpenSecondProcess(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir)
	_, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	wantCode(t, err, fleet.Conflict, "MC-STORE-BUSY")
}

func TestOpenWrongKey(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	put(t, db, "secret/a", fleet.NewSecret("hunter2"))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(dir, store.Options{Key: bytes.Repeat([]byte{7}, store.KeySize)})
	wantCode(t, err, fleet.Denied, "MC-STORE-KEY")
	_, err = store.Open(dir, store.Options{})
	wantCode(t, err, fleet.Invalid, "MC-STORE-KEY")
	_, err = store.Open(dir, store.Options{KeyFile: filepath.Join(dir, "none")})
	wantCode(t, err, fleet.NotFound, "MC-STORE-KEY")
	if got := get[string](t, mustOpen(t, dir), "secret/a"); got != "hunter2" {
		t.Errorf("after refusals: %q", got)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "master.key")
	first, err := store.LoadOrCreateKey(path)
	if err != nil || len(first) != store.KeySize {
		t.Fatalf("%d bytes, %v", len(first), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if again, err := store.LoadOrCreateKey(path); err != nil || !bytes.Equal(again, first) {
		t.Errorf("a second start made another key: %v", err)
	}
	db, err := store.Open(t.TempDir(), store.Options{KeyFile: path})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = store.LoadOrCreateKey(path)
	wantCode(t, err, fleet.Refused, "MC-STORE-KEY")
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("abc\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = store.LoadOrCreateKey(path)
	wantCode(t, err, fleet.Invalid, "MC-STORE-KEY")
}

func TestSecretsAreNotInTheFile(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	const word = "correct-horse-battery-staple"
	put(t, db, "secret/bmc/n1", fleet.NewSecret(word))
	put(t, db, "secret/bmc/n2", []byte(word))
	put(t, db, "node/n1", map[string]any{"id": "n1", "password": fleet.NewSecret(word)})
	if _, err := db.PutBlob(context.Background(), store.BlobUserData, bytes.NewReader([]byte("#cloud-config "+word))); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(word)) {
			t.Errorf("%s holds the secret in the open", path)
		}
		return err
	})
	if err != nil || files < 2 {
		t.Errorf("looked at %d files: %v", files, err)
	}
}

// TestSecretIsBoundToItsKey moves a sealed secret to another key, as somebody with the file but without the key could.
func TestSecretIsBoundToItsKey(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	put(t, db, "secret/mine", fleet.NewSecret("one"))
	put(t, db, "secret/yours", fleet.NewSecret("two"))
	err := db.Bolt().Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("records"))
		return b.Put([]byte("secret/mine"), b.Get([]byte("secret/yours")))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(context.Background(), func(s fleet.Snapshot) error {
		_, err := s.Get("secret/mine")
		return err
	})
	wantCode(t, err, fleet.Broken, "MC-STORE-DECODE")
}

func TestMigration(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	put(t, db, "x/a", "old")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	o := store.Options{Key: contract.TestKey(), Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }}
	broken := errors.New("half-way")
	rename := func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("records"))
		r, err := store.DecodeRecord([]byte("x/a"), b.Get([]byte("x/a")))
		return errors.Join(err, b.Put([]byte("x/b"), store.EncodeRecord("x", r.Version, int64(r.Revision), string(r.Data))), b.Delete([]byte("x/a")))
	}

	_, err := store.Open(dir, o.WithSchema(3, rename, func(*bbolt.Tx) error { return broken }))
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	db = mustOpen(t, dir) // the failed migration left schema 1 and its record
	if got := get[string](t, db, "x/a"); got != "old" {
		t.Errorf("after a failed migration: %q", got)
	}
	db.Close()

	db, err = store.Open(dir, o.WithSchema(3, rename, func(*bbolt.Tx) error { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	if got := get[string](t, db, "x/b"); got != "old" {
		t.Errorf("after the migration: %q", got)
	}
	db.Close()

	_, err = store.Open(dir, store.Options{Key: contract.TestKey()})
	wantCode(t, err, fleet.Refused, "MC-STORE-NEWER")

	// The backup of before is one that either program restores.
	old := t.TempDir()
	made, err := filepath.Glob(filepath.Join(dir, "backups", "schema1-r*"))
	if err != nil || len(made) != 1 {
		t.Fatalf("two tries made the backups %q, %v", made, err)
	}
	r, err := store.Restore(context.Background(), made[0], old, restoreOptions())
	if err != nil || r.Manifest.Schema != 1 {
		t.Fatalf("restore the backup: %+v, %v", r, err)
	}
	if got := get[string](t, mustOpen(t, old), "x/a"); got != "old" {
		t.Errorf("the backup holds %q", got)
	}
}

func TestMigrationWithoutAWay(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir).Close()
	_, err := store.Open(dir, store.Options{Key: contract.TestKey()}.WithSchema(2))
	wantCode(t, err, fleet.Broken, "MC-STORE-IO")
}

func TestOpenDamagedFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store.db"), bytes.Repeat([]byte("not a database "), 10000), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	wantCode(t, err, fleet.Broken, "MC-STORE-DAMAGED")
}

func TestClosedStore(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	db.Close()
	_, err := db.Commit(context.Background(), fleet.Change{Writes: []fleet.Write{{Key: "x/a", Value: 1}}})
	wantCode(t, err, fleet.Unavailable, "MC-STORE-CLOSED")
	err = db.View(context.Background(), func(fleet.Snapshot) error { return nil })
	wantCode(t, err, fleet.Unavailable, "MC-STORE-CLOSED")
	_, err = db.Events(context.Background(), 0, 1)
	wantCode(t, err, fleet.Unavailable, "MC-STORE-CLOSED")
}
