package store

import (
	"os"
	"path/filepath"
	"testing"

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
