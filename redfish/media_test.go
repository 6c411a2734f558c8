package redfish

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/metalctl/metalctl/fleet"
)

const (
	testImage = "https://10.0.0.1:8443/boot/0123456789abcdef/boot.iso"
	cdSlot    = "/redfish/v1/Systems/1/VirtualMedia/Cd"
	insertCd  = cdSlot + "/Actions/VirtualMedia.InsertMedia"
	ejectCd   = cdSlot + "/Actions/VirtualMedia.EjectMedia"
)

// TestInsertLadder has a BMC that wants or forbids parameters, and looks for how many tries the client takes to find out.
func TestInsertLadder(t *testing.T) {
	for _, tc := range []struct {
		name      string
		required  []string
		forbidden []string
		status    int
		nameless  bool // the error does not name the parameter
		info      bool // ActionInfo tells
		want      []string
		maxTries  int
	}{
		{"nothing special", nil, nil, 400, false, false, []string{"Image"}, 1},
		{"protocol is required and named", []string{"TransferProtocolType"}, nil, 400, false, false, []string{"Image", "TransferProtocolType"}, 2},
		{"protocol is required, not named", []string{"TransferProtocolType"}, nil, 400, true, false, []string{"Image", "TransferProtocolType"}, 2},
		{"method too, not named", []string{"TransferProtocolType", "TransferMethod"}, nil, 400, true, false, []string{"Image", "TransferProtocolType", "TransferMethod"}, 3},
		{"a login that is not used (NVIDIA DGX)", []string{"UserName", "Password"}, nil, 400, true, false,
			[]string{"Image", "TransferProtocolType", "TransferMethod", "UserName", "Password"}, 4},
		{"login named, method forbidden", []string{"UserName", "Password"}, []string{"TransferMethod"}, 400, false, false, []string{"Image", "UserName", "Password"}, 3},
		{"Inserted is required", []string{"Inserted"}, nil, 400, false, false, []string{"Image", "Inserted"}, 2},
		{"ActionInfo names what is required", []string{"TransferProtocolType", "TransferMethod"}, nil, 400, true, true, []string{"Image", "TransferProtocolType", "TransferMethod"}, 1},
		{"500 without reason", []string{"TransferProtocolType"}, nil, 500, true, false, []string{"Image", "TransferProtocolType"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			tries := 0
			ok := f.actions[insertCd]
			f.actions[insertCd] = func(body obj) (int, any) {
				tries++
				for _, name := range tc.required {
					if body[name] == nil {
						if tc.nameless {
							return tc.status, obj{"error": obj{"message": "no"}}
						}
						return tc.status, redfishError("ActionParameterMissing", "VirtualMedia.InsertMedia", name)
					}
				}
				for _, name := range tc.forbidden {
					if body[name] != nil {
						return tc.status, redfishError("ActionParameterUnknown", "VirtualMedia.InsertMedia", name)
					}
				}
				return ok(body)
			}
			if tc.info {
				f.put("/redfish/v1/Info", obj{"Parameters": []any{
					obj{"Name": "Image", "Required": true}, obj{"Name": "TransferProtocolType", "Required": true, "AllowableValues": []any{"HTTP", "HTTPS"}},
					obj{"Name": "TransferMethod", "Required": true}, obj{"Name": "WriteProtected"},
				}})
				f.resources[cdSlot]["Actions"].(obj)["#VirtualMedia.InsertMedia"].(obj)["@Redfish.ActionInfo"] = "/redfish/v1/Info"
			}
			b := f.dial()
			if _, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage}); err != nil {
				t.Fatal(err)
			}
			got := b.Learned()
			slices.Sort(got.Parameters)
			slices.Sort(tc.want)
			if d := cmp.Diff(got, Learned{Slot: cdSlot, Parameters: tc.want}); d != "" {
				t.Errorf("learned (-got +want):\n%s", d)
			}
			if tries > tc.maxTries {
				t.Errorf("%d tries, want at most %d", tries, tc.maxTries)
			}
			before := tries
			if _, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage}); err != nil {
				t.Fatal(err)
			}
			if tries != before+1 {
				t.Errorf("the second insertion took %d tries: nothing was remembered", tries-before)
			}
		})
	}
}

