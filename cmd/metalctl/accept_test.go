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

// What accept sends is what it printed: no more, and nothing that nobody was shown.
func TestAcceptSendsWhatItPrinted(t *testing.T) {
	disks := []fleet.AcceptedDevice{{Serial: "S1", Model: "Big Disk", SizeBytes: 4e12}, {Serial: "S2", SizeBytes: 1e12}}
	for name, c := range map[string]struct {
		flags []string
		want  []string
		print string
	}{
		"all":      {nil, []string{"S1", "S2"}, "n1: may erase S1  4 TB  Big Disk\nn1: may erase S2  1 TB  -\n"},
		"one":      {[]string{"--device", "S2"}, []string{"S2"}, "n1: may erase S2  1 TB  -\n"},
		"unlisted": {[]string{"--device", "X"}, []string{"X"}, "n1: may erase X  0 B  not listed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var sent api.NodeVerb
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
						t.Error(err)
					}
					json.NewEncoder(w).Encode(api.VerbAccepted{}) //nolint:errcheck // the client says
					return
				}
				json.NewEncoder(w).Encode(api.Node{Node: fleet.Node{Name: "n1"}, WouldErase: disks}) //nolint:errcheck // as above
			}))
			defer s.Close()
			ca := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("METALCTL_TOKEN", "t")
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			var out, errs bytes.Buffer
			p := &program{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
			root := newRoot(p)
			root.SetArgs(append([]string{"node", "accept", "n1", "--yes", "--server", s.URL, "--cacert", ca}, c.flags...))
			if err := root.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, sent.Devices); diff != "" {
				t.Error(diff)
			}
			if !strings.HasPrefix(errs.String(), c.print) {
				t.Errorf("printed %q, want %q", errs.String(), c.print)
			}
		})
	}
}
