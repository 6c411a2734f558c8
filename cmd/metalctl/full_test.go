//go:build !ramdisk

package main

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/images/ramdisk"
)

// TestFilesOnAFullDisk: each kind of file that this program makes says that it did not fit, where, and what to do; nothing half-written is left, and the
// same again works once there is space.
func TestFilesOnAFullDisk(t *testing.T) {
	disk := contract.SmallDisk(t, 8)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"items":[]}`) //nolint:errcheck // whoever asked is gone
	}))
	t.Cleanup(srv.Close)
	cl, err := api.NewClient(api.Config{Server: srv.URL, Token: fleet.NewSecret("token"), CACert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	kinds := map[string]func() (string, error){
		"a support bundle": func() (string, error) {
			path := filepath.Join(disk, "bundle.tar.gz")
			_, err := writeBundle(t.Context(), cl, path, nil)
			return path, err
		},
		"a key": func() (string, error) {
			path := filepath.Join(disk, "pack.key")
			return path, writeNew(path, []byte("a key"), 0o600)
		},
	}
	if _, err := os.Stat(ramdisk.DefaultStub); err == nil {
		b, err := scriptMedium()
		if err != nil {
			t.Fatal(err)
		}
		from := filepath.Join(t.TempDir(), "boot.iso")
		if err := os.WriteFile(from, b, 0o644); err != nil {
			t.Fatal(err)
		}
		iso, err := ramdisk.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		kinds["a boot medium"] = func() (string, error) {
			return filepath.Join(disk, "one-"+iso.SHA256+".iso"), keepISO(disk, "one", iso)
		}
	}
	for name, write := range kinds {
		t.Run(name, func(t *testing.T) {
			free := contract.Fill(t, disk)
			path, err := write()
			err = noRoom(err)
			if fleet.CodeOf(err) != "MC-CLI-FULL" || !strings.Contains(err.Error(), disk) || !strings.Contains(fleet.HintOf(err), "df -h "+disk) {
				t.Errorf("got %v, hint %q", err, fleet.HintOf(err))
			}
			var out bytes.Buffer
			if printError(&out, err); !strings.Contains(out.String(), "metalctl help MC-CLI-FULL") {
				t.Errorf("printed %s", out.String())
			}
			if left, err := filepath.Glob(filepath.Join(disk, "*")); err != nil || len(left) != 2 { // lost+found and what fills the disk
				t.Errorf("left %v, %v", left, err)
			}
			if left, err := filepath.Glob(filepath.Join(disk, ".*")); err != nil || len(left) != 0 {
				t.Errorf("left %v, %v", left, err)
			}
			free()
			if _, err := write(); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Size() == 0 {
				t.Errorf("then there is %v, %v", info, err)
			}
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
	}
}
