//go:build !ramdisk

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/metalctl/metalctl/images/ramdisk"
)

func TestBootMediaAreKept(t *testing.T) {
	if _, err := os.Stat(ramdisk.DefaultStub); err != nil {
		t.Skip("peer: systemd-boot-efi is not installed")
	}
	b, err := scriptMedium()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "boot.iso")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	iso, err := ramdisk.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "boot")
	log := slog.New(slog.DiscardHandler)
	path := func(inputs string) string { return filepath.Join(dir, inputs+"-"+iso.SHA256+".iso") }
	if keptISO(dir, "one", log) != nil {
		t.Error("a medium comes from nowhere")
	}
	for i, inputs := range []string{"one", "two", "three"} {
		if err := keepISO(dir, inputs, iso); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(path(inputs), at, at); err != nil {
			t.Fatal(err)
		}
	}
	got := keptISO(dir, "two", log)
	var medium bytes.Buffer
	if got == nil {
		t.Fatal("a medium was not kept")
	}
	if _, err := got.WriteTo(&medium); err != nil || !bytes.Equal(medium.Bytes(), b) {
		t.Errorf("another medium was kept (%v)", err)
	}

	damaged := bytes.Clone(b)
	damaged[len(damaged)/2] ^= 1
	if err := os.WriteFile(path("two"), damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	if keptISO(dir, "two", log) != nil {
		t.Error("a damaged medium is used")
	}
	if _, err := os.Stat(path("two")); err == nil {
		t.Error("a damaged medium stays")
	}
}
