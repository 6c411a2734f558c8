package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

func TestInstallRefuses(t *testing.T) {
	ctx := context.Background()
	p := newPair(t)
	newer := t.TempDir()
	db, err := store.Open(newer, store.Options{Key: contract.TestKey()}.WithSchema(store.Schema+1))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		code string
		make func(path string) error
	}{
		"a newer program's store": {"MC-STORE-NEWER", func(path string) error { return copyTo(filepath.Join(newer, "store.db"), path) }},
		"another key": {"MC-STORE-KEY", func(path string) error {
			other, err := store.Open(t.TempDir(), store.Options{Key: bytes.Repeat([]byte{9}, store.KeySize)})
			if err != nil {
				return err
			}
			_, err = other.CopyFile(ctx, path)
			return errors.Join(err, other.Close())
		}},
		"no store": {"MC-STORE-DAMAGED", func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<16), 0o600) }},
		"cut off": {"MC-STORE-DAMAGED", func(path string) error {
			if _, err := p.db.CopyFile(ctx, path); err != nil {
				return err
			}
			return os.Truncate(path, 4096*2)
		}},
	} {
		path, err := p.r.CopyPath()
		if err = errors.Join(err, c.make(path)); err != nil {
			t.Fatal(name, err)
		}
		before := where(t, p.r)
		_, err = p.r.Install(ctx, path, otherServer)
		if err == nil || c.code != "" && fleet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if where(t, p.r) != before {
			t.Errorf("%s: the replica has changed", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: the copy is left", name)
		}
	}
}

func copyTo(from, to string) error {
	b, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, b, 0o600))
}

func TestPutFileRefuses(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	digest, err := p.db.PutBlob(ctx, store.BlobUserData, strings.NewReader("#cloud-config"))
	if err != nil {
		t.Fatal(err)
	}
	hexa := strings.TrimPrefix(digest, "sha256:")
	sealed := "blobs/user-data/" + hexa[:2] + "/" + hexa
	for path, text := range map[string]string{
		"images/" + hexa: "something else", "blobs/inventory/" + hexa[:2] + "/" + hexa: "something else", sealed: "#cloud-config",
		"store.db": "x", "../" + hexa: "x", "images/../store.db": "x", "master.key": "x", "": "x",
	} {
		if err := p.r.PutFile(ctx, path, strings.NewReader(text)); err == nil {
			t.Errorf("%q was taken", path)
		}
		if path != sealed && p.r.Has(path) {
			t.Errorf("%q is there", path)
		}
	}
	f, err := p.db.OpenFile(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if err = errors.Join(p.r.PutFile(ctx, sealed, f), f.Close()); err != nil || !p.r.Has(sealed) {
		t.Error(err)
	}
	if _, err := p.db.OpenFile("store.db"); err == nil {
		t.Error("the store's own file was handed out")
	}
	if r, err := p.db.OpenFile("images/" + hexa); fleet.KindOf(err) != fleet.NotFound {
		t.Error(r, err)
	}
}

// FuzzApply: whatever comes, a replica takes it whole or not at all, and its store stays sound.
func FuzzApply(f *testing.F) {
	dir := f.TempDir()
	db, err := store.Open(f.TempDir(), store.Options{Key: contract.TestKey()})
	if err != nil {
		f.Fatal(err)
	}
	ctx := context.Background()
	start := db.Position()
	seq, err := db.Follow(start)
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "copy")
	if _, err := db.CopyFile(ctx, path); err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		c := fleet.Change{Writes: []fleet.Write{{Key: "thing/a", Value: i}, {Key: "thing/b"}}, Events: []fleet.Event{{Type: "x", Text: "y"}}}
		if _, err := db.Commit(ctx, c); err != nil {
			f.Fatal(err)
		}
	}
	entries, err := db.LogAfter(ctx, seq)
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		f.Add(e.Batch)
	}
	f.Add([]byte{})
	f.Add([]byte{1})
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	r, err := store.OpenReplica(dir, store.Options{Key: contract.TestKey()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { r.Close() }) //nolint:errcheck // the folder goes
	if _, err := r.Install(ctx, path, otherServer); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := where(t, r)
		// The digest is right, so that only what the batch says decides.
		_, err := r.Apply(ctx, []fleet.LogEntry{{Batch: text, Chain: store.ChainAfter(before, text)}})
		after := where(t, r)
		if err != nil && after != before {
			t.Fatal("a refused batch has changed the replica")
		}
		if err == nil && after.Revision <= before.Revision {
			t.Fatalf("a batch led from revision %d to %d", before.Revision, after.Revision)
		}
	})
}
