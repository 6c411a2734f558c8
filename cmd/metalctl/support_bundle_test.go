//go:build !ramdisk

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// TestSupportBundle: whatever the server answers, no secret is in the bundle, the rest is, and what cannot be read is named.
func TestSupportBundle(t *testing.T) {
	canaries := []string{"canary-password", "canary-token", "canary-signature", "canary-userdata", "canary-bearer", "canary-console", "canaryMediumAddress00", "canary-key", "canary-login"}
	leak := "https://admin:canary-login@host/x said password=canary-console, Authorization: Bearer canary-bearer; GET https://o/i.raw?X-Amz-Signature=canary-signature " +
		"/boot/canaryMediumAddress00/metalctl.iso -----BEGIN PRIVATE KEY-----\ncanary-key\n-----END PRIVATE KEY-----"
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := api.Node{Node: fleet.Node{Name: "n1", State: fleet.Managed, Labels: map[string]string{"bmc_password": "canary-password", "Admin-Token": "canary-token", "user_data": "canary-userdata"}}}
		var v any
		switch {
		case strings.HasSuffix(r.URL.Path, "/timeline"):
			v = api.List[fleet.TimelineEntry]{Items: []fleet.TimelineEntry{{Source: "serial", Text: leak}}}
		case strings.HasSuffix(r.URL.Path, "/nodes"):
			v = api.List[api.Node]{Items: []api.Node{n}}
		case strings.HasSuffix(r.URL.Path, "/nodes/n1"):
			v = n
		case strings.HasSuffix(r.URL.Path, "/explain"):
			w.Header().Set("Content-Type", api.ProblemType)
			w.WriteHeader(http.StatusInternalServerError)
			v = api.NewProblem(fleet.Errorf(fleet.Broken, "MC-API-BROKEN", "broken, %s", leak), r.URL.Path)
		case r.URL.Path == "/metrics":
			io.WriteString(w, "metalctl_nodes 1\n") //nolint:errcheck // whoever asked is gone
			return
		default:
			v = map[string]any{}
		}
		json.NewEncoder(w).Encode(v) //nolint:errcheck // whoever asked is gone
	}))
	t.Cleanup(srv.Close)
	cl, err := api.NewClient(api.Config{Server: srv.URL, Token: fleet.NewSecret("canary-token"), CACert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	missing, err := writeBundle(t.Context(), cl, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string]string{}
	err = readBundle(f, func(name string, content []byte) {
		files[strings.TrimPrefix(name, "metalctl-support/")] = string(content)
		for _, c := range canaries {
			if bytes.Contains(content, []byte(c)) {
				t.Errorf("%s shows %s: %s", name, c, content)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"version.txt": "metalctl ", "nodes/n1/node.json": `"state": "managed"`, "nodes/n1/timeline.json": "password=***", "metrics.txt": "metalctl_nodes 1",
		"errors.txt": "nodes/n1/explain.json: broken", "events.json": ""} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not show %q: %q", name, want, files[name])
		}
	}
	if missing == 0 {
		t.Error("nothing is said to be missing")
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".metalctl*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// readBundle calls yield for every file of a bundle.
func readBundle(r io.Reader, yield func(name string, content []byte)) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, io.LimitReader(t, bundleEntry+1024)); err != nil {
			return err
		}
		yield(h.Name, b.Bytes())
	}
}
