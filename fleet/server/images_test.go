package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (w *world) trusting() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.CACert())
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: patience}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestUploadVerifyServeRemove(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	content := bytes.Repeat([]byte("disk image "), 100_000)
	_, err := w.client.AddImage(ctx, api.ImageCreate{Image: fleet.Image{Name: "debian", Format: "raw", SHA256: digestOf(content)}})
	must(t, err)
	// Its bytes have not come yet: who names the same image takes it up, and who names another one does not.
	same, other := fleet.Image{Name: "debian", Format: "raw", SHA256: digestOf(content)}, fleet.Image{Name: "debian", Format: "raw", SHA256: digestOf([]byte("other"))}
	_, err = w.client.AddImage(ctx, api.ImageCreate{Image: same})
	must(t, err)
	_, err = w.client.AddImage(ctx, api.ImageCreate{Image: other})
	wantCode(t, err, fleet.Conflict, "MC-IMAGE-TWICE")
	_, err = w.client.VerifyImage(ctx, "debian")
	wantCode(t, err, fleet.Conflict, "MC-IMAGE-CONTENT")
	for name, bad := range map[string][]byte{"cut short": content[:len(content)-1], "other bytes": []byte("x"), "nothing": nil} {
		if _, err := w.client.UploadImage(ctx, "debian", bytes.NewReader(bad), nil); fleet.CodeOf(err) != "MC-IMAGE-DIGEST" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if names, err := os.ReadDir(filepath.Join(w.dir, "images")); err != nil || len(names) != 0 {
		t.Errorf("refused uploads are left: %v, %v", names, err)
	}
	var sent int64
	img, err := w.client.UploadImage(ctx, "debian", bytes.NewReader(content), func(n int64) { sent = n })
	must(t, err)
	if img.SizeBytes != int64(len(content)) || img.VirtualSizeBytes != int64(len(content)) || sent != int64(len(content)) {
		t.Errorf("got %s, %d sent", asJSON(t, img), sent)
	}
	_, err = w.client.AddImage(ctx, api.ImageCreate{Image: same})
	wantCode(t, err, fleet.Conflict, "MC-IMAGE-TWICE")
	v, err := w.client.VerifyImage(ctx, "debian")
	must(t, err)
	if v.Read != int64(len(content)) {
		t.Errorf("got %s", asJSON(t, v))
	}

	// The agent of a running operation reads it by an address that ends with the operation.
	n := w.enrol("n1")
	op, err := w.engine.operation(ctx, n.ID, "deploy", nil)
	must(t, err)
	path, err := w.ImagePath(op, img)
	must(t, err)
	res, got := w.fetch(http.MethodGet, w.URL()+path, map[string]string{"Range": "bytes=11-21"})
	if res.StatusCode != 206 || string(got) != "disk image " {
		t.Errorf("a range of the image: %s %q", res.Status, got)
	}
	if res, got = w.fetch(http.MethodGet, w.PlainAddress(w.URL()+path), nil); !bytes.Equal(got, content) {
		t.Errorf("the whole image: %s, %d bytes", res.Status, len(got))
	}
	entries, err := w.client.Timeline(ctx, "n1", api.TimelineQuery{})
	must(t, err)
	if text := asJSON(t, entries); !strings.Contains(text, `"source":"image"`) {
		t.Errorf("the timeline shows no read: %s", text)
	}
	for name, p := range map[string]string{
		"another operation": strings.Replace(path, string(op), "01900000-0000-7000-8000-999999999999", 1),
		"another image":     strings.Replace(path, "/debian", "/ubuntu", 1),
		"a cut token":       strings.Replace(path, "/debian", "0/debian", 1),
		"the folder":        "/images/" + img.SHA256,
		"above the folder":  "/images/x/..%2fkey",
	} {
		if res, _ := w.fetch(http.MethodGet, w.URL()+p, nil); res.StatusCode != 404 {
			t.Errorf("%s: got %s", name, res.Status)
		}
	}
	must(t, w.engine.finish(ctx, n.ID, fleet.OperationDone))
	if res, _ := w.fetch(http.MethodGet, w.URL()+path, nil); res.StatusCode != 404 {
		t.Errorf("after the operation: got %s", res.Status)
	}

	// A second name for the same bytes keeps the file when the first goes.
	_, err = w.client.AddImage(ctx, api.ImageCreate{Image: fleet.Image{Name: "debian-2", Format: "raw", SHA256: digestOf(content)}})
	must(t, err)
	l, err := w.client.CreateLease(ctx, api.LeaseCreate{LeaseRequest: fleet.LeaseRequest{Nodes: []string{"n1"}, Image: "debian"}}, "")
	must(t, err)
	wantCode(t, w.client.RemoveImage(ctx, "debian"), fleet.Conflict, "MC-IMAGE-USED")
	_, err = w.client.ReleaseLease(ctx, string(l.ID))
	must(t, err)
	must(t, w.client.RemoveImage(ctx, "debian"))
	if _, err := w.client.VerifyImage(ctx, "debian-2"); err != nil {
		t.Errorf("the other name lost its bytes: %v", err)
	}
	// A disk that changes bytes is seen.
	must(t, os.WriteFile(w.imageFile(img.SHA256), content[1:], 0o600))
	_, err = w.client.VerifyImage(ctx, "debian-2")
	wantCode(t, err, fleet.Broken, "MC-IMAGE-DIGEST")
	must(t, w.client.RemoveImage(ctx, "debian-2"))
	if _, err := os.Stat(w.imageFile(img.SHA256)); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
}

func TestAddImageRefusals(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutSite(ctx, fleet.Site{Isolation: "none", Origins: []string{"https://cdn.example.org", "http://10.0.0.5:8080"}})
	must(t, err)
	digest := strings.Repeat("ab", 32)
	tests := []struct {
		name string
		img  fleet.Image
		code string
	}{
		{"no digest", fleet.Image{Name: "a", Format: "raw"}, "MC-API-INVALID"},
		{"an unknown format", fleet.Image{Name: "a", Format: "vmdk", SHA256: digest}, "MC-API-INVALID"},
		{"a URL without size", fleet.Image{Name: "a", Format: "raw", SHA256: digest, URL: "https://cdn.example.org/a"}, "MC-API-INVALID"},
		{"a URL of files", fleet.Image{Name: "a", Format: "raw", SHA256: digest, SizeBytes: 1, URL: "file:///etc/shadow"}, "MC-API-INVALID"},
		{"an origin that is not listed", fleet.Image{Name: "a", Format: "raw", SHA256: digest, SizeBytes: 1, URL: "https://evil.org/a"}, "MC-IMAGE-ORIGIN"},
		{"a listed origin by another scheme", fleet.Image{Name: "a", Format: "raw", SHA256: digest, SizeBytes: 1, URL: "http://cdn.example.org/a"}, "MC-IMAGE-ORIGIN"},
		{"a listed host at another port", fleet.Image{Name: "a", Format: "raw", SHA256: digest, SizeBytes: 1, URL: "http://10.0.0.5/a"}, "MC-IMAGE-ORIGIN"},
		{"a name that only ends like one", fleet.Image{Name: "a", Format: "raw", SHA256: digest, SizeBytes: 1, URL: "https://evilexample.org/a"}, "MC-IMAGE-ORIGIN"},
		{"a listed origin", fleet.Image{Name: "a", Format: "qcow2", SHA256: "sha256:" + strings.ToUpper(digest), SizeBytes: 1, URL: "https://cdn.example.org/a"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.client.AddImage(ctx, api.ImageCreate{Image: tt.img})
			if fleet.CodeOf(err) != tt.code || (err == nil) != (tt.code == "") {
				t.Errorf("got %v, want %q", err, tt.code)
			}
		})
	}
	_, err = w.client.UploadImage(ctx, "a", strings.NewReader("x"), nil)
	wantCode(t, err, fleet.Conflict, "MC-IMAGE-ELSEWHERE")
	if v, err := w.client.VerifyImage(ctx, "a"); err != nil || v.Read != 1 {
		t.Errorf("got %v, %v", v, err)
	}
	_, err = w.client.UploadImage(ctx, "none", strings.NewReader("x"), nil)
	wantCode(t, err, fleet.NotFound, "MC-IMAGE-UNKNOWN")
	l, err := w.client.Images(ctx)
	must(t, err)
	if len(l) != 1 || l[0].SHA256 != digest {
		t.Errorf("got %s", asJSON(t, l))
	}
}

// An image that is not what it says is not kept.
func TestUploadOfAnotherFormat(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	content := []byte("no qcow2 at all")
	_, err := w.client.AddImage(ctx, api.ImageCreate{Image: fleet.Image{Name: "q", Format: "qcow2", SHA256: digestOf(content)}})
	must(t, err)
	_, err = w.client.UploadImage(ctx, "q", bytes.NewReader(content), nil)
	wantCode(t, err, fleet.Invalid, "MC-IMAGE-FORMAT")
	if names, _ := os.ReadDir(filepath.Join(w.dir, "images")); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	// One that breaks off is an error for the caller, and leaves nothing.
	r, p := io.Pipe()
	go func() {
		p.Write([]byte("no qc"))              //nolint:errcheck // the reader breaks off
		p.CloseWithError(io.ErrUnexpectedEOF) //nolint:errcheck // as above
	}()
	if _, err := w.client.UploadImage(ctx, "q", r, nil); err == nil {
		t.Error("an upload that broke off succeeded")
	}
}
