package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

// backedUp is a store with a secret, a blob and user-data, its backup as a folder and as an archive. The store has gone on since.
type backedUp struct {
	dir, backup, archive string
	db                   *store.DB
	manifest             store.Manifest
	digest               string
}

func makeBackup(t *testing.T) *backedUp {
	t.Helper()
	b := &backedUp{dir: t.TempDir()}
	b.db = mustOpen(t, b.dir)
	ctx := context.Background()
	put(t, b.db, "secret/a", fleet.NewSecret("one"))
	var err error
	if b.digest, err = b.db.PutBlob(ctx, "inventory", strings.NewReader("an inventory")); err != nil {
		t.Fatal(err)
	}
	user, err := b.db.PutBlob(ctx, store.BlobUserData, strings.NewReader("#cloud-config"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, b.db, "node/n1", fleet.Node{ID: "n1", Name: "n1", State: fleet.Available, Inventory: b.digest})
	put(t, b.db, "lease/l1", fleet.Lease{ID: "l1", UserData: user, State: fleet.LeaseReleased})
	b.backup = filepath.Join(b.dir, "backups", "one")
	if b.manifest, err = b.db.Backup(ctx, b.backup, "test"); err != nil {
		t.Fatal(err)
	}
	b.archive = filepath.Join(t.TempDir(), "backup.tar")
	var tar bytes.Buffer
	if err := errors.Join(store.WriteArchive(ctx, b.backup, &tar), os.WriteFile(b.archive, tar.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	put(t, b.db, "secret/a", fleet.NewSecret("two"))
	return b
}

func restoreOptions() store.RestoreOptions {
	return store.RestoreOptions{Key: contract.TestKey(), By: "somebody", Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }}
}

func TestBackupIsOneRevision(t *testing.T) {
	b := makeBackup(t)
	if b.manifest.Identity.Revision != 3 || b.manifest.Identity.Generation() != 1 || len(b.manifest.Files) != 3 {
		t.Errorf("manifest %+v", b.manifest)
	}
	for _, from := range []string{b.backup, b.archive} {
		t.Run(filepath.Base(from), func(t *testing.T) {
			dir := t.TempDir()
			r, err := store.Restore(context.Background(), from, dir, restoreOptions())
			if err != nil {
				t.Fatal(err)
			}
			if r.Aside != "" || r.Identity.Generation() != 2 || r.Identity.Lives[1].From != 3 {
				t.Errorf("restored as %+v", r)
			}
			db := contract.OpenStoreIn(t, dir, store.Options{})
			if got := get[string](t, db, "secret/a"); got != "one" {
				t.Errorf("the secret is %q", got)
			}
			blob, err := db.OpenBlob(context.Background(), b.digest)
			if err != nil {
				t.Fatal(err)
			}
			defer blob.Close()
			if text, err := io.ReadAll(blob); err != nil || string(text) != "an inventory" {
				t.Errorf("blob %q, %v", text, err)
			}
			// It begins frozen, whoever starts it.
			err = db.View(context.Background(), func(s fleet.Snapshot) error { return fleet.Writable(s, "n1") })
			wantCode(t, err, fleet.Refused, fleet.CodeFrozen)
			if !strings.Contains(err.Error(), "(restore)") {
				t.Errorf("frozen because %v", err)
			}
			// And each node is held for itself, whatever is thawed.
			err = db.View(context.Background(), func(s fleet.Snapshot) error {
				n, _, err := fleet.Get[fleet.Node](s, fleet.KeyOf(fleet.KindNode, "n1"))
				if err == nil && (!n.Doubted() || fleet.FrozenBy(n, nil) == nil) {
					t.Errorf("node %+v is believed", n)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			// Of what the first store did after the backup, and of what it does from now on, the restored one knows nothing.
			id, err := db.Identity(context.Background())
			first := b.manifest.Identity.Epoch()
			if err != nil || !id.Knows(first, 3) || id.Knows(first, 4) || !id.Knows(id.Epoch(), 5) || id.Knows(id.Epoch(), 6) || id.Knows("another", 1) {
				t.Errorf("identity %+v, %v", id, err)
			}
		})
	}
}

func TestVerifyBackup(t *testing.T) {
	b := makeBackup(t)
	m, problems, err := store.VerifyBackup(context.Background(), b.backup, contract.TestKey())
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v, %v", problems, err)
	}
	if diff := cmp.Diff(m, b.manifest); diff != "" {
		t.Error(diff)
	}
	_, _, err = store.VerifyBackup(context.Background(), b.backup, bytes.Repeat([]byte{7}, store.KeySize))
	wantCode(t, err, fleet.Denied, "MC-STORE-KEY")
	left, err := filepath.Glob(filepath.Join(b.dir, "backups", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	_, err = b.db.Backup(context.Background(), b.backup, "test")
	wantCode(t, err, fleet.Conflict, "MC-STORE-EXISTS")
}

// TestDamagedBackup changes one thing of a backup at a time; nothing of it may become a store.
func TestDamagedBackup(t *testing.T) {
	b := makeBackup(t)
	whole, err := os.ReadFile(b.archive)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int) []byte {
		c := bytes.Clone(whole)
		c[at] ^= 0x40
		return c
	}
	blob := bytes.Index(whole, []byte("an inventory"))
	cases := map[string][]byte{
		"empty": nil, "cut in the middle": whole[:len(whole)/2], "cut in a header": whole[:700], "a bit of a blob": changed(blob),
		"a bit of the store": changed(len(whole) - 8000), "something else": []byte("a picture of a cat"), "a bit of the manifest": changed(600),
		"more at the end": append(bytes.Clone(whole[:len(whole)-1024]), whole...),
	}
	for name, bytes := range cases {
		t.Run(name, func(t *testing.T) {
			file, dir := filepath.Join(t.TempDir(), "x.tar"), t.TempDir()
			if err := os.WriteFile(file, bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := store.Restore(context.Background(), file, dir, restoreOptions())
			if fleet.CodeOf(err) != "MC-STORE-BACKUP" {
				t.Errorf("got %v", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	t.Run("a folder without a blob", func(t *testing.T) {
		err := filepath.WalkDir(filepath.Join(b.backup, "blobs", "inventory"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return os.Remove(path)
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = store.VerifyBackup(context.Background(), b.backup, contract.TestKey())
		wantCode(t, err, fleet.Broken, "MC-STORE-BACKUP")
	})
}

// TestRestoreAnUnsoundStore: a backup whose bytes are right and whose records contradict each other is no store either.
func TestRestoreAnUnsoundStore(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	put(t, db, "node/n1", fleet.Node{ID: "n1", Name: "n1", State: fleet.Available, Lease: "nobody's"})
	backup := filepath.Join(dir, "backups", "one")
	if _, err := db.Backup(context.Background(), backup, ""); err != nil {
		t.Fatal(err)
	}
	_, problems, err := store.VerifyBackup(context.Background(), backup, contract.TestKey())
	if err != nil || len(problems) != 1 {
		t.Errorf("problems %v, %v", problems, err)
	}
	to := t.TempDir()
	_, err = store.Restore(context.Background(), backup, to, restoreOptions())
	wantCode(t, err, fleet.Refused, "MC-STORE-UNSOUND")
	if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRestoreOntoAStore(t *testing.T) {
	b := makeBackup(t)
	o := restoreOptions()
	_, err := store.Restore(context.Background(), b.archive, b.dir, o)
	wantCode(t, err, fleet.Conflict, "MC-STORE-BUSY")
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = store.Restore(context.Background(), b.archive, b.dir, o)
	wantCode(t, err, fleet.Conflict, "MC-STORE-EXISTS")

	o.MoveAside = true
	r, err := store.Restore(context.Background(), b.archive, b.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	db := contract.OpenStoreIn(t, b.dir, store.Options{})
	if got := get[string](t, db, "secret/a"); got != "one" {
		t.Errorf("restored: %q", got)
	}
	// What was there is kept whole.
	aside := mustOpen(t, r.Aside)
	if got := get[string](t, aside, "secret/a"); got != "two" {
		t.Errorf("aside: %q", got)
	}
	if problems := aside.Check(context.Background()); len(problems) > 0 {
		t.Errorf("aside: %v", problems)
	}
}

// TestRestoreCutOff: from the moment on that a restore begins to exchange files, no server may take the folder for a new one.
func TestRestoreCutOff(t *testing.T) {
	b := makeBackup(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "restoring"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(dir, store.Options{Key: contract.TestKey()})
	wantCode(t, err, fleet.Refused, "MC-STORE-RESTORING")
	if _, err := store.Restore(context.Background(), b.archive, dir, restoreOptions()); err != nil {
		t.Fatal(err)
	}
	contract.OpenStoreIn(t, dir, store.Options{})
}

func FuzzReadArchive(f *testing.F) {
	f.Add([]byte("manifest.json"))
	f.Add(bytes.Repeat([]byte{0}, 2048))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		_, err := store.ReadArchive(context.Background(), bytes.NewReader(b), dir)
		_, looked := store.ReadArchive(context.Background(), bytes.NewReader(b), "")
		if (err == nil) != (looked == nil) {
			t.Errorf("unpacking says %v, looking %v", err, looked)
		}
		entries, readErr := os.ReadDir(filepath.Dir(dir))
		if readErr != nil {
			t.Fatal(readErr)
		}
		for _, e := range entries {
			if e.Name() != filepath.Base(dir) {
				t.Fatal(fmt.Errorf("%s was written outside", e.Name()))
			}
		}
	})
}