func TestSlotRanking(t *testing.T) {
	slotOf := func(types []any, action bool, more obj) obj {
		o := obj{"MediaTypes": types, "Image": nil, "Inserted": false, "ConnectedVia": "NotConnected"}
		if action {
			o["Actions"] = obj{"#VirtualMedia.InsertMedia": obj{"target": "/redfish/v1/Insert"}}
		}
		maps.Copy(o, more)
		return o
	}
	cd, usb := []any{"CD", "DVD"}, []any{"USBStick", "Floppy"}
	for _, tc := range []struct {
		name            string
		vendor          string
		system, manager map[string]obj
		want            []string // fit slots in order, "!" before the unfit
	}{
		{"system before manager (iDRAC9 6.00)", "Dell", map[string]obj{"1": slotOf(cd, true, nil), "2": slotOf(cd, true, nil)},
			map[string]obj{"CD": slotOf(cd, true, nil), "RemovableDisk": slotOf(usb, true, nil)}, []string{"1", "2", "CD", "!RemovableDisk"}},
		{"only the EXT slots of an XCC take URLs", "Lenovo", nil, map[string]obj{
			"EXT1": slotOf(cd, false, nil), "RDOC1": slotOf(cd, false, nil), "Remote1": slotOf(cd, false, nil)}, []string{"EXT1", "!RDOC1", "!Remote1"}},
		{"iLO's second slot is the CD", "HPE", nil, map[string]obj{"1": slotOf(usb, true, nil), "2": slotOf(cd, true, nil)}, []string{"2", "!1"}},
		{"an action beats a PATCH", "Acme", map[string]obj{"a": slotOf(cd, false, nil), "b": slotOf(cd, true, nil)}, nil, []string{"b", "a"}},
		{"a free slot beats an occupied one", "Acme", map[string]obj{"a": slotOf(cd, true, obj{"Inserted": true, "Image": "http://x/y"}), "b": slotOf(cd, true, nil)}, nil, []string{"b", "a"}},
		{"a console's slot comes last", "Acme", map[string]obj{"a": slotOf(cd, true, obj{"ConnectedVia": "Applet"}), "b": slotOf(cd, true, obj{"Inserted": true})}, nil, []string{"b", "a"}},
		{"DVD will do (Cisco)", "Cisco", map[string]obj{"a": slotOf([]any{"DVD"}, true, nil)}, nil, []string{"a"}},
		{"without Image and action it is a console's (OpenBMC)", "Acme", map[string]obj{"a": {"MediaTypes": cd}, "b": slotOf(cd, true, nil)}, nil, []string{"b", "!a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			f.resources["/redfish/v1"]["Vendor"] = tc.vendor
			for base, slots := range map[string]map[string]obj{"/redfish/v1/Systems/1": tc.system, "/redfish/v1/Managers/BMC": tc.manager} {
				var uris []string
				for _, id := range slices.Sorted(maps.Keys(slots)) {
					uris = append(uris, base+"/VirtualMedia/"+id)
					f.put(base+"/VirtualMedia/"+id, slots[id])
				}
				f.put(base+"/VirtualMedia", collection(uris...))
				f.resources[base]["VirtualMedia"] = link(base + "/VirtualMedia")
			}
			c, err := f.dial().Capabilities(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range c.Slots {
				id := lastSegment(s.URI)
				if s.Unfit != "" {
					id = "!" + id
				}
				got = append(got, id)
			}
			if d := cmp.Diff(got, tc.want); d != "" {
				t.Errorf("ranking (-got +want):\n%s", d)
			}
			if c.Method != VirtualMedia || lastSegment(c.Boots) != tc.want[0] || c.Why == "" {
				t.Errorf("would boot by %q from %q because %q", c.Method, c.Boots, c.Why)
			}
			if w := f.writes(); len(w) > 0 {
				t.Errorf("asking for capabilities wrote %q", w)
			}
		})
	}
}

func TestInsertByPatch(t *testing.T) {
	f := newFake(t)
	f.resources[cdSlot]["Actions"] = obj{}
	f.hook = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method == "PATCH" && strings.Contains(string(body), "Inserted") { // iLO4
			answer(w, 400, redfishError("PropertyUnknown", "Inserted"))
			return true
		}
		if r.Method == "PATCH" && r.URL.Path == cdSlot {
			in := strings.Contains(string(body), "https://")
			defer f.set(cdSlot, obj{"Inserted": in})
		}
		return false
	}
	b := f.dial()
	m, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage})
	if err != nil || m.Image != testImage {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := b.EjectMedia(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.at(cdSlot, "Image") != nil {
		t.Error("the image is still there")
	}
}

func TestSlotsAreEnabledFirst(t *testing.T) {
	f := newFake(t)
	f.resources["/redfish/v1/Systems/1/VirtualMedia"] = collection()
	f.resources["/redfish/v1"]["Vendor"] = "AMI"
	const base = "/redfish/v1/Managers/BMC/Actions/Oem/AMIVirtualMedia."
	f.resources["/redfish/v1/Managers/BMC"]["Actions"] = obj{"Oem": obj{
		"#AMIVirtualMedia.EnableRMedia":        obj{"target": base + "EnableRMedia"},
		"#AMIVirtualMedia.ConfigureCDInstance": obj{"target": base + "ConfigureCDInstance"},
	}}
	enabled := false
	f.actions[base+"EnableRMedia"] = func(body obj) (int, any) {
		enabled = body["RMediaState"] == "Enable"
		return 200, redfishError("Success")
	}
	f.actions[base+"ConfigureCDInstance"] = func(body obj) (int, any) {
		if enabled && body["CDInstance"] == 1.0 {
			f.resources["/redfish/v1/Systems/1/VirtualMedia"] = collection(cdSlot)
		}
		return 200, redfishError("Success")
	}
	b := f.dial()
	c, err := b.Capabilities(t.Context())
	if err != nil || c.Method != VirtualMedia || c.EnableMedia == "" || len(f.writes()) > 0 {
		t.Fatalf("capabilities %+v, %v, writes %q", c, err, f.writes())
	}
	if m, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage}); err != nil || m.URI != cdSlot {
		t.Fatalf("%+v, %v", m, err)
	}
}

