package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fleet"
)

func FuzzReadSegment(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "segment")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := readSegment(path, func(fleet.TimelineEntry) { n++ }); err == nil && n > len(b) {
			t.Errorf("%d entries of %d bytes", n, len(b))
		}
	})
}

// FuzzOpenSealed: nothing but what was sealed with the key and for the name opens.
func FuzzOpenSealed(f *testing.F) {
	s, err := newSealer(make([]byte, KeySize))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if text, err := s.open([]byte("name"), b); err == nil {
			t.Errorf("%x opens as %q", b, text)
		}
		sealed, err := s.seal([]byte("name"), b)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := s.open([]byte("name"), sealed); err != nil || string(text) != string(b) {
			t.Errorf("got %q, %v", text, err)
		}
		if len(b) > 0 {
			sealed[int(b[0])%len(sealed)] ^= 1
			if _, err := s.open([]byte("name"), sealed); err == nil {
				t.Error("a changed one opens")
			}
		}
	})
}

// FuzzProvePages: what is proven can be walked by bbolt, however a store was patched.
func FuzzProvePages(f *testing.F) {
	dir := f.TempDir()
	db, err := Open(dir, Options{Key: make([]byte, KeySize)})
	if err != nil {
		f.Fatal(err)
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		f.Fatal(err)
	}
	whole = whole[:min(len(whole), 32<<10)]
	f.Fuzz(func(t *testing.T, at uint16, patch []byte) {
		b := bytes.Clone(whole)
		copy(b[int(at)%len(b):], patch)
		path := filepath.Join(t.TempDir(), fileName)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := provePages(file); err != nil {
			return
		}
		bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatalf("proven, and yet: %v", err)
		}
		defer bolt.Close()
		if err := bolt.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return b.ForEach(func(_, _ []byte) error { return nil }) })
		}); err != nil {
			t.Error(err)
		}
	})
}
