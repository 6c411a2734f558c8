package redfish

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestProbe(t *testing.T) {
	f := newFake(t)
	rep, err := Probe(t.Context(), f.srv.URL, f.options())
	if err != nil {
		t.Fatal(err)
	}
	if rep.Identity.Serial != "S123" || rep.Capabilities.Boots != cdSlot || rep.Pin != fleet.PinOf(f.cert()) || rep.Boot.Enabled != "Disabled" {
		t.Errorf("report %+v", rep)
	}
	if w := f.writes(); len(w) > 0 || len(f.tokens) > 0 {
		t.Errorf("a probe wrote %q and left sessions %v", w, f.tokens)
	}
	o := f.options()
	o.Trust = Trust{}
	rep, err = Probe(t.Context(), f.srv.URL, o)
	if fleet.CodeOf(err) != "MC-BMC-TLS" || rep.Pin != fleet.PinOf(f.cert()) {
		t.Errorf("an untrusted BMC: pin %q, %v", rep.Pin, err)
	}
}

func TestLicences(t *testing.T) {
	for _, tc := range []struct {
		name, vendor string
		manager      obj
		licences     []obj
		want         string
	}{
		{"iLO Standard", "HPE", obj{"Oem": obj{"Hpe": obj{"License": obj{"LicenseString": "iLO Standard"}}}}, nil, "missing"},
		{"iLO Advanced", "HPE", obj{"Oem": obj{"Hpe": obj{"License": obj{"LicenseString": "iLO Advanced"}}}}, nil, "present"},
		{"iDRAC Express", "Dell", nil, []obj{{"Name": "iDRAC9 Express"}}, "missing"},
		{"iDRAC Express, then Enterprise", "Dell", nil, []obj{{"Name": "iDRAC9 Express"}, {"Name": "iDRAC9 Enterprise License"}}, "present"},
		{"Supermicro says nothing", "Supermicro", nil, nil, "unknown"},
		{"nobody needs one", "Acme", nil, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			f.resources["/redfish/v1"]["Vendor"] = tc.vendor
			merge(f.resources["/redfish/v1/Managers/BMC"], tc.manager)
			if tc.licences != nil {
				f.resources["/redfish/v1"]["LicenseService"] = link("/redfish/v1/LicenseService")
				f.put("/redfish/v1/LicenseService", obj{"Licenses": link("/redfish/v1/LicenseService/Licenses")})
				var uris []string
				for _, l := range tc.licences {
					uris = append(uris, "/redfish/v1/LicenseService/Licenses/"+l["Name"].(string)[:3]+string(rune('a'+len(uris))))
					f.put(uris[len(uris)-1], l)
				}
				f.put("/redfish/v1/LicenseService/Licenses", collection(uris...))
			}
			c, err := f.dial().Capabilities(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(c.Licences) > 0 {
				got = c.Licences[0].State
			}
			if got != tc.want {
				t.Errorf("got %q, want %q: %+v", got, tc.want, c.Licences)
			}
		})
	}
}

func TestRecord(t *testing.T) {
	f := newFake(t)
	f.set(cdSlot, obj{"Image": testImage, "Inserted": true, "UserName": "share-user", "Password": "share-pass"})
	f.set("/redfish/v1/Managers/BMC", obj{"Broken": link("/redfish/v1/Broken"), "Gone": link("/redfish/v1/Gone"), "Evil": link("https://evil.example/x"), "Text": "the password is " + testPassword})
	f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != "/redfish/v1/Broken" {
			return false
		}
		io.WriteString(w, "<html>not JSON</html>")
		return true
	}
	b := f.dial()
	var out strings.Builder
	if err := Record(t.Context(), b, &out); err != nil {
		t.Fatal(err)
	}
	if w := f.writes(); len(w) > 0 {
		t.Errorf("recording wrote %q", w)
	}
	for _, secret := range []string{testPassword, "söcret", "share-pass", "share-user", "token-1", "0123456789abcdef", "evil.example/x\"}}"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the recording holds %q", secret)
		}
	}
	var rec Recording
	if err := json.Unmarshal([]byte(out.String()), &rec); err != nil {
		t.Fatal(err)
	}
	if rec.Version != 1 || rec.Root != "/redfish/v1/" || rec.Truncated {
		t.Errorf("recording is version %d of %q, truncated %v", rec.Version, rec.Root, rec.Truncated)
	}
	for uri, status := range map[string]int{"/redfish/v1/": 200, cdSlot: 200, "/redfish/v1/Systems/1": 200, "/redfish/v1/Broken": 200, "/redfish/v1/Gone": 404, "/redfish/v1/AccountService": 200} {
		if rec.Resources[uri].Status != status {
			t.Errorf("%s: status %d, want %d", uri, rec.Resources[uri].Status, status)
		}
	}
	var text string
	if rec.Resources[cdSlot].Headers["ETag"] == "" || json.Unmarshal(rec.Resources["/redfish/v1/Broken"].Body, &text) != nil || text != "<html>not JSON</html>" {
		t.Errorf("%v, %s", rec.Resources[cdSlot].Headers, rec.Resources["/redfish/v1/Broken"].Body)
	}
}
