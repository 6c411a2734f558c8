package redfish

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

const testPassword = "hunter2-\"quoted\"-söcret"

type obj = map[string]any

// fake is a small Redfish service that works: it keeps resources, checks sessions and tags, and runs the actions a test gives it.
type fake struct {
	t   *testing.T
	srv *httptest.Server

	mu        sync.Mutex
	resources map[string]obj
	tags      map[string]int
	tokens    map[string]string // token to session URI
	sessions  int
	noSession bool // SessionService is absent
	// hook may answer a request itself by returning true; it runs without mu.
	hook func(w http.ResponseWriter, r *http.Request, body []byte) bool
	// actions run for POST on their path and return a status (0 is 204) and an answer.
	actions map[string]func(body obj) (int, any)
	log     []string
	logins  int
	ifMatch bool // 428 without a tag
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, resources: map[string]obj{}, tags: map[string]int{}, tokens: map[string]string{}, actions: map[string]func(obj) (int, any){}}
	f.put("/redfish/v1", obj{
		"RedfishVersion": "1.15.0", "Vendor": "Acme", "Product": "Board",
		"Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
		"SessionService": link("/redfish/v1/SessionService"), "AccountService": link("/redfish/v1/AccountService"),
		"Links": obj{"Sessions": link("/redfish/v1/SessionService/Sessions")},
	})
	f.put("/redfish/v1/SessionService", obj{"SessionTimeout": 30})
	f.put("/redfish/v1/AccountService", obj{"AccountLockoutThreshold": 3})
	f.put("/redfish/v1/Systems", collection("/redfish/v1/Systems/1"))
	f.put("/redfish/v1/Managers", collection("/redfish/v1/Managers/BMC"))
	f.put("/redfish/v1/Managers/BMC", obj{"ManagerType": "BMC", "Model": "Acme BMC", "FirmwareVersion": "1.2.3"})
	f.put("/redfish/v1/Systems/1", obj{
		"Manufacturer": "Acme", "Model": "HGX", "SerialNumber": "S123", "UUID": "ABCDEF00-0000-0000-0000-000000000001",
		"PowerState": "Off", "SystemType": "Physical", "Links": obj{"ManagedBy": []any{link("/redfish/v1/Managers/BMC")}},
		"VirtualMedia": link("/redfish/v1/Systems/1/VirtualMedia"),
		"Boot": obj{
			"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None", "BootSourceOverrideMode": "UEFI",
			"BootSourceOverrideTarget@Redfish.AllowableValues": []any{"None", "Pxe", "Cd", "Hdd", "UefiHttp"},
		},
		"Actions": obj{"#ComputerSystem.Reset": obj{
			"target":                            "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
			"ResetType@Redfish.AllowableValues": []any{"On", "ForceOff", "GracefulShutdown", "ForceRestart"},
		}},
	})
	f.put("/redfish/v1/Systems/1/VirtualMedia", collection("/redfish/v1/Systems/1/VirtualMedia/Cd"))
	f.slot("/redfish/v1/Systems/1/VirtualMedia/Cd", []any{"CD", "DVD"})
	f.actions["/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"] = func(body obj) (int, any) {
		switch body["ResetType"] {
		case "On", "ForceRestart":
			f.resources["/redfish/v1/Systems/1"]["PowerState"] = "On"
		case "ForceOff", "GracefulShutdown":
			f.resources["/redfish/v1/Systems/1"]["PowerState"] = "Off"
		default:
			return 400, redfishError("ActionParameterValueNotInList", "ResetType")
		}
		return 0, nil
	}
	f.srv = httptest.NewTLSServer(f)
	t.Cleanup(f.srv.Close)
	return f
}

func link(uri string) obj { return obj{"@odata.id": uri} }

func collection(members ...string) obj {
	list := []any{}
	for _, m := range members {
		list = append(list, link(m))
	}
	return obj{"Members": list, "Members@odata.count": len(members)}
}

func redfishError(id string, args ...any) obj {
	return obj{"error": obj{"code": "Base.1.8.GeneralError", "message": "see @Message.ExtendedInfo", "@Message.ExtendedInfo": []any{
		obj{"MessageId": "Base.1.8." + id, "Message": fmt.Sprintf("%s %v", id, args), "MessageArgs": args, "MessageSeverity": "Warning"},
	}}}
}

// slot adds a virtual media slot with working actions.
func (f *fake) slot(uri string, types []any) {
	f.put(uri, obj{
		"Id": lastSegment(uri), "MediaTypes": types, "Image": nil, "Inserted": false, "ConnectedVia": "NotConnected", "WriteProtected": true,
		"Actions": obj{
			"#VirtualMedia.InsertMedia": obj{"target": uri + "/Actions/VirtualMedia.InsertMedia"},
			"#VirtualMedia.EjectMedia":  obj{"target": uri + "/Actions/VirtualMedia.EjectMedia"},
		},
	})
	f.actions[uri+"/Actions/VirtualMedia.InsertMedia"] = func(body obj) (int, any) {
		if f.resources[uri]["Inserted"] == true {
			return 409, redfishError("ResourceInUse")
		}
		maps.Copy(f.resources[uri], obj{"Image": body["Image"], "Inserted": true, "ConnectedVia": "URI"})
		return 0, nil
	}
	f.actions[uri+"/Actions/VirtualMedia.EjectMedia"] = func(obj) (int, any) {
		maps.Copy(f.resources[uri], obj{"Image": nil, "Inserted": false, "ConnectedVia": "NotConnected"})
		return 0, nil
	}
}

