package kmsg

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestALogIsReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kmsg")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("6,0,0,-;a\n6,1,0,-;b\n")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func() (out []string) {
		t.Helper()
		if err := l.Each(t.Context(), func(r string) { out = append(out, r) }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if err := l.Skip(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got) != 0 {
		t.Errorf("%q was there before", got)
	}
	write("6,0,0,-;a\n6,1,0,-;b\n6,2,0,-;c\n")
	if got := read(); !slices.Equal(got, []string{"6,2,0,-;c\n"}) {
		t.Errorf("new is %q", got)
	}
	if got := read(); len(got) != 0 {
		t.Errorf("%q came twice", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// TestTheKernelsLog reads the machine's own: it ends where there is nothing more, and does not wait.
func TestTheKernelsLog(t *testing.T) {
	l, err := Open(Device)
	if err != nil {
		t.Skipf("hardware: %v", err)
	}
	for range 2 {
		if err := l.Each(t.Context(), func(string) {}); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(l.Skip(t.Context()), l.Close()); err != nil {
		t.Error(err)
	}
}
