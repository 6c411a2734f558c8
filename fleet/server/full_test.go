package server

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestFullDisk: an upload that does not fit says so and leaves nothing, the server goes on and can be started anew, and the same upload arrives once there is space.
func TestFullDisk(t *testing.T) {
	disk := contract.SmallDisk(t, 16)
	w := &world{t: t, dir: filepath.Join(disk, "data"), log: &syncBuffer{}}
	must(t, os.Mkdir(w.dir, 0o700))
	w.start(nil)
	ctx := context.Background()
	content := bytes.Repeat([]byte("disk image "), 200_000)
	_, err := w.client.AddImage(ctx, api.ImageCreate{Image: fleet.Image{Name: "debian", Format: "raw", SHA256: digestOf(content)}})
	must(t, err)
	free := contract.Fill(t, disk)
	for range 2 {
		_, err = w.client.UploadImage(ctx, "debian", bytes.NewReader(content), nil)
		wantCode(t, err, fleet.Unavailable, "MC-STORE-FULL")
		if fleet.HintOf(err) == "" {
			t.Error("no hint")
		}
		if left := names(t, w.imageDir()); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	}
	before, err := os.ReadFile(filepath.Join(w.dir, "ca.pem"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.imageDir(), uploading+"of a server that was killed"), nil, 0o600))
	w.restart()
	if after, err := os.ReadFile(filepath.Join(w.dir, "ca.pem")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the certificate that clients trust is %q, %v", after, err)
	}
	if left := names(t, w.imageDir()); len(left) > 0 {
		t.Errorf("after a restart there is %v", left)
	}
	if _, err := w.client.Images(ctx); err != nil {
		t.Errorf("on a full disk: %v", err)
	}
	free()
	img, err := w.client.UploadImage(ctx, "debian", bytes.NewReader(content), nil)
	must(t, err)
	if left := names(t, w.imageDir()); len(left) != 1 || left[0] != img.SHA256 || img.SizeBytes != int64(len(content)) {
		t.Errorf("there is %v, %d bytes", left, img.SizeBytes)
	}
}

// TestAdminTokenOnAFullDisk: the first start says so and leaves neither token nor hash; the next one makes both.
func TestAdminTokenOnAFullDisk(t *testing.T) {
	disk := contract.SmallDisk(t, 4)
	db := contract.OpenStore(t)
	path := filepath.Join(disk, "admin.token")
	free := contract.Fill(t, disk)
	before := names(t, disk)
	wantCode(t, EnsureAdminToken(t.Context(), db, path), fleet.Unavailable, "MC-STORE-FULL")
	if _, err := adminHash(t.Context(), db); fleet.KindOf(err) != fleet.NotFound {
		t.Errorf("the store has a hash: %v", err)
	}
	if after := names(t, disk); len(after) != len(before) {
		t.Errorf("left %v", after)
	}
	free()
	must(t, EnsureAdminToken(t.Context(), db, path))
	token, err := os.ReadFile(path)
	must(t, err)
	if hash, err := adminHash(t.Context(), db); err != nil || hash != hashToken(string(bytes.TrimSpace(token))) {
		t.Errorf("the store's hash is %q, %v", hash, err)
	}
}