func (f *fake) put(uri string, o obj) {
	o["@odata.id"] = uri
	f.resources[uri] = o
}

// set changes properties behind the client's back.
func (f *fake) set(uri string, o obj) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.Copy(f.resources[uri], o)
	f.tags[uri]++
}

func (f *fake) at(uri string, path ...string) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return dig(map[string]any(f.resources[uri]), path...)
}

// writes returns the requests that were no reads, without those about sessions.
func (f *fake) writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, l := range f.log {
		if !strings.HasPrefix(l, "GET ") && !strings.Contains(l, "/Sessions") {
			all = append(all, l)
		}
	}
	return all
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	uri := strings.TrimSuffix(r.URL.Path, "/")
	f.mu.Lock()
	f.log = append(f.log, strings.TrimSpace(r.Method+" "+uri+" "+string(body)))
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(w, r, body) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if uri != "/redfish/v1" && !(r.Method == "POST" && uri == "/redfish/v1/SessionService/Sessions") && !f.authorised(r) {
		answer(w, 401, redfishError("NoValidSession"))
		return
	}
	var in obj
	if len(body) > 0 && json.Unmarshal(body, &in) != nil {
		answer(w, 400, redfishError("MalformedJSON"))
		return
	}
	f.route(w, r, uri, in)
}

func (f *fake) authorised(r *http.Request) bool {
	if user, password, ok := r.BasicAuth(); ok && f.noSession {
		f.logins++
		return user == "admin" && password == testPassword
	}
	_, ok := f.tokens[r.Header.Get("X-Auth-Token")]
	return ok
}

func (f *fake) route(w http.ResponseWriter, r *http.Request, uri string, in obj) {
	if r.Method == "POST" && uri == "/redfish/v1/SessionService/Sessions" {
		f.login(w, in)
		return
	}
	for token, s := range f.tokens {
		if r.Method == "DELETE" && s == uri {
			delete(f.tokens, token)
			answer(w, 204, nil)
			return
		}
		if r.Method == "GET" && s == uri {
			answer(w, 200, obj{"@odata.id": s})
			return
		}
	}
	if act := f.actions[uri]; act != nil && r.Method == "POST" {
		status, out := act(in)
		if status == 0 {
			status = 204
		}
		answer(w, status, out)
		return
	}
	o := f.resources[uri]
	if o == nil {
		answer(w, 404, redfishError("ResourceMissingAtURI", uri))
		return
	}
	tag := fmt.Sprintf(`"%d"`, f.tags[uri])
	switch r.Method {
	case "GET":
		w.Header().Set("ETag", tag)
		answer(w, 200, o)
	case "PATCH":
		switch m := r.Header.Get("If-Match"); {
		case m == "" && f.ifMatch:
			answer(w, 428, redfishError("PreconditionRequired"))
			return
		case m != "" && m != "*" && m != tag:
			answer(w, 412, redfishError("PreconditionFailed"))
			return
		}
		merge(o, in)
		f.tags[uri]++
		answer(w, 204, nil)
	default:
		answer(w, 405, redfishError("OperationNotAllowed"))
	}
}

func (f *fake) login(w http.ResponseWriter, in obj) {
	if f.noSession {
		answer(w, 404, nil)
		return
	}
	f.logins++
	if in["UserName"] != "admin" || in["Password"] != testPassword {
		answer(w, 401, redfishError("ResourceAtUriUnauthorized", in["Password"]))
		return
	}
	f.sessions++
	token, uri := fmt.Sprintf("token-%d-very-secret", f.sessions), fmt.Sprintf("/redfish/v1/SessionService/Sessions/%d", f.sessions)
	f.tokens[token] = uri
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", uri)
	answer(w, 201, obj{"@odata.id": uri, "UserName": "admin"})
}

func merge(dst, src obj) {
	for k, v := range src {
		if inner, ok := v.(map[string]any); ok {
			if d, ok := dst[k].(map[string]any); ok {
				merge(d, inner)
				continue
			}
		}
		dst[k] = v
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if v != nil {
		json.NewEncoder(w).Encode(v)
	}
}

// clock is a clock that stands still except while somebody sleeps on it.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

func (f *fake) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.cert().Raw})
}

func (f *fake) cert() *x509.Certificate { return f.srv.Certificate() }

func (f *fake) options() Options {
	c := newClock()
	return Options{
		Trust:       Trust{Mode: TrustCA, CAPEM: f.ca()},
		Credentials: Credentials{User: "admin", Password: fleet.NewSecret(testPassword)},
		Now:         c.Now, Sleep: c.Sleep,
	}
}

func (f *fake) dial(change ...func(*Options)) *BMC {
	f.t.Helper()
	o := f.options()
	for _, c := range change {
		c(&o)
	}
	b, err := Dial(f.t.Context(), f.srv.URL, o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { b.Close(context.Background()) })
	return b
}