func TestHTTPBootWhereThereIsNoSlot(t *testing.T) {
	f := newFake(t)
	delete(f.resources["/redfish/v1/Systems/1"], "VirtualMedia")
	f.resources["/redfish/v1/Systems/1"]["Boot"].(obj)["HttpBootUri"] = ""
	b := f.dial()
	m, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage})
	if err != nil || m.Method != UefiHTTP || m.Target != UefiHttp {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, target := range []Target{m.Target, Cd} {
		if err := b.SetBootOnce(t.Context(), target, UEFI); err != nil {
			t.Fatal(err)
		}
		if a, got := f.at(host, "Boot", "HttpBootUri"), f.at(host, "Boot", "BootSourceOverrideTarget"); a != testImage || got != "UefiHttp" {
			t.Errorf("for %s the address is %v, the target %v", target, a, got)
		}
	}
	restarted := f.dial(func(o *Options) { o.Ours = []string{"https://10.0.0.1:8443/"} })
	if err := restarted.SetBootOnce(t.Context(), Cd, UEFI); err != nil || f.at(host, "Boot", "BootSourceOverrideTarget") != "UefiHttp" {
		t.Errorf("after a restart of the program: %v, %v", f.at(host, "Boot", "BootSourceOverrideTarget"), err)
	}
	if err := b.EjectMedia(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.at("/redfish/v1/Systems/1", "Boot", "HttpBootUri"); got != "" {
		t.Errorf("after eject the address is %v", got)
	}
}

// TestOtherAddresses: slots that take https in no way are tried with http; firmware gets an address of its own, and our address is known as ours.
func TestOtherAddresses(t *testing.T) {
	const plain, firmware = "http://10.0.0.1:8080/boot/x/metalctl.iso", "http://10.9.0.1:8080/boot/x/metalctl.iso"
	req := MediaRequest{URL: testImage, Plain: plain, Firmware: firmware}
	f := newFake(t)
	f.actions[cdSlot+"/Actions/VirtualMedia.InsertMedia"] = func(body obj) (int, any) {
		if strings.HasPrefix(body["Image"].(string), "https:") {
			return 400, redfishError("ActionParameterValueFormatError")
		}
		maps.Copy(f.resources[cdSlot], obj{"Inserted": true, "Image": body["Image"]})
		return 204, nil
	}
	m, err := f.dial().InsertMedia(t.Context(), req)
	if err != nil || m.Method != VirtualMedia || m.Image != plain {
		t.Errorf("a slot without https: %+v, %v", m, err)
	}

	f = newFake(t)
	delete(f.resources["/redfish/v1/Systems/1"], "VirtualMedia")
	f.resources["/redfish/v1/Systems/1"]["Boot"].(obj)["HttpBootUri"] = ""
	b := f.dial(func(o *Options) { o.Ours = []string{"https://10.0.0.1:8443/", "http://10.9.0.1:8080/"} })
	if m, err = b.InsertMedia(t.Context(), req); err != nil || m.Method != UefiHTTP || m.Image != firmware {
		t.Errorf("no slot: %+v, %v", m, err)
	}
	restarted := f.dial(func(o *Options) { o.Ours = []string{"https://10.0.0.1:8443/", "http://10.9.0.1:8080/"} })
	if err := restarted.EjectMedia(t.Context()); err != nil || f.at(host, "Boot", "HttpBootUri") != "" {
		t.Errorf("after a restart of the program the address stays %v: %v", f.at(host, "Boot", "HttpBootUri"), err)
	}
	if _, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage, Plain: "ftp://x/"}); fleet.KindOf(err) != fleet.Invalid {
		t.Errorf("an address that is not http: %v", err)
	}
}

