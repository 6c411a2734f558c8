//go:build !ramdisk

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// TestSupportBundle: whatever the server answers, no secret is in the bundle, the rest is, and what cannot be read is named.
func TestSupportBundle(t *testing.T) {
	canaries := []string{"canary-password", "canary-token", "canary-signature", "canary-userdata", "canary-bearer", "canary-console", "canaryMediumAddress00", "canary-key", "canary-login",
		"canary-quoted", "canary-nested", "AAAAcanarysshkey", "canary-named-token-0000", canaryToken, "canary-list-a", "canary-list-b"}
	leak := "https://admin:canary-login@host/x said password=canary-console, Authorization: Bearer canary-bearer; GET https://o/i.raw?X-Amz-Signature=canary-signature " +
		"/boot/canaryMediumAddress00/metalctl.iso -----BEGIN PRIVATE KEY-----\ncanary-key\n-----END PRIVATE KEY-----" +
		` password="canary-quoted" said {\"Password\":\"canary-nested\"} ssh-ed25519 AAAAcanarysshkey0000 ann@host; mc-canary-named-token-0000 and ` + canaryToken + " for the boot"
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := api.Node{Node: fleet.Node{Name: "n1", State: fleet.Managed, Labels: map[string]string{"bmc_password": "canary-password", "Admin-Token": "canary-token", "user_data": "canary-userdata"}}}
		dump := base64.StdEncoding.EncodeToString([]byte("a dump that nobody looks into"))
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
		case strings.HasSuffix(r.URL.Path, "/leases"):
			v = map[string]any{"items": []any{map[string]any{"name": "l1", "ssh_keys": []string{"canary-list-a", "canary-list-b"}, "user_data": "canary-userdata"}}}
		case strings.HasSuffix(r.URL.Path, "/diagnostics"):
			v = api.Diagnostics{Log: "level=WARN " + leak, LogDropped: 7, Config: "witness:\n- " + leak, Goroutines: "goroutine 1 [select]:\n" + leak + dump, Versions: api.Versions{Program: "9.9", Go: leak},
				Store: api.StoreStats{SizeBytes: 4096}}
		case strings.HasSuffix(r.URL.Path, "/doctor"):
			v = api.Doctor{At: time.Now(), Findings: []api.Finding{{Check: "witness", Level: api.LevelWarning, Text: leak}}}
		case r.URL.Path == "/metrics":
			io.WriteString(w, "metalctl_nodes 1 # "+leak+"\n") //nolint:errcheck // whoever asked is gone
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
			if bytes.Contains(unwrapped(content), []byte(c)) {
				t.Errorf("%s holds %s in another coding: %s", name, c, content)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"version.txt": "metalctl ", "nodes/n1/node.json": `"state": "managed"`, "nodes/n1/timeline.json": "password=***", "metrics.txt": "metalctl_nodes 1",
		"errors.txt": "nodes/n1/explain.json: broken", "events.json": "", "server/log.txt": "(7 bytes before this", "server/goroutines.txt": "goroutine 1 [select]", "server/versions.json": `"program": "9.9"`,
		"server/store.json": `"size_bytes": 4096`, "server/doctor.json": `"check": "witness"`, "server/config.yaml": "witness:"} {
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

// canaryToken has the form of a token of 256 bits.
const canaryToken = "cAnary7token7of7256bits7000000000000000000X"

var base64Run = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}`)

// unwrapped is what stands in a text in base64, plain or packed.
func unwrapped(text []byte) []byte {
	var out []byte
	for _, run := range base64Run.FindAll(text, -1) {
		b, err := base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/").Replace(string(run)))
		if err != nil {
			continue // a word that only looks like it
		}
		out = append(append(out, b...), '\n')
		if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
			inner, _ := io.ReadAll(z) // as much as there is
			out = append(append(out, inner...), '\n')
		}
	}
	return out
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
