package redfish

import (
	"net/http"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestAssetTag(t *testing.T) {
	const system = "/redfish/v1/Systems/1"
	refuse := func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		w.WriteHeader(http.StatusBadRequest)
		return true
	}
	forget := func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	for name, c := range map[string]struct {
		has  bool
		hook func(http.ResponseWriter, *http.Request, []byte) bool
		code string
	}{
		"kept":                  {true, nil, ""},
		"none":                  {false, nil, "MC-BMC-ASSETTAG"},
		"refused":               {true, refuse, "MC-BMC-ASSETTAG"},
		"accepted and not kept": {true, forget, "MC-BMC-ASSETTAG"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if c.has {
				f.set(system, obj{"AssetTag": "RACK 7 "})
			}
			f.hook = c.hook
			b := f.dial()
			got, err := b.AssetTag(t.Context())
			if err != nil || c.has != (got == "RACK 7") {
				t.Errorf("read %q, %v", got, err)
			}
			err = b.SetAssetTag(t.Context(), "RACK 7 mcq7ra.1.0")
			if fleet.CodeOf(err) != c.code {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if !c.has && len(f.writes()) > 0 && strings.Contains(strings.Join(f.writes(), " "), "PATCH") {
				t.Errorf("wrote %q", f.writes())
			}
			if got, err := b.AssetTag(t.Context()); c.code == "" && (err != nil || got != "RACK 7 mcq7ra.1.0") {
				t.Errorf("read back %q, %v", got, err)
			}
		})
	}
}
