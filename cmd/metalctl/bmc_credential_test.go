//go:build !ramdisk

package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// A password is only asked for where no trust is set; what is not given stays.
func TestWhatIsSetAtABMC(t *testing.T) {
	dir := t.TempDir()
	pw, authority := filepath.Join(dir, "pw"), filepath.Join(dir, "bmc.pem")
	for name, text := range map[string]string{pw: "secret\n", authority: "PEM"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	credential := []string{"bmc", "credential", "set", "n1"}
	for name, c := range map[string]struct {
		args []string
		want *api.NodePatch // nil: refused as usage, and nothing is sent
		says string
	}{
		"nothing, without a terminal": {credential, nil, "--password-file is needed"},
		"a password":                  {append(credential, "--password-file", pw), &api.NodePatch{Password: new("secret")}, "n1: credential set"},
		"a pin":                       {append(credential, "--pin", "sha256/x"), &api.NodePatch{TLS: &fleet.BMCTLS{Pin: "sha256/x"}}, "n1: credential set"},
		"an authority":                {append(credential, "--ca-file", authority), &api.NodePatch{TLS: &fleet.BMCTLS{CAPEM: "PEM"}}, "n1: credential set"},
		"first use, and a password": {append(credential, "--first-use", "--password-file", pw),
			&api.NodePatch{TLS: &fleet.BMCTLS{FirstUse: true}, Password: new("secret")}, "n1: pinned at first use: sha256/seen"},
		"an address": {[]string{"node", "set", "n1", "--bmc", "https://10.0.0.12"}, &api.NodePatch{Address: new("https://10.0.0.12")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var sent *api.NodePatch
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sent = &api.NodePatch{}
				if err := json.NewDecoder(r.Body).Decode(sent); err != nil || r.Method != http.MethodPatch {
					t.Errorf("%s: %v", r.Method, err)
				}
				json.NewEncoder(w).Encode(api.Node{Node: fleet.Node{Name: "n1", BMC: fleet.BMC{TLS: fleet.BMCTLS{Pin: "sha256/seen"}}}}) //nolint:errcheck // the client says
			}))
			defer s.Close()
			ca := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("METALCTL_TOKEN", "t")
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			var out, errs bytes.Buffer
			root := newRoot(&program{stdin: strings.NewReader(""), stdout: &out, stderr: &errs})
			root.SetArgs(append([]string{"--server", s.URL, "--cacert", ca}, c.args...))
			err := root.ExecuteContext(t.Context())
			text := errs.String()
			if c.want == nil {
				if exitCode(err) != exitUsage {
					t.Fatalf("got %v", err)
				}
				text = err.Error()
			} else if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sent, c.want); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(text, c.says) {
				t.Errorf("printed %q, want %q", text, c.says)
			}
		})
	}
}
