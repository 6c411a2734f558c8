//go:build !ramdisk

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images/ramdisk"
)

// TestMediaLibrary: what lies in the data folder is served by its digest, after an upgrade too, and what was damaged is not.
func TestMediaLibrary(t *testing.T) {
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
	cfg := serverConfig{DataDir: t.TempDir(), RAMDisk: file}
	log := slog.New(slog.DiscardHandler)
	m, err := cfg.media(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	own := m.own.SHA256
	kept := filepath.Join(cfg.mediaDir(), "file-"+own+".iso")
	if _, err := os.Stat(kept); err != nil {
		t.Fatalf("the medium that the configuration names is not kept for later: %v", err)
	}

	// Another program, whose own medium is another: here it is told by its name alone.
	later := &mediaLibrary{dir: m.dir, own: &ramdisk.ISO{SHA256: "f00d"}, log: log, open: map[string]*ramdisk.ISO{}}
	all, err := later.Ramdisks()
	if err != nil || len(all) != 2 || all[0].SHA256 != "f00d" || all[1].SHA256 != own || all[1].Kernel == "" || all[1].SizeBytes != int64(len(b)) {
		t.Fatalf("the library has %+v, %v", all, err)
	}
	if len(later.open) != 0 {
		t.Error("media that nobody boots are held in memory")
	}
	x, err := later.Medium(own)
	if err != nil || x.Size() != int64(len(b)) {
		t.Errorf("the medium of before: %v", err)
	}
	if l := later.layout(fleet.Node{Boot: fleet.BootRecord{Ramdisk: own}}); l.KernelBytes == 0 || l.HeaderBytes == 0 {
		t.Errorf("its layout is %+v", l)
	}
	if err := os.Truncate(kept, 100<<10); err != nil {
		t.Fatal(err)
	}
	again := &mediaLibrary{dir: m.dir, own: later.own, log: log, open: map[string]*ramdisk.ISO{}}
	if _, err := again.Medium(own); fleet.CodeOf(err) != "MC-RAMDISK-UNKNOWN" || fleet.HintOf(err) == "" {
		t.Errorf("a damaged medium: %v", err)
	}
	if all, err := again.Ramdisks(); err != nil || len(all) != 1 {
		t.Errorf("a damaged medium is listed: %+v, %v", all, err)
	}
	if err := again.Drop(own); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err == nil {
		t.Error("a dropped medium stays")
	}
	if _, err := again.Medium("not a digest"); fleet.CodeOf(err) != "MC-RAMDISK-UNKNOWN" {
		t.Errorf("a medium that never was: %v", err)
	}
}
