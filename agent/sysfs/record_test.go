package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lay makes files, and links where the content begins with an arrow.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(at, []byte(content), 0o644)
		if len(content) > 2 && content[:2] == "> " {
			err = errors.Join(os.Remove(at), os.Symlink(content[2:], at))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// listed are the files below a folder with their contents, links as lay takes them.
func listed(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(name)
			out[rel] = "> " + target
			return err
		}
		b, err := os.ReadFile(name)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRecordKeepsWhatWasRead(t *testing.T) {
	outside := t.TempDir()
	dir := lay(t, map[string]string{
		"sys/devices/a/vendor": "0x10de\n", "sys/devices/a/secret": "s\n", "sys/devices/a/driver": "> ../../drivers/d", "sys/drivers/d/x": "1\n",
		"sys/bus/a": "> ../devices/a", "sys/bus/out": "> " + outside, "sys/bus/up": "> ../../../../..", "sys/bus/circle": "> circle", "sys/bus/nowhere": "> ../devices/b",
		"sys/names/one": "1\n", "sys/names/two": "2\n",
	})
	var r Recorder
	tree := New(dir).Recorded(&r)
	if s := tree.Try("sys/bus/a", "vendor"); s != "0x10de" {
		t.Fatal(s)
	}
	if s := tree.Base("sys/bus/a", "driver"); s != "d" {
		t.Fatal(s)
	}
	if names, err := tree.List("sys/names"); err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	tree.Try("sys/names/two")
	for _, odd := range []string{"out", "up", "circle", "nowhere"} {
		tree.Exists("sys/bus", odd)
		tree.Try("sys/bus", odd, "x")
	}
	tree.Aside().Try("sys/devices/a/secret")
	tree.Keep("kept/x", []byte("k"))
	tree.Keep("../y", []byte("never"))
	if at := r.Device("sys/bus/a/driver"); at != "sys/drivers/d" {
		t.Errorf("the driver is at %q", at)
	}
	for _, none := range []string{"sys/bus/b", "sys/bus/circle", "sys/devices/a/vendor"} {
		if at := r.Device(none); at != "" {
			t.Errorf("%s is a device at %q", none, at)
		}
	}
	to := filepath.Join(t.TempDir(), "r")
	if err := r.Write(to); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"sys/devices/a/vendor": "0x10de\n", "sys/devices/a/driver": "> ../../drivers/d", "sys/bus/a": "> ../devices/a", "sys/names/one": "", "sys/names/two": "2\n",
		"kept/x": "k", "sys/bus/nowhere": "> ../devices/b"}
	got := listed(t, to)
	for _, odd := range []string{"sys/bus/up", "sys/bus/circle"} { // the link itself may be there; what it leads to is not
		delete(got, odd)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	again := New(to)
	if s := again.Try("sys/bus/a", "vendor"); s != "0x10de" {
		t.Errorf("the recording has the vendor %q", s)
	}
	if names, err := again.List("sys/names"); err != nil || !slices.Equal(names, []string{"one", "two"}) {
		t.Errorf("the recording has the names %v: %v", names, err)
	}
	if err := r.Write(to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
}

func TestRecordIsBounded(t *testing.T) {
	var r Recorder
	for i := range maxRecorded + 1 {
		r.Keep(fmt.Sprintf("files/%d", i), nil)
	}
	to := filepath.Join(t.TempDir(), "r")
	if err := r.Write(to); err == nil {
		t.Error("more than may be recorded was written")
	}
	for _, name := range []string{to, Partial(to)} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
}
