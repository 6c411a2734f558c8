package disk

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// answers is an admin queue that answers every command with the same bytes.
type answers []byte

func (a answers) NSID() uint32 { return 1 }

func (a answers) Admin(_ context.Context, c Command) error { copy(c.Data, a); return nil }

func FuzzNVMe(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ctx := answers(b), t.Context()
		c, err := identifyController(ctx, a)
		if err != nil || len(c.Serial) > 20 || len(c.Model) > 40 {
			t.Errorf("%+v, %v", c, err)
		}
		active, allocated, err := namespaces(ctx, a, c)
		if err != nil || len(active) > 1024 || len(allocated) > 1024 {
			t.Errorf("%d and %d namespaces, %v", len(active), len(allocated), err)
		}
		for _, id := range active {
			if id == 0 {
				t.Error("a namespace 0")
			}
		}
		if cdw, err := formatOf(ctx, a); err != nil || cdw&^0x301f != 0 {
			t.Errorf("format %#x, %v", cdw, err)
		}
		if l, err := readSanitizeLog(ctx, a); err != nil || l.state > 7 || len(l.raw) != 32 {
			t.Errorf("%+v, %v", l, err)
		}
	})
}

func FuzzVPDSerial(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "vpd_pg80")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s := vpdSerial(file); len(s) > max(0, len(b)-4) || s != strings.TrimSpace(s) {
			t.Errorf("%q", s)
		}
	})
}

// FuzzSignatures looks for signatures and config drives in whatever a disk holds.
func FuzzSignatures(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		names := findSignatures(b, b, int64(len(b)))
		if allZero(b) && len(names) > 0 {
			t.Errorf("zeros are %v", names)
		}
		disk := make([]byte, max(1<<17, len(b)))
		copy(disk, b)
		found, err := strayConfigDrives(bytes.NewReader(disk), 512, int64(len(disk)))
		if err != nil || allZero(b) && len(found) > 0 {
			t.Errorf("found %v, %v", found, err)
		}
	})
}
