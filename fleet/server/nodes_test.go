package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// raw does a request without the client and returns status, header and body.
func (w *world) raw(method, path, body string, header map[string]string) (int, http.Header, []byte) {
	w.t.Helper()
	h := map[string]string{"Authorization": "Bearer " + w.token}
	for k, v := range header {
		h[k] = v
	}
	req, err := http.NewRequest(method, w.URL()+path, strings.NewReader(body))
	must(w.t, err)
	for k, v := range h {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	c := w.trusting()
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	must(w.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(w.t, err)
	return res.StatusCode, res.Header, b
}

func problemOf(t *testing.T, body []byte) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("no problem: %s", body)
	}
	return p
}

func TestEnrolReadForget(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	created, err := w.client.CreateNode(ctx, createRequest("hgx-001"), "")
	must(t, err)
	if len(created.Notes) == 0 || created.BMC.TLS.Pin == "" || created.BMC.Serial == "" {
		t.Errorf("enrolment learned nothing: %s", asJSON(t, created))
	}
	got, err := w.client.Node(ctx, "hgx-001")
	must(t, err)
	if got.ID != created.ID || got.State != fleet.Enrolled || got.Dirty != fleet.DirtyUnknown || got.Isolation != "unproven" || got.Agent != "none" || got.Waits != "a person" {
		t.Errorf("got %s", asJSON(t, got))
	}
	if want := []fleet.Verb{"inspect", "forget", "hold", "protect"}; !cmp.Equal(got.Verbs, want) {
		t.Errorf("got verbs %v, want %v", got.Verbs, want)
	}
	_, _, generation, err := w.Issue(ctx, got.ID)
	must(t, err)
	_, err = w.db.Commit(ctx, fleet.Change{Writes: []fleet.Write{{Key: fleet.Key("secret/node/" + got.ID + "/session"), Value: fleet.NewSecret("a session")}}})
	must(t, err)
	must(t, w.client.ForgetNode(ctx, "hgx-001"))
	if len(w.bmcs.gone) != 1 || w.bmcs.gone[0] != got.ID {
		t.Errorf("the BMC of the forgotten node is not let go: %v", w.bmcs.gone)
	}
	_, err = w.client.Node(ctx, "hgx-001")
	wantCode(t, err, fleet.NotFound, "MC-NODE-UNKNOWN")
	// Nothing of it is left: not its secrets, its claims, or its medium.
	must(t, w.db.View(ctx, func(sn fleet.Snapshot) error {
		for _, kind := range []string{fleet.KindNode, fleet.KindUnique, fleet.KindSecret} {
			if err := sn.List(kind, func(r fleet.Record) bool {
				if r.Key != authorityKey {
					t.Errorf("%s is left (boot %d)", r.Key, generation)
				}
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	}))
	w.enrol("hgx-001")
}

func TestOneMachineIsEnrolledOnce(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	first := createRequest("first")
	_, err := w.client.CreateNode(ctx, first, "")
	must(t, err)
	n := w.nodeNow(w.idOf("first"))
	looked := w.bmcs.enrolled
	for _, tt := range []struct {
		name   string
		change func(*api.NodeCreate)
		says   string
	}{
		{"the same name", func(c *api.NodeCreate) { c.Name = "first" }, "name first"},
		{"the same BMC", func(c *api.NodeCreate) { c.Address = first.Address }, "BMC address"},
		{"the same BMC, written otherwise", func(c *api.NodeCreate) {
			c.Address = strings.Replace(strings.ToUpper(first.Address), "HTTPS", "https", 1) + "/"
		}, "BMC address"},
		{"the same machine behind another address", func(c *api.NodeCreate) {
			w.bmcs.machines[c.Address] = Learned{System: fleet.Expect{UUID: strings.ToUpper(n.BMC.UUID)}}
		}, "system UUID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := createRequest("second")
			tt.change(&req)
			_, err := w.client.CreateNode(ctx, req, "")
			wantCode(t, err, fleet.Conflict, "MC-NODE-TWICE")
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "node first") {
				t.Errorf("got %v, want it to name %s and the node first", err, tt.says)
			}
		})
	}
	if w.bmcs.enrolled != looked+1 {
		t.Errorf("%d BMCs were opened for nodes that are known by name or address", w.bmcs.enrolled-looked-1)
	}
}

// What is done to a port is done to one node: no second one is enrolled with it, and the fault names both.
func TestEnrolRefusesAPortOfAnother(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	ether := fleet.Port{MAC: "52:54:00:00:00:01", Role: fleet.PortTenant, Switch: "leaf-1", Port: "swp1"}
	hca := fleet.Port{GUID: "0x5000000000000101", Role: fleet.PortFabric, Fabric: "ib0"}
	first := createRequest("first")
	first.Ports = []fleet.Port{ether, hca}
	_, err := w.client.CreateNode(ctx, first, "")
	must(t, err)
	second := createRequest("second")
	for _, tt := range []struct {
		name  string
		port  fleet.Port
		taken bool
	}{
		{"the same port of a switch", fleet.Port{MAC: "52:54:00:00:00:02", Role: fleet.PortProvisioning, Switch: "leaf-1", Port: "swp1"}, true},
		{"the same GUID, in another fabric", fleet.Port{GUID: "0x5000000000000101", Role: fleet.PortFabric, Fabric: "ib1"}, true},
		{"a port of that name at another switch", fleet.Port{MAC: "52:54:00:00:00:02", Role: fleet.PortTenant, Switch: "leaf-2", Port: "swp1"}, false},
	} {
		second.Ports = []fleet.Port{tt.port}
		_, err := w.client.CreateNode(ctx, second, "")
		if !tt.taken {
			must(t, err)
			continue
		}
		wantCode(t, err, fleet.Conflict, "MC-NET-PORT")
		if !strings.Contains(err.Error(), "by second and by first") {
			t.Errorf("%s: %v does not name both", tt.name, err)
		}
	}
	// What was forgotten has no port any more.
	third := createRequest("third")
	third.Ports = first.Ports
	must(t, w.client.ForgetNode(ctx, "first"))
	_, err = w.client.CreateNode(ctx, third, "")
	must(t, err)
}

// Two people enrol one machine at the same moment: one of them learns of the other.
func TestOneMachineIsEnrolledOnceAtTheSameTime(t *testing.T) {
	w := newWorld(t, nil)
	const tries = 16
	errs := make([]error, tries)
	var wg sync.WaitGroup
	for i := range tries {
		wg.Go(func() {
			req := createRequest(fmt.Sprintf("n%d", i))
			req.Address = "https://127.0.0.1:9999"
			_, errs[i] = w.client.CreateNode(context.Background(), req, "")
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if fleet.CodeOf(err) != "MC-NODE-TWICE" {
			t.Errorf("got %v", err)
		}
	}
	l, err := w.client.Nodes(context.Background(), api.ListOptions{})
	must(t, err)
	if won != 1 || len(l.Items) != 1 {
		t.Errorf("%d were told that they enrolled it, %d nodes exist", won, len(l.Items))
	}
}

func (w *world) idOf(name string) fleet.NodeID {
	w.t.Helper()
	n, _, err := w.node(context.Background(), name)
	must(w.t, err)
	return n.ID
}

func TestEnrolRefusals(t *testing.T) {
	w := newWorld(t, nil)
	ok := `{"name":"n1","bmc_address":"https://127.0.0.1","bmc_user":"root","bmc_password":"` + bmcPassword + `","bmc_tls":{"first_use":true}`
	tests := []struct {
		name, body string
		status     int
		code       string
		fields     []string
	}{
		{"a field that is not known", ok + `,"colour":"red"}`, 422, "MC-API-INVALID", []string{"colour"}},
		{"a wrong type", ok + `,"allow_reboot":"yes"}`, 422, "MC-API-INVALID", []string{"allow_reboot"}},
		{"several faults at once", `{"name":"N 1","bmc_address":"https://h/redfish","bmc_user":"","bmc_password":"x","bmc_tls":{},"labels":{"a b":"c"},"boot_network":{"vlan":5000},"ports":[{"role":"x"}]}`,
			422, "MC-API-INVALID", []string{"bmc_address", "bmc_tls", "bmc_user", "boot_network.vlan", "labels.a b", "name", "ports[0]", "ports[0].role"}},
		{"no JSON", `name: n1`, 400, "MC-API-INVALID", []string{"body"}},
		{"no body", ``, 400, "MC-API-INVALID", nil},
		{"two documents", ok + `}{}`, 400, "MC-API-INVALID", []string{"body"}},
		{"a BMC without https", strings.Replace(ok, "https://127", "http://127", 1) + `}`, 422, "MC-BMC-SCHEME", nil},
		{"a BMC with a user in its address", strings.Replace(ok, "https://127", "https://root:pw@127", 1) + `}`, 422, "MC-BMC-SCHEME", nil},
		{"a class that is not there", ok + `,"class":"none-such"}`, 422, "MC-API-INVALID", []string{"class"}},
		{"another machine than expected", ok + `,"expect":{"serial":"X"}}`, 403, "MC-NODE-IDENTITY", []string{"expect.serial"}},
		{"a wrong password", strings.Replace(ok, bmcPassword, "wrong", 1) + `}`, 403, "MC-BMC-AUTH", nil},
		{"a BMC that could not reach us", strings.Replace(ok, "127.0.0.1", "10.0.0.11", 1) + `}`, 403, "MC-SERVER-ADVERTISE", nil},
		{"a name that is an id", strings.Replace(ok, "n1", "01900000-0000-7000-8000-000000000000", 1) + `}`, 422, "MC-API-INVALID", []string{"name"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, h, body := w.raw(http.MethodPost, "/api/v1/nodes", tt.body, nil)
			p := problemOf(t, body)
			if status != tt.status || p.Code != tt.code || h.Get("Content-Type") != api.ProblemType || p.Status != status || p.Instance != "/api/v1/nodes" {
				t.Fatalf("got %d %s", status, body)
			}
			var fields []string
			for _, f := range p.Errors {
				fields = append(fields, f.Field)
			}
			slices.Sort(fields)
			if !cmp.Equal(fields, tt.fields) {
				t.Errorf("got faults in %q, want %q: %s", fields, tt.fields, body)
			}
			if bytes.Contains(body, []byte(bmcPassword)) {
				t.Errorf("the answer repeats the password: %s", body)
			}
		})
	}
	l, err := w.client.Nodes(context.Background(), api.ListOptions{})
	must(t, err)
	if len(l.Items) != 0 {
		t.Errorf("something was recorded: %s", asJSON(t, l))
	}
}

func TestWhoMayAsk(t *testing.T) {
	w := newWorld(t, nil)
	for name, header := range map[string]string{"no token": "", "a wrong token": "Bearer x", "an empty token": "Bearer ", "another scheme": "Basic " + w.token} {
		for _, path := range []string{"/api/v1/nodes", "/api/v1/none-such", "/metrics", "/api/v1/events"} {
			req, err := http.NewRequest(http.MethodGet, w.URL()+path, nil)
			must(t, err)
			if header != "" {
				req.Header.Set("Authorization", header)
			}
			c := w.trusting()
			res, err := c.Do(req)
			must(t, err)
			b, err := io.ReadAll(res.Body)
			must(t, err)
			res.Body.Close()
			c.CloseIdleConnections()
			if p := problemOf(t, b); res.StatusCode != 401 || p.Code != "MC-API-TOKEN" || res.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s, %s: got %s %s", name, path, res.Status, b)
			}
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/api/openapi.json": 200, "/nothing": 404, "/api/v1/nothing": 404} {
		if status, _, body := w.raw(http.MethodGet, path, "", nil); status != want {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
	status, _, body := w.raw(http.MethodGet, "/metrics", "", nil)
	if status != 200 || !bytes.Contains(body, []byte(`metalctl_build_info{commit="abcdef",version="1.2.3"} 1`)) {
		t.Errorf("metrics: %d\n%.400s", status, body)
	}
	_, err := w.newClient("mc-wrong").Nodes(context.Background(), api.ListOptions{})
	wantCode(t, err, fleet.Denied, "MC-API-TOKEN")
}

// The admin token's file may be taken away; what was stored counts, and it is a hash.
func TestAdminTokenIsHashedAtRest(t *testing.T) {
	w := newWorld(t, nil)
	hash, err := adminHash(context.Background(), w.db)
	must(t, err)
	if hash != hashToken(w.token) || strings.Contains(hash, w.token) {
		t.Errorf("got %q", hash)
	}
}

func TestListNodes(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.client.PutClass(ctx, fleet.Class{Name: "hgx", BurnIn: "none", EraseLevel: "purge"})
	must(t, err)
	for i := range 7 {
		req := createRequest(fmt.Sprintf("n%d", i))
		req.Labels = map[string]string{"rack": fmt.Sprintf("r%d", i%2)}
		if i == 3 {
			req.Labels["spare"] = ""
			req.Class = "hgx"
		}
		_, err := w.client.CreateNode(ctx, req, "")
		must(t, err)
	}
	tests := []struct {
		name string
		o    api.ListOptions
		want string
	}{
		{"all", api.ListOptions{}, "n0 n1 n2 n3 n4 n5 n6"},
		{"turned round", api.ListOptions{Sort: "-name"}, "n6 n5 n4 n3 n2 n1 n0"},
		{"by age", api.ListOptions{Sort: "created"}, "n0 n1 n2 n3 n4 n5 n6"},
		{"of a class", api.ListOptions{Class: "hgx"}, "n3"},
		{"by a label", api.ListOptions{Selector: "rack=r1"}, "n1 n3 n5"},
		{"by two labels", api.ListOptions{Selector: "rack=r1, !spare"}, "n1 n5"},
		{"by another value", api.ListOptions{Selector: "rack!=r1"}, "n0 n2 n4 n6"},
		{"in a state", api.ListOptions{State: "available"}, ""},
		{"a page", api.ListOptions{Limit: 3}, "n0 n1 n2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := w.client.Nodes(ctx, tt.o)
			must(t, err)
			var names []string
			for _, n := range l.Items {
				names = append(names, n.Name)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	// Page by page nothing is left out or shown twice, in both directions, though nodes come and go meanwhile.
	for _, sort := range []string{"name", "-name", "state"} {
		o := api.ListOptions{Limit: 2, Sort: sort}
		seen := map[string]int{}
		for pages := 0; ; pages++ {
			l, err := w.client.Nodes(ctx, o)
			must(t, err)
			for _, n := range l.Items {
				seen[n.Name]++
			}
			if l.Continue == "" || pages > 10 {
				break
			}
			o.Continue = l.Continue
		}
		if len(seen) != 7 {
			t.Errorf("sort %s: seen %v", sort, seen)
		}
	}
	for _, o := range []api.ListOptions{{Sort: "colour"}, {Selector: "a b"}, {State: "happy"}, {Limit: 3, Continue: "%%%"}} {
		if _, err := w.client.Nodes(ctx, o); fleet.KindOf(err) != fleet.Invalid {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	if status, _, _ := w.raw(http.MethodGet, "/api/v1/nodes?colour=red", "", nil); status != 422 {
		t.Errorf("a parameter that is not known: %d", status)
	}
}

func TestPatchUnderIfMatch(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	n := w.enrol("n1")
	seen, err := w.client.Node(ctx, "n1")
	must(t, err)
	labels := map[string]string{"rack": "r1"}
	changed, err := w.client.PatchNode(ctx, "n1", api.NodePatch{Labels: &labels}, seen.Revision)
	must(t, err)
	if changed.Labels["rack"] != "r1" || changed.Revision <= seen.Revision {
		t.Errorf("got %s", asJSON(t, changed))
	}
	other := map[string]string{"rack": "r2"}
	_, err = w.client.PatchNode(ctx, "n1", api.NodePatch{Labels: &other}, seen.Revision)
	wantCode(t, err, fleet.Conflict, "MC-API-STALE")
	status, _, _ := w.raw(http.MethodPatch, "/api/v1/nodes/n1", `{"debug_shell":true}`, map[string]string{"If-Match": `"1"`})
	if status != 412 {
		t.Errorf("a stale If-Match: %d", status)
	}
	if got := w.nodeNow(n.ID); got.Labels["rack"] != "r1" || got.DebugShell {
		t.Errorf("a refused change was made: %s", asJSON(t, got))
	}
	password := "another-" + bmcPassword
	_, err = w.client.PatchNode(ctx, "n1", api.NodePatch{Password: &password}, 0)
	must(t, err)
	if !slices.Contains(w.bmcs.changed, n.ID) {
		t.Error("the breaker was not told of the new password")
	}
	must(t, w.db.View(ctx, func(sn fleet.Snapshot) error {
		got, _, err := fleet.Get[string](sn, bmcSecretKey(n.ID))
		if got != password {
			t.Errorf("the stored password is %q", got)
		}
		return err
	}))
	big := map[string]string{}
	for i := range 100 {
		big[fmt.Sprintf("label-%d", i)] = strings.Repeat("x", 60)
	}
	_, err = w.client.PatchNode(ctx, "n1", api.NodePatch{Labels: &big}, 0)
	wantCode(t, err, fleet.Invalid, "MC-NODE-SIZE")
}