func TestNoWayToInsert(t *testing.T) {
	for _, tc := range []struct {
		name   string
		insert func(f *fake) func(obj) (int, any)
		code   string
		says   string
	}{
		{"no slot, no HTTP boot", nil, "MC-BMC-NO-MEDIA", "no HTTP boot"},
		{"a licence is missing", func(*fake) func(obj) (int, any) {
			return func(obj) (int, any) { return 403, redfishError("LicenseKeyRequired") }
		}, "MC-BMC-LICENCE", "licence"},
		{"204, but nothing mounts (iDRAC)", func(*fake) func(obj) (int, any) { return func(obj) (int, any) { return 204, nil } }, "MC-BMC-NO-MEDIA", "stays empty"},
		{"another image appears", func(f *fake) func(obj) (int, any) {
			return func(obj) (int, any) {
				maps.Copy(f.resources[cdSlot], obj{"Inserted": true, "Image": "http://elsewhere/x.iso"})
				return 204, nil
			}
		}, "MC-BMC-NO-MEDIA", "another image"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			if tc.insert == nil {
				delete(f.resources["/redfish/v1/Systems/1"], "VirtualMedia")
			} else {
				f.actions[insertCd] = tc.insert(f)
			}
			b := f.dial()
			_, err := b.InsertMedia(t.Context(), MediaRequest{URL: testImage})
			if fleet.CodeOf(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
				t.Errorf("the image's address is shown: %v", err)
			}
			if f.at(cdSlot, "Inserted") == true {
				t.Error("something was left in the slot")
			}
		})
	}
}

func TestSchemes(t *testing.T) {
	f := newFake(t)
	f.resources["/redfish/v1"]["Vendor"] = "OpenBMC"
	b := f.dial()
	_, err := b.InsertMedia(t.Context(), MediaRequest{URL: "http://10.0.0.1/boot/0123456789/boot.iso"})
	if fleet.CodeOf(err) != "MC-BMC-NO-MEDIA" || !strings.Contains(err.Error(), "https") || len(f.writes()) > 0 {
		t.Errorf("http: %v, writes %q", err, f.writes())
	}
	for _, url := range []string{"", "file:///etc/passwd", "smb://x/y", "https://"} {
		if _, err := b.InsertMedia(t.Context(), MediaRequest{URL: url}); fleet.KindOf(err) != fleet.Invalid {
			t.Errorf("%q: %v", url, err)
		}
	}
	if c, err := b.Capabilities(t.Context()); err != nil || !cmp.Equal(c.Schemes, []string{"https", "smb"}) {
		t.Errorf("schemes %v, %v", c.Schemes, err)
	}
}

