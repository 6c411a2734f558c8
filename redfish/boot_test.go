package redfish

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/metalctl/metalctl/fleet"
)

const host = "/redfish/v1/Systems/1"

func TestSetBootOnce(t *testing.T) {
	for _, tc := range []struct {
		name   string
		setup  func(f *fake)
		target Target
		mode   Mode
		code   string
		writes []string
	}{
		{"what is set already is sent again, as a boot uses it up", func(f *fake) {
			f.resources[host]["Boot"].(obj)["BootSourceOverrideEnabled"] = "Once"
		}, Hdd, KeepMode, "", []string{`PATCH ` + host + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Hdd"}}`}},
		{"None where there is none", func(*fake) {}, None, KeepMode, "", nil},
		{"the mode is sent where it differs", func(f *fake) {
			f.resources[host]["Boot"].(obj)["BootSourceOverrideMode"] = "Legacy"
		}, Cd, UEFI, "", []string{`PATCH ` + host + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI","BootSourceOverrideTarget":"Cd"}}`}},
		{"no mode property (HPE Gen9)", func(f *fake) {
			delete(f.resources[host]["Boot"].(obj), "BootSourceOverrideMode")
		}, Cd, UEFI, "", []string{`PATCH ` + host + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}}`}},
		{"Supermicro forgets what is left out, and calls it UsbCd", func(f *fake) {
			f.resources["/redfish/v1"]["Vendor"] = "Supermicro"
			f.resources[host]["Boot"].(obj)["BootSourceOverrideTarget@Redfish.AllowableValues"] = []any{"None", "UsbCd", "Cd"}
		}, Cd, KeepMode, "", []string{`PATCH ` + host + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI","BootSourceOverrideTarget":"UsbCd"}}`}},
		{"a target that is not offered", func(f *fake) {
			f.resources[host]["Boot"].(obj)["BootSourceOverrideTarget@Redfish.AllowableValues"] = []any{"None", "Pxe"}
		}, Cd, UEFI, "MC-BMC-BOOT", nil},
		{"a settings resource takes it", func(f *fake) {
			f.resources[host]["@Redfish.Settings"] = obj{"SettingsObject": link(host + "/Settings")}
			f.put(host+"/Settings", obj{"Boot": obj{"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
				"BootSourceOverrideTarget@Redfish.AllowableValues": []any{"None", "Cd"}}})
		}, Cd, UEFI, "", []string{`PATCH ` + host + `/Settings {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}}`}},
		{"a settings resource refuses, the system takes it", func(f *fake) {
			f.resources[host]["@Redfish.Settings"] = obj{"SettingsObject": link(host + "/Settings")}
			f.put(host+"/Settings", obj{"Boot": obj{"BootSourceOverrideTarget": "None"}})
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == "PATCH" && strings.HasSuffix(r.URL.Path, "Settings") {
					answer(w, 405, nil)
					return true
				}
				return false
			}
		}, Cd, UEFI, "", []string{
			`PATCH ` + host + `/Settings {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}}`,
			`PATCH ` + host + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}}`,
		}},
		{"Once becomes Continuous", func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == "PATCH" {
					f.set(host, obj{"Boot": obj{"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Cd"}})
					answer(w, 204, nil)
					return true
				}
				return false
			}
		}, Cd, KeepMode, "", []string{`PATCH ` + host + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}}`}},
		{"200, but not kept", func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == "PATCH" {
					answer(w, 200, obj{})
				}
				return r.Method == "PATCH"
			}
		}, Cd, KeepMode, "MC-BMC-BOOT", []string{`PATCH ` + host + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}}`}},
		{"an iDRAC is told by its own attributes", func(f *fake) {
			f.resources["/redfish/v1"]["Vendor"] = "Dell"
			f.resources["/redfish/v1/Managers/BMC"]["Links"] = obj{"Oem": obj{"Dell": obj{"DellAttributes": []any{link("/redfish/v1/Managers/BMC/Oem/Dell/DellAttributes/iDRAC.Embedded.1")}}}}
			f.put("/redfish/v1/Managers/BMC/Oem/Dell/DellAttributes/iDRAC.Embedded.1", obj{"Attributes": obj{"ServerBoot.1.FirstBootDevice": "Normal", "ServerBoot.1.BootOnce": "Disabled"}})
		}, Cd, UEFI, "", []string{`PATCH /redfish/v1/Managers/BMC/Oem/Dell/DellAttributes/iDRAC.Embedded.1 {"Attributes":{"ServerBoot.1.BootOnce":"Enabled","ServerBoot.1.FirstBootDevice":"VCD-DVD"}}`}},
		{"an older iDRAC imports a configuration", func(f *fake) {
			f.resources["/redfish/v1"]["Vendor"] = "Dell"
			f.resources["/redfish/v1/Managers/BMC"]["Actions"] = obj{"Oem": obj{"#OemManager.ImportSystemConfiguration": obj{"target": "/redfish/v1/Import"}}}
			f.actions["/redfish/v1/Import"] = func(obj) (int, any) { return 202, nil }
		}, Cd, UEFI, "", []string{`POST /redfish/v1/Import {"ImportBuffer":"\u003cSystemConfiguration\u003e\u003cComponent FQDD=\"BMC\"\u003e\u003cAttribute Name=\"ServerBoot.1#BootOnce\"\u003eEnabled\u003c/Attribute\u003e\u003cAttribute Name=\"ServerBoot.1#FirstBootDevice\"\u003eVCD-DVD\u003c/Attribute\u003e\u003c/Component\u003e\u003c/SystemConfiguration\u003e","ShareParameters":{"Target":"ALL"}}`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			tc.setup(f)
			b := f.dial()
			if err := b.SetBootOnce(t.Context(), tc.target, tc.mode); fleet.CodeOf(err) != tc.code {
				t.Fatalf("got %v", err)
			}
			if d := cmp.Diff(f.writes(), tc.writes); d != "" {
				t.Errorf("writes (-got +want):\n%s", d)
			}
		})
	}
}

func TestPatchPreconditions(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hook  func(f *fake, w http.ResponseWriter, r *http.Request, try int) bool
		code  string
		tries int
	}{
		{"an exact tag", func(*fake, http.ResponseWriter, *http.Request, int) bool { return false }, "", 1},
		{"another property changed: read again, apply", func(f *fake, _ http.ResponseWriter, _ *http.Request, try int) bool {
			if try == 1 {
				f.set(host, obj{"AssetTag": "moved"})
			}
			return false
		}, "", 2},
		{"the same property changed: conflict", func(f *fake, _ http.ResponseWriter, _ *http.Request, try int) bool {
			boot := obj{"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Hdd", "BootSourceOverrideMode": "UEFI"}
			if try == 1 {
				f.set(host, obj{"Boot": boot})
			}
			return false
		}, "MC-BMC-CONFLICT", 1},
		{"somebody else set the same: done", func(f *fake, _ http.ResponseWriter, _ *http.Request, try int) bool {
			f.set(host, obj{"Boot": obj{"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}})
			return false
		}, "", 1},
		{"tags that move by themselves (XCC): none in the end", func(f *fake, _ http.ResponseWriter, r *http.Request, _ int) bool {
			f.set(host, obj{})
			return false
		}, "", 5},
		{"428 without a tag", func(f *fake, w http.ResponseWriter, r *http.Request, _ int) bool {
			if m := r.Header.Get("If-Match"); m != "*" {
				answer(w, 428, nil)
				return true
			}
			return false
		}, "", 3},
		{"412 whatever is sent", func(_ *fake, w http.ResponseWriter, _ *http.Request, _ int) bool {
			answer(w, 412, nil)
			return true
		}, "MC-BMC-CONFLICT", 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			b := f.dial()
			tries := 0
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method != "PATCH" {
					return false
				}
				tries++
				return tc.hook(f, w, r, tries)
			}
			if err := b.SetBootOnce(t.Context(), Pxe, KeepMode); fleet.CodeOf(err) != tc.code {
				t.Errorf("got %v", err)
			}
			if tries != tc.tries {
				t.Errorf("%d tries, want %d", tries, tc.tries)
			}
			if tc.code == "" && f.at(host, "Boot", "BootSourceOverrideTarget") != "Pxe" {
				t.Error("the target is not set")
			}
		})
	}
}

func TestPower(t *testing.T) {
	const reset = host + "/Actions/ComputerSystem.Reset"
	for _, tc := range []struct {
		name   string
		state  string
		action Action
		setup  func(f *fake)
		code   string
		resets int
	}{
		{"on when on", "On", On, nil, "", 0},
		{"off when off", "Off", ForceOff, nil, "", 0},
		{"restart of a host that is off", "Off", ForceRestart, nil, "MC-BMC-CONFLICT", 0},
		{"an action that is not offered", "On", GracefulRestart, nil, "MC-BMC-POWER", 0},
		{"an action that nobody knows", "On", "Explode", nil, "MC-BMC-POWER", 0},
		{"cycle is off and on where it is not offered", "On", PowerCycle, nil, "", 2},
		{"400, as it was on already", "Off", On, func(f *fake) {
			f.actions[reset] = func(obj) (int, any) { f.resources[host]["PowerState"] = "On"; return 400, redfishError("x") }
		}, "", 1},
		{"409 for a minute after power-off (iDRAC10)", "Off", On, func(f *fake) {
			f.resources["/redfish/v1"]["Vendor"] = "Dell"
			f.resources["/redfish/v1/Managers/BMC"]["Model"] = "17G Monolithic"
			ok, left := f.actions[reset], 5
			f.actions[reset] = func(body obj) (int, any) {
				if left--; left > 0 {
					return 409, redfishError("ActionParameterValueConflict", "ResetType", "On")
				}
				return ok(body)
			}
		}, "", 5},
		{"409 for good", "Off", On, func(f *fake) {
			f.actions[reset] = func(obj) (int, any) { return 409, redfishError("ResourceInUse") }
		}, "MC-BMC-CONFLICT", 7},
		{"409 while it restarts", "On", ForceOff, func(f *fake) {
			ok, left := f.actions[reset], 2
			f.actions[reset] = func(body obj) (int, any) {
				if left--; left > 0 {
					return 409, redfishError("ResourceInUse")
				}
				return ok(body)
			}
		}, "", 2},
		{"the answer is lost, the host is on: one press", "Off", On, func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path != reset {
					return false
				}
				f.set(host, obj{"PowerState": "On"})
				panic(http.ErrAbortHandler)
			}
		}, "", 1},
		{"the answer is lost, nothing happens: one press, an error", "Off", On, func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path == reset {
					panic(http.ErrAbortHandler)
				}
				return false
			}
		}, "MC-BMC-UNREACHABLE", 1},
		{"204, but nothing happens", "Off", On, func(f *fake) { f.actions[reset] = func(obj) (int, any) { return 204, nil } }, "MC-BMC-POWER", 1},
		{"503 twice", "Off", On, func(f *fake) {
			ok, left := f.actions[reset], 2
			f.actions[reset] = func(body obj) (int, any) {
				if left--; left >= 0 {
					return 503, redfishError("ServiceTemporarilyUnavailable", "5")
				}
				return ok(body)
			}
		}, "", 3},
		{"powering off first comes to rest", "PoweringOff", On, func(f *fake) {
			reads := 0
			f.hook = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == "GET" && r.URL.Path == host {
					if reads++; reads == 4 {
						f.set(host, obj{"PowerState": "Off"})
					}
				}
				return false
			}
		}, "", 1},
		{"ForceOn where there is no On", "Off", On, func(f *fake) {
			f.resources[host]["Actions"].(obj)["#ComputerSystem.Reset"].(obj)["ResetType@Redfish.AllowableValues"] = []any{"ForceOn"}
			f.actions[reset] = func(body obj) (int, any) {
				maps.Copy(f.resources[host], obj{"PowerState": map[any]string{"ForceOn": "On"}[body["ResetType"]]})
				return 204, nil
			}
		}, "", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			f.resources[host]["PowerState"] = tc.state
			if tc.setup != nil {
				tc.setup(f)
			}
			b := f.dial()
			if err := b.SetPower(t.Context(), tc.action); fleet.CodeOf(err) != tc.code {
				t.Errorf("got %v", err)
			}
			if n := len(f.writes()); n != tc.resets {
				t.Errorf("%d resets, want %d: %q", n, tc.resets, f.writes())
			}
			if want := map[Action]string{On: "On", ForceOff: "Off", PowerCycle: "On"}[tc.action]; tc.code == "" && f.at(host, "PowerState") != want {
				t.Errorf("the host is %v", f.at(host, "PowerState"))
			}
		})
	}
}

func TestHostIsNotTheBaseboard(t *testing.T) {
	f := newFake(t)
	f.resources["/redfish/v1/Systems"] = collection("/redfish/v1/Systems/HGX_Baseboard_0", host)
	f.put("/redfish/v1/Systems/HGX_Baseboard_0", obj{"PowerState": "On", "SystemType": "Physical", "Boot": obj{},
		"Actions": obj{"#ComputerSystem.Reset": obj{"target": "/redfish/v1/x"}}})
	id, err := f.dial().Identity(t.Context())
	if err != nil || id.System != host {
		t.Errorf("host is %s, %v", id.System, err)
	}
	second := maps.Clone(f.resources[host])
	f.put("/redfish/v1/Systems/2", second)
	f.resources["/redfish/v1/Systems"] = collection(host, "/redfish/v1/Systems/2")
	if _, err := f.dial().Identity(t.Context()); fleet.CodeOf(err) != "MC-BMC-IDENTITY" {
		t.Errorf("two hosts: %v", err)
	}
	if id, err := f.dial(func(o *Options) { o.System = "/redfish/v1/Systems/2" }).Identity(t.Context()); err != nil || id.System != "/redfish/v1/Systems/2" {
		t.Errorf("named host is %s, %v", id.System, err)
	}
}

func TestExpect(t *testing.T) {
	id := Identity{Serial: "S1", SKU: "TAG7", UUID: "aa-bb"}
	for _, tc := range []struct {
		e    Expect
		code string
	}{{Expect{}, ""}, {Expect{Serial: "s1", UUID: "AA-BB"}, ""}, {Expect{Serial: "TAG7"}, ""}, {Expect{Serial: "S2"}, "MC-BMC-IDENTITY"}, {Expect{UUID: "cc"}, "MC-BMC-IDENTITY"}} {
		if err := id.Check(tc.e); fleet.CodeOf(err) != tc.code {
			t.Errorf("%+v: %v", tc.e, err)
		}
	}
}