func TestCertificates(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		f := newFake(t)
		f.resources[cdSlot]["Certificates"] = link(cdSlot + "/Certificates")
		f.resources[cdSlot]["VerifyCertificate"] = false
		f.put(cdSlot+"/Certificates", collection())
		var given obj
		f.actions[cdSlot+"/Certificates"] = func(body obj) (int, any) {
			if refuse {
				return 501, nil
			}
			given = body
			return 201, nil
		}
		m, err := f.dial().InsertMedia(t.Context(), MediaRequest{URL: testImage, CAPEM: f.ca()})
		if err != nil {
			t.Fatal(err)
		}
		if m.CertificateVerified == refuse || (f.at(cdSlot, "VerifyCertificate") == true) == refuse || (given["CertificateType"] == "PEM") == refuse {
			t.Errorf("refused %v: verified %v, given %v", refuse, m.CertificateVerified, given)
		}
	}
}

func TestEject(t *testing.T) {
	occupied := obj{"Image": testImage, "Inserted": true, "ConnectedVia": "URI"}
	for _, tc := range []struct {
		name  string
		setup func(f *fake)
		ours  []string
		code  string
		empty bool
	}{
		{"at once", func(*fake) {}, nil, "", true},
		{"the image stays for ten seconds (iDRAC)", func(f *fake) {
			reads := 0
			f.actions[ejectCd] = func(obj) (int, any) { reads = 1; return 204, nil }
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				if reads > 0 && r.Method == "GET" && r.URL.Path == cdSlot {
					if reads++; reads > 10 {
						maps.Copy(f.resources[cdSlot], obj{"Image": nil, "Inserted": false})
					}
				}
				return false
			}
		}, nil, "", true},
		{"an error, although ejected (iLO)", func(f *fake) {
			f.actions[ejectCd] = func(obj) (int, any) {
				maps.Copy(f.resources[cdSlot], obj{"Image": nil, "Inserted": false})
				return 500, nil
			}
		}, nil, "", true},
		{"never", func(f *fake) { f.actions[ejectCd] = func(obj) (int, any) { return 204, nil } }, nil, "MC-BMC-EJECT", false},
		{"refused", func(f *fake) { f.actions[ejectCd] = func(obj) (int, any) { return 400, redfishError("GeneralError") } }, nil, "MC-BMC-REFUSED", false},
		{"somebody else's image stays", func(*fake) {}, []string{"https://10.9.9.9/"}, "", false},
		{"ours by its address", func(*fake) {}, []string{"https://10.0.0.1:8443/boot/"}, "", true},
		{"Supermicro keeps Image", func(f *fake) {
			f.resources["/redfish/v1"]["Vendor"] = "Supermicro"
			f.actions[ejectCd] = func(obj) (int, any) { f.resources[cdSlot]["ConnectedVia"] = "NotConnected"; return 204, nil }
		}, nil, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			maps.Copy(f.resources[cdSlot], occupied)
			tc.setup(f)
			b := f.dial(func(o *Options) { o.Ours = tc.ours })
			if err := b.EjectMedia(t.Context()); fleet.CodeOf(err) != tc.code {
				t.Fatalf("got %v", err)
			}
			if got := f.at(cdSlot, "Inserted") == false; got != tc.empty {
				t.Errorf("empty is %v", got)
			}
		})
	}
}

func TestInsertEjectsFirst(t *testing.T) {
	f := newFake(t)
	maps.Copy(f.resources[cdSlot], obj{"Image": "http://old/one.iso", "Inserted": true, "ConnectedVia": "URI"})
	if _, err := f.dial().InsertMedia(t.Context(), MediaRequest{URL: testImage}); err != nil {
		t.Fatal(err)
	}
	if w := f.writes(); len(w) != 2 || !strings.Contains(w[0], "EjectMedia {}") {
		t.Errorf("writes %q", w)
	}
}
